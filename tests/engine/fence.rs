//! A chunk may run twice; its effect may not.

use std::time::Duration;

use stagemill_engine::{
    apply::{self, Stop, Worker},
    chunk::Item,
    failure::{Class, Failure},
    ledger::{
        self,
        chunk::{Claim, Claimed},
    },
    outcome::Status,
    record,
};

use crate::database::{Database, job};

/// 200 staged increments; a trigger on the target makes each statement as slow as the table `pause` says.
const INCREMENTS: &str = "
    CREATE TABLE target (id int PRIMARY KEY, n int NOT NULL DEFAULT 0); INSERT INTO target SELECT g FROM generate_series(1, 200) g;
    CREATE TABLE stage (id int PRIMARY KEY, n int); INSERT INTO stage SELECT g, g FROM generate_series(1, 200) g;
    CREATE TABLE pause (seconds float8); INSERT INTO pause VALUES (0);
    CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep((SELECT seconds FROM pause)); RETURN NULL; END $$;
    CREATE TRIGGER slow AFTER UPDATE ON target FOR EACH STATEMENT EXECUTE FUNCTION slow();
    ANALYZE;";

const JOB: &str = r#"{"name": "increments", "stage": {"table": "stage"}, "target": {"table": "target", "key": ["id"]}, "operation": "update",
    "columns": {"id": "stage.id", "n": "target.n + stage.n"}, "chunks": {"by": "key", "rows": 50}, "parallelism": 2}"#;

const WHOLE: Item = Item { run: 1, round: 1, first: 1, last: 1_000, stalled: 0 };

/// Applies an item on a connection of its own.
async fn apply(database: &Database, item: Item) -> Result<Vec<i32>, Class> {
    let connection = database.another_connection().await;
    let run = ledger::run::load(&connection, item.run).await.unwrap();
    let worker = Worker { connection: &connection, run: &run, name: "test", rank: None };
    apply::item(worker, &item, &Stop::default(), &|_| {}).await.map(|left| left.chunks).map_err(|failure| failure.class)
}

async fn claim(database: &Database, id: i32) -> Claimed {
    match ledger::chunk::claim(&database.connection, 1, (id, 1), "zombie", None).await.unwrap() {
        Claim::Ours(claimed) => *claimed,
        other => panic!("{other:?}"),
    }
}

async fn every_row_once(database: &Database) {
    assert_eq!(
        database.value("SELECT count(*) FROM target WHERE n <> id").await,
        "0",
        "rows that are not applied exactly once"
    );
}

#[tokio::test]
async fn one_item_handed_to_two_workers_is_applied_once() {
    let database = Database::with(INCREMENTS).await;
    database.planned(&job(JOB), "me").await;
    database.execute("UPDATE pause SET seconds = 0.2").await;
    let (a, b) = tokio::join!(apply(&database, WHOLE), apply(&database, WHOLE));
    for result in [a, b] {
        assert!(matches!(result, Ok(_) | Err(Class::StillRunning)), "{result:?}");
    }
    assert_eq!(apply(&database, WHOLE).await, Ok(vec![]));
    assert_eq!(record::round(&database.connection, 1, 1).await.unwrap().closed.unwrap().status, Status::Complete);
    every_row_once(&database).await;
}

#[tokio::test]
async fn a_chunk_whose_worker_is_alive_is_not_waited_for() {
    let database = Database::with(INCREMENTS).await;
    database.planned(&job(JOB), "me").await;
    database.execute("UPDATE pause SET seconds = 2").await;
    let first = Item { last: 1, ..WHOLE };
    let (slow, quick) = tokio::join!(apply(&database, first), async {
        tokio::time::sleep(Duration::from_millis(700)).await;
        let started = std::time::Instant::now();
        (apply(&database, first).await, started.elapsed())
    });
    assert_eq!((slow, quick.0), (Ok(vec![]), Err(Class::StillRunning)));
    assert!(quick.1 < Duration::from_secs(1), "{:?}", quick.1);
}

#[tokio::test]
async fn a_worker_that_was_taken_for_dead_is_refused() {
    let database = Database::with(INCREMENTS).await;
    database.planned(&job(JOB), "me").await;
    let zombie = claim(&database, 1).await;
    assert_eq!(apply(&database, WHOLE).await, Ok(vec![]));
    database.execute("BEGIN").await;
    assert!(!ledger::chunk::fence(&database.connection, "", &zombie).await.unwrap());
    database.execute("ROLLBACK").await;
    every_row_once(&database).await;
}

#[tokio::test]
async fn of_two_workers_that_claimed_a_chunk_only_the_later_one_may_apply_it() {
    let database = Database::with(INCREMENTS).await;
    database.planned(&job(JOB), "me").await;
    let (zombie, owner) = (claim(&database, 1).await, claim(&database, 1).await);
    database.execute("BEGIN").await;
    assert!(!ledger::chunk::fence(&database.connection, "", &zombie).await.unwrap());
    assert!(ledger::chunk::fence(&database.connection, "", &owner).await.unwrap());
    database.execute("ROLLBACK").await;
}

#[tokio::test]
async fn a_chunk_that_is_applied_is_never_claimed_again() {
    let database = Database::with(INCREMENTS).await;
    database.planned(&job(JOB), "me").await;
    assert_eq!(apply(&database, WHOLE).await, Ok(vec![]));
    for round in [1, 2] {
        let claimed = ledger::chunk::claim(&database.connection, 1, (1, round), "late", None).await.unwrap();
        assert!(matches!(claimed, Claim::NotDue), "{claimed:?}");
    }
}

#[tokio::test]
async fn a_chunk_of_a_halted_run_is_not_claimed() {
    let database = Database::with(INCREMENTS).await;
    database.planned(&job(JOB), "me").await;
    let why = Failure::new(Class::Stopped, "stopped by a test");
    assert!(ledger::run::stop(&database.connection, 1, &why).await.unwrap());
    let claimed = ledger::chunk::claim(&database.connection, 1, (1, 1), "late", None).await.unwrap();
    assert!(matches!(claimed, Claim::RunClosed), "{claimed:?}");
    assert_eq!(database.value("SELECT max(attempt) FROM stagemill.chunk").await, "0");
}

#[tokio::test]
async fn the_zombie_of_a_resumed_run_is_refused_too() {
    let database = Database::with(INCREMENTS).await;
    database.planned(&job(JOB), "me").await;
    let zombie = claim(&database, 1).await;
    stagemill_engine::resume::run(&database.connection, 1, "another", true).await.unwrap();
    database.execute("BEGIN").await;
    assert!(!ledger::chunk::fence(&database.connection, "", &zombie).await.unwrap());
    database.execute("ROLLBACK").await;
}

#[tokio::test]
async fn closing_a_run_lets_what_is_in_flight_end_and_nothing_start() {
    let database = Database::with(INCREMENTS).await;
    database.planned(&job(JOB), "me").await;
    database.execute("UPDATE pause SET seconds = 1").await;
    let first = Item { last: 1, ..WHOLE };
    let (in_flight, late) = tokio::join!(apply(&database, first), async {
        tokio::time::sleep(Duration::from_millis(400)).await;
        let failure = stagemill_engine::failure::Failure::new(Class::Stopped, "test");
        record::ended_from_outside(&database.connection, "me", &failure).await.unwrap();
        apply(&database, WHOLE).await
    });
    assert_eq!((in_flight, late), (Ok(vec![]), Err(Class::RunClosed)));
    assert_eq!(database.value("SELECT chunks_processed || ' ' || status FROM stagemill.run").await, "1 STOPPED");
}

#[tokio::test]
async fn nothing_starts_while_a_run_waits_to_be_closed() {
    let database = Database::with(INCREMENTS).await;
    database.planned(&job(JOB), "me").await;
    database.execute("UPDATE pause SET seconds = 1.5").await;
    let (second, failure) =
        (Item { first: 2, last: 2, ..WHOLE }, stagemill_engine::failure::Failure::new(Class::Stopped, "test"));
    let (in_flight, (), late) = tokio::join!(
        apply(&database, Item { last: 1, ..WHOLE }),
        async {
            tokio::time::sleep(Duration::from_millis(400)).await;
            record::ended_from_outside(&database.connection, "me", &failure).await.unwrap();
        },
        async {
            tokio::time::sleep(Duration::from_millis(800)).await;
            apply(&database, second).await
        }
    );
    assert_eq!((in_flight, late), (Ok(vec![]), Err(Class::StillRunning)));
    assert_eq!(database.value("SELECT chunks_processed FROM stagemill.run").await, "1");
}

#[tokio::test]
async fn a_backend_that_is_terminated_in_a_chunk_costs_a_retry_and_no_row() {
    let database = Database::with(INCREMENTS).await;
    let answer = database.planned(&job(JOB), "me").await;
    database.execute("UPDATE pause SET seconds = 0.5").await;
    let (summary, ()) = tokio::join!(database.drive(answer), async {
        for _ in 0..4 {
            tokio::time::sleep(Duration::from_millis(300)).await;
            database
                .value("SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname = current_database() AND application_name ~ '^stagemill:1:[0-9]+:'")
                .await;
        }
    });
    assert_eq!(summary.status, Status::Complete);
    assert!(summary.tally.retries > 0);
    every_row_once(&database).await;
}

#[tokio::test]
async fn a_stage_that_is_rewritten_under_block_ranges_stops_the_run() {
    let database = Database::with(INCREMENTS).await;
    let by_block = JOB.replace("\"key\", \"rows\"", "\"ctid\", \"rows\"");
    database.planned(&job(&by_block), "me").await;
    database.execute("VACUUM FULL stage").await;
    assert_eq!(apply(&database, WHOLE).await, Err(Class::SourceChanged));
    let recorded = record::round(&database.connection, 1, 1).await.unwrap();
    assert_eq!(recorded.closed.unwrap().status, Status::SourceChanged);
    assert_eq!(database.value("SELECT count(*) FROM target WHERE n <> 0").await, "0");
}

#[tokio::test]
async fn a_chunk_whose_attempts_all_died_fails_and_says_so() {
    let database = Database::with(INCREMENTS).await;
    database.planned(&job(&JOB.replace("\"parallelism\"", r#""retry": {"attempts": 2}, "parallelism""#)), "me").await;
    claim(&database, 1).await;
    claim(&database, 1).await;
    assert_eq!(apply(&database, WHOLE).await, Ok(vec![]));
    assert_eq!(
        database.value("SELECT state || ': ' || error FROM stagemill.chunk WHERE chunk_id = 1").await,
        "PROCESSED_WITH_ERROR: attempt 2 of 2 never reported back"
    );
}

#[tokio::test]
async fn the_ledger_refuses_counts_that_do_not_add_up() {
    let database = Database::with(INCREMENTS).await;
    database.planned(&job(JOB), "me").await;
    let lie = "UPDATE stagemill.chunk SET state = 'PROCESSED', ended_at = now(), staged = 3, inserted = 1, updated = 1, deleted = 0, unchanged = 0, skipped = 0, rejected = 0";
    let refused = database.connection.batch(lie).await.unwrap_err();
    assert_eq!(refused.sqlstate.as_deref(), Some("23514"));
}

#[tokio::test]
async fn a_chunk_that_the_deadline_cuts_off_is_left_for_the_next_call() {
    for microseconds in [0, 83, 700] {
        let database = Database::with(INCREMENTS).await;
        database.planned(&job(JOB), "me").await;
        database.execute("UPDATE pause SET seconds = 0.4").await;
        let connection = database.another_connection().await;
        let run = ledger::run::load(&connection, 1).await.unwrap();
        let deadline = Some(std::time::Instant::now() + Duration::from_micros(700_000 + microseconds));
        let stop = Stop { deadline, ..Stop::default() };
        let worker = Worker { connection: &connection, run: &run, name: "test", rank: None };
        // Not even where one attempt is all that there is.
        database.execute("UPDATE stagemill.chunk SET attempt_limit = 1").await;
        assert_eq!(apply::item(worker, &Item { last: 2, ..WHOLE }, &stop, &|_| {}).await.unwrap().chunks, [2]);
        let chunk = "SELECT concat_ws(' ', c.state, c.round, r.halted) FROM stagemill.chunk c, stagemill.run r WHERE chunk_id = 2";
        assert_eq!(database.value(chunk).await, "UNASSIGNED 1");
        database.execute("UPDATE pause SET seconds = 0").await;
        apply::item(worker, &Item { last: 2, ..WHOLE }, &Stop::default(), &|_| {}).await.unwrap();
        assert_eq!(database.value(chunk).await, "PROCESSED 1");
    }
}

#[tokio::test]
async fn a_chunk_that_met_others_again_and_again_locks_its_rows_first_in_the_order_of_their_keys() {
    let database = Database::with(INCREMENTS).await;
    let answer = database.planned(&job(JOB), "me").await;
    let run = ledger::run::load(&database.connection, 1).await.unwrap();
    let range = stagemill_engine::chunk::Range::Keys { low: None, high: Some(vec!["50".into()]) };
    let sql = format!("EXPLAIN {}", stagemill_engine::statement::lock(&run.mapping, &range));
    let plan: Vec<String> = database.connection.query(&sql, &[]).await.unwrap().iter().map(|row| row.get(0)).collect();
    let at = |node: &str| plan.iter().position(|line| line.contains(node));
    assert!(at("LockRows").unwrap() < at("Sort").unwrap(), "{plan:?}");
    database.execute("UPDATE stagemill.chunk SET attempt = 4, error_class = 'Contention'").await;
    assert_eq!(database.drive(answer).await.status, Status::Complete);
    every_row_once(&database).await;
}

#[tokio::test]
async fn held_chunks_are_among_those_left() {
    let database = Database::with(INCREMENTS).await;
    database.planned(&job(JOB), "me").await;
    database.execute("UPDATE pause SET seconds = 0.5").await;
    let holder = database.another_connection().await;
    holder.batch("BEGIN; SELECT FROM stagemill.chunk WHERE chunk_id IN (1, 2) FOR UPDATE").await.unwrap();
    let connection = database.another_connection().await;
    let run = ledger::run::load(&connection, 1).await.unwrap();
    let stop = Stop { deadline: Some(std::time::Instant::now() + Duration::from_millis(900)), ..Stop::default() };
    let worker = Worker { connection: &connection, run: &run, name: "test", rank: None };
    assert_eq!(apply::item(worker, &WHOLE, &stop, &|_| {}).await.unwrap().chunks, [1, 2, 4]);
}
