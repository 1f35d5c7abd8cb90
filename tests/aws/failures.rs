//! Executions in which something breaks.

use std::time::Duration;

use scratch_postgres::{ScratchPostgres, Shutdown};
use serde_json::json;
use stagemill_engine::{
    ledger,
    pg::{Server, Trust},
};

use crate::database::Database;

use super::{
    TABLES, cloud,
    cloud::{Cloud, FunctionName, Setup, Status, binaries},
    differences, increments, until,
};

#[tokio::test(flavor = "multi_thread")]
async fn a_backend_terminated_in_a_chunk_is_retried_by_the_state_machine() {
    let (database, cloud) = cloud(TABLES, r#", "parallelism": 2"#).await;
    database.execute("UPDATE pause SET seconds = 0.5").await;
    let execution = cloud.start_execution(&json!({"job": "increments"})).await;
    let terminate = "SELECT count(pg_terminate_backend(pid)) FROM (SELECT pid FROM pg_stat_activity
                     WHERE datname = current_database() AND application_name ~ '^stagemill:1:[0-9]+:' LIMIT 1) a";
    until("a chunk to terminate", async || database.value(terminate).await != "0").await;
    assert_eq!(cloud.wait(&execution).await.status, Status::Succeeded);
    assert_eq!(differences(&database).await, "0");
    let failed: Vec<_> = cloud.invocations().await.into_iter().filter(|call| call.error).collect();
    assert_eq!((failed.len(), &failed[0].answer["errorType"]), (1, &json!("Stagemill.ConnectionLost")));
    assert_eq!(database.value("SELECT retries FROM stagemill.run").await, "1");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_chunk_that_fails_for_good_stops_no_other_and_the_log_table_says_why() {
    let (database, cloud) =
        cloud(&format!("{TABLES} UPDATE stage SET n = 'planted-4711' WHERE id = 250;"), r#", "parallelism": 4"#).await;
    let execution = cloud.start_execution(&json!({"job": "increments"})).await;
    let outcome = cloud.wait(&execution).await;
    assert_eq!((outcome.status, outcome.error.as_deref()), (Status::Failed, Some("Stagemill.Incomplete")));
    let cause = outcome.cause.unwrap();
    assert!(cause.starts_with("1 of 20 chunks not applied: BadData in chunk "), "{cause}");
    let log =
        "SELECT concat_ws(' ', status, chunks_processed, chunks_failed, error_class, sqlstate) FROM stagemill.run";
    assert_eq!(database.value(log).await, "INCOMPLETE 19 1 Incomplete 22P02");
    assert_eq!(database.value("SELECT error FROM stagemill.run").await, cause);
    assert_eq!(
        database.value("SELECT count(*) FROM (TABLE target INTERSECT TABLE oracle) t").await,
        "480",
        "100 untouched rows and 19 chunks"
    );
    let history = cloud.history(&execution).await;
    for log in
        [FunctionName::Planner, FunctionName::Executor, FunctionName::Recorder].map(|function| cloud.logs(function))
    {
        assert!(!log.contains("4711") && !history.contains("4711"), "a row's value was logged");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_executor_killed_in_the_middle_of_a_chunk_costs_a_retry_and_no_row() {
    let (database, cloud) = cloud(TABLES, r#", "parallelism": 2"#).await;
    database.execute("UPDATE pause SET seconds = 0.4").await;
    let execution = cloud.start_execution(&json!({"job": "increments"})).await;
    for _ in 0..3 {
        tokio::time::sleep(Duration::from_millis(700)).await;
        cloud.kill_busy(FunctionName::Executor).await;
    }
    assert_eq!(cloud.wait(&execution).await.status, Status::Succeeded);
    assert_eq!(differences(&database).await, "0");
    assert!(database.value("SELECT retries FROM stagemill.run").await != "0");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_comes_up_late_is_waited_for() {
    let mut server = ScratchPostgres::builder().start().unwrap_or_else(|error| panic!("{error}"));
    let url = server.url("postgres");
    let connect = async || Server::new(url.parse().unwrap(), &Trust::System).unwrap().connect("test").await.unwrap();
    let connection = connect().await;
    ledger::schema::migrate(&connection).await.unwrap();
    connection.batch(TABLES).await.unwrap();
    ledger::job::put(&connection, &increments("")).await.unwrap();
    drop(connection);
    server.stop(Shutdown::Fast).unwrap();
    let cloud = Cloud::start(Setup::new(binaries()).variable("DATABASE_URL", &url)).await;
    let execution = cloud.start_execution(&json!({"job": "increments"})).await;
    until("a failed call", async || cloud.invocations().await.iter().any(|call| call.error)).await;
    server.start_again().unwrap();
    assert_eq!(cloud.wait(&execution).await.status, Status::Succeeded);
    let row = connect().await.query_one("SELECT status FROM stagemill.run", &[]).await.unwrap();
    assert_eq!(row.get::<_, &str>(0), "COMPLETE");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_stays_down_fails_the_execution_by_name() {
    // Nobody listens on the discard port.
    let cloud =
        Cloud::start(Setup::new(binaries()).variable("DATABASE_URL", "postgres://nobody@127.0.0.1:9/none")).await;
    let outcome = cloud.run(&json!({"job": "increments"})).await;
    assert_eq!((outcome.status, outcome.error.as_deref()), (Status::Failed, Some("Stagemill.ConnectionLost")));
    assert!(outcome.cause.unwrap().contains("cannot connect to 127.0.0.1:9/none"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_cannot_run_fails_the_execution_by_name_and_starts_nothing() {
    let (database, cloud) = cloud(TABLES, "").await;
    let outcome = cloud.run(&json!({"job": "nope"})).await;
    assert_eq!((outcome.status, outcome.error.as_deref()), (Status::Failed, Some("Stagemill.BadJob")));
    assert!(outcome.cause.unwrap().starts_with("there is no job \"nope\""));
    database.execute("DROP TABLE target CASCADE").await;
    let outcome = cloud.run(&json!({"job": "increments"})).await;
    assert!(outcome.cause.unwrap().contains("target.table \"target\" does not exist"));
    assert_eq!(database.value("SELECT count(*) FROM stagemill.run").await, "0");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_execution_is_closed_by_the_event_of_its_end() {
    let (database, cloud) = cloud(TABLES, r#", "parallelism": 2"#).await;
    database.execute("UPDATE pause SET seconds = 0.5").await;
    let execution = cloud.start_execution(&json!({"job": "increments"})).await;
    until("a chunk that is applied", async || {
        database.value("SELECT count(*) FROM stagemill.chunk WHERE state = 'PROCESSED'").await != "0"
    })
    .await;
    cloud.stop_execution(&execution).await;
    assert_eq!(cloud.wait(&execution).await.status, Status::Aborted);
    let event = json!({"execution_ended": {"execution": execution, "status": "ABORTED"}});
    for _ in 0..2 {
        cloud.invoke(FunctionName::Recorder, &event).await.unwrap();
        assert_eq!(database.value("SELECT status || ' ' || error_class FROM stagemill.run").await, "STOPPED Stopped");
    }
    let answer = stagemill_engine::resume::run(&database.connection, 1, "test", false).await.unwrap();
    database.drive(answer).await;
    assert_eq!(differences(&database).await, "0");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_without_a_ledger_fails_the_execution_with_what_to_type() {
    let database = Database::empty().await;
    let cloud = Cloud::start(Setup::new(binaries()).variable("DATABASE_URL", &database.url())).await;
    let outcome = cloud.run(&json!({"job": "increments"})).await;
    assert_eq!((outcome.status, outcome.error.as_deref()), (Status::Failed, Some("Stagemill.Ledger")));
    assert!(outcome.cause.unwrap().contains("run `stagemill init` first"));
}
