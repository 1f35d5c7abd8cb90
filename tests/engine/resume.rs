//! Going on with a run, by several who may ask for it.

use stagemill_engine::{
    answer::Step,
    chunk::Item,
    failure::{Class, Failure},
    ledger::{self, chunk::Claim},
    outcome::Status,
    record, resume,
};

use crate::database::{Database, job};

const TABLES: &str = "
    CREATE TABLE target (id int PRIMARY KEY, n int NOT NULL DEFAULT 0); INSERT INTO target SELECT g FROM generate_series(1, 200) g;
    CREATE TABLE stage (id int PRIMARY KEY, n int); INSERT INTO stage SELECT g, g FROM generate_series(1, 200) g; ANALYZE;";

const JOB: &str = r#"{"name": "increments", "stage": {"table": "stage"}, "target": {"table": "target", "key": ["id"]}, "operation": "update",
    "columns": {"id": "stage.id", "n": "target.n + stage.n"}, "chunks": {"by": "key", "rows": 50}, "parallelism": 2}"#;

const FIRST: &str = "arn:aws:states:r:1:execution:m:first";
const SECOND: &str = "arn:aws:states:r:1:execution:m:second";
const THIRD: &str = "arn:aws:states:r:1:execution:m:third";

/// A run of an execution that was stopped.
async fn stopped() -> Database {
    let database = Database::with(TABLES).await;
    database.planned(&job(JOB), FIRST).await;
    stop(&database, FIRST).await;
    database
}

async fn stop(database: &Database, owner: &str) {
    record::ended_from_outside(&database.connection, owner, &Failure::new(Class::Stopped, "test")).await.unwrap();
}

async fn every_row_once(database: &Database) {
    assert_eq!(database.value("SELECT count(*) FROM target WHERE n <> id").await, "0");
}

#[tokio::test]
async fn an_owner_that_asks_again_gets_the_same_answer() {
    let database = stopped().await;
    let answer = resume::run(&database.connection, 1, SECOND, false).await.unwrap();
    assert_eq!((answer.round, answer.items.len()), (2, 4));
    assert_eq!(resume::run(&database.connection, 1, SECOND, false).await.unwrap(), answer);
    assert_eq!(database.value("SELECT max(round) FROM stagemill.round").await, "2");
    database.drive(answer).await;
    every_row_once(&database).await;
    assert_eq!(resume::run(&database.connection, 1, SECOND, false).await.unwrap().status, Step::Complete);
    let other = resume::run(&database.connection, 7, SECOND, false).await.unwrap_err();
    assert!(other.message().contains("owns run 1 and can't go on with run 7"), "{other}");
}

#[tokio::test]
async fn of_two_who_resume_in_the_same_moment_one_is_refused_by_name() {
    let database = stopped().await;
    let connections = [database.another_connection().await, database.another_connection().await];
    let (a, b) =
        tokio::join!(resume::run(&connections[0], 1, SECOND, false), resume::run(&connections[1], 1, THIRD, false));
    let refused = match (a, b) {
        (Ok(_), Err(refused)) | (Err(refused), Ok(_)) => refused,
        both => panic!("{both:?}"),
    };
    assert_eq!(refused.class, Class::AlreadyRunning, "{refused}");
    assert_eq!(database.value("SELECT round FROM stagemill.run").await, "2");
}

#[tokio::test]
async fn a_run_that_is_closed_while_it_is_waited_for_is_resumed_at_once() {
    let database = Database::with(TABLES).await;
    database.planned(&job(JOB), FIRST).await;
    let connection = database.another_connection().await;
    let (resumed, ()) = tokio::join!(resume::run(&connection, 1, SECOND, false), async {
        tokio::time::sleep(std::time::Duration::from_millis(500)).await;
        stop(&database, FIRST).await;
    });
    assert_eq!(resumed.unwrap().round, 2);
}

#[tokio::test]
async fn a_run_of_which_nothing_is_left_is_completed() {
    let database = Database::with(TABLES).await;
    let answer = database.planned(&job(JOB), FIRST).await;
    let connection = database.another_connection().await;
    let run = ledger::run::load(&connection, 1).await.unwrap();
    let worker = stagemill_engine::apply::Worker { connection: &connection, run: &run, name: "test", rank: None };
    for item in &answer.items {
        stagemill_engine::apply::item(worker, item, &stagemill_engine::apply::Stop::default(), &|_| {}).await.unwrap();
    }
    stop(&database, FIRST).await;
    let answer = resume::run(&database.connection, 1, SECOND, false).await.unwrap();
    assert_eq!((answer.status, answer.items.len()), (Step::Round, 0));
    assert_eq!(database.drive(answer).await.status, Status::Complete);
    every_row_once(&database).await;
}

#[tokio::test]
async fn a_resumed_run_shows_a_sign_of_life_before_its_first_chunk() {
    let database = stopped().await;
    database
        .execute(
            "UPDATE stagemill.run SET started_at = now() - interval '1 day', planned_at = now() - interval '1 day';
             UPDATE stagemill.round SET opened_at = now() - interval '1 day'",
        )
        .await;
    resume::run(&database.connection, 1, SECOND, false).await.unwrap();
    assert!(ledger::run::open_run(&database.connection, 1).await.unwrap().is_alive());
}

#[tokio::test]
async fn the_former_owners_workers_and_recorder_come_too_late() {
    let database = stopped().await;
    let answer = resume::run(&database.connection, 1, SECOND, false).await.unwrap();
    let late = Item { run: 1, round: 1, first: 1, last: 4, stalled: 0 };
    assert!(ledger::chunk::due(&database.connection, 1, late.round, late.first, late.last).await.unwrap().is_empty());
    let claimed = ledger::chunk::claim(&database.connection, 1, (1, late.round), "late", None).await.unwrap();
    assert!(matches!(claimed, Claim::NotDue), "{claimed:?}");
    let refused = record::round_of(&database.connection, FIRST, 1, 1).await.unwrap_err();
    assert_eq!(refused.class, Class::RunClosed);
    assert!(refused.message().contains(SECOND), "{refused}");
    stop(&database, FIRST).await;
    assert_eq!(database.value("SELECT status || ' ' || round FROM stagemill.run").await, "RUNNING 2");
    database.drive(answer).await;
    every_row_once(&database).await;
    // How the run ended is true for whoever asks.
    let verdict = record::round_of(&database.connection, FIRST, 1, 1).await.unwrap();
    assert_eq!((verdict.answer.status, verdict.closed.is_none()), (Step::Complete, true));
}
