//! What people do to a run.

use std::time::Duration;

use stagemill_engine::{
    answer::Answer,
    failure::Failure,
    job::Job,
    ledger,
    local::{Driver, Ended},
    outcome::Status,
};
use tokio_util::sync::CancellationToken;

use crate::database::{Database, job};

/// Slow enough that somebody can come in between.
const TABLES: &str = "
    CREATE TABLE target (id int PRIMARY KEY, n int NOT NULL); INSERT INTO target SELECT g, 0 FROM generate_series(1, 200) g;
    CREATE TABLE stage (id int PRIMARY KEY, n int); INSERT INTO stage SELECT g, g FROM generate_series(1, 200) g;
    CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(0.05); RETURN NULL; END $$;
    CREATE TRIGGER slow AFTER UPDATE ON target FOR EACH STATEMENT EXECUTE FUNCTION slow();";

fn adding(expression: &str) -> Job {
    job(&format!(
        r#"{{"name": "people", "stage": {{"table": "stage"}}, "target": {{"table": "target", "key": ["id"]}}, "operation": "update",
            "columns": {{"id": "stage.id", "n": "{expression}"}}, "chunks": {{"rows": 10}}, "parallelism": 2}}"#
    ))
}

/// Drives a run while something is done to it.
async fn meanwhile(database: &Database, answer: Answer, done: impl Future<Output = ()>) -> Result<Ended, Failure> {
    let server = database.server();
    let driver = Driver { server: &server, worker: "test", stop: CancellationToken::new(), report: &|_| {} };
    let (ended, ()) = tokio::join!(driver.run(answer), done);
    ended
}

#[tokio::test]
async fn a_job_that_is_changed_in_the_job_table_changes_the_next_run_and_not_this_one() {
    let database = Database::with(TABLES).await;
    ledger::job::put(&database.connection, &adding("target.n + stage.n")).await.unwrap();
    let answer = database.planned(&adding("target.n + stage.n"), "me").await;
    let ended = meanwhile(&database, answer, async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        ledger::job::put(&database.connection, &adding("0")).await.unwrap();
    });
    let Ok(Ended::Closed(summary)) = ended.await else { panic!("it did not end") };
    assert_eq!(summary.status, Status::Complete);
    assert_eq!(database.value("SELECT count(*) FROM target WHERE n = id").await, "200");
}

#[tokio::test]
async fn a_ledger_that_is_dropped_under_a_run_ends_it_with_its_name_and_no_row_applied_twice() {
    let database = Database::with(TABLES).await;
    let answer = database.planned(&adding("target.n + stage.n"), "me").await;
    let ended = meanwhile(&database, answer, async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        database.execute("DROP SCHEMA stagemill CASCADE").await;
    });
    let failure = ended.await.unwrap_err();
    assert!(failure.message().contains("stagemill"), "{failure}");
    assert_eq!(database.value("SELECT count(*) FROM target WHERE n NOT IN (0, id)").await, "0");
}
