//! Executions that go on with a run.

use serde_json::{Value, json};
use stagemill_engine::resume;

use super::{
    TABLES, cloud,
    cloud::{Cloud, Fault, FunctionName, Outcome, Status},
    differences, until,
};
use crate::database::Database;

const PLANNED_BY: &str = "arn:aws:states:eu-central-1:123456789012:execution:apply:one";

async fn run_of(database: &Database) -> String {
    database.value("SELECT concat_ws(' ', status, error_class) FROM stagemill.run").await
}

/// Waits until more chunks are applied than `than`.
async fn applied(database: &Database, than: &str) {
    until("a chunk that is applied", async || {
        let more = format!("SELECT count(*) > {than} FROM stagemill.chunk WHERE state = 'PROCESSED'");
        database.value(&more).await == "true"
    })
    .await;
}

/// Stops an execution and sends the event of its end.
async fn stop(cloud: &Cloud, execution: &str) {
    cloud.stop_execution(execution).await;
    assert_eq!(cloud.wait(execution).await.status, Status::Aborted);
    ended(cloud, execution).await;
}

async fn ended(cloud: &Cloud, execution: &str) {
    let event = json!({"execution_ended": {"execution": execution, "status": "ABORTED"}});
    cloud.invoke(FunctionName::Recorder, &event).await.unwrap();
}

fn refused(outcome: &Outcome, error: &str, said: &str) {
    assert_eq!((outcome.status, outcome.error.as_deref()), (Status::Failed, Some(error)), "{outcome:?}");
    assert!(outcome.cause.as_ref().is_some_and(|cause| cause.contains(said)), "{outcome:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_whose_chunk_failed_is_completed_by_a_second_execution_once_mended() {
    let (database, cloud) = cloud(&format!("{TABLES} UPDATE stage SET n = 'x' WHERE id = 250;"), "").await;
    let outcome = cloud.run(&json!({"job": "increments"})).await;
    refused(&outcome, "Stagemill.Incomplete", "`stagemill resume 1` tries them again");
    refused(&cloud.run(&json!({"resume": 1})).await, "Stagemill.Incomplete", "1 of 20 chunks not applied");
    database.execute("UPDATE stage SET n = '250' WHERE id = 250").await;
    let execution = cloud.start_execution(&json!({"resume": "1"})).await;
    assert_eq!(cloud.wait(&execution).await.status, Status::Succeeded);
    assert_eq!((differences(&database).await.as_str(), run_of(&database).await.as_str()), ("0", "COMPLETE"));
    assert_eq!(database.value("SELECT owner FROM stagemill.run").await, execution);
    refused(&cloud.run(&json!({"resume": 1})).await, "Stagemill.BadJob", "run 1 is complete");
    refused(&cloud.run(&json!({"resume": 9})).await, "Stagemill.BadJob", "there is no run 9");
    refused(&cloud.run(&json!({})).await, "Stagemill.BadJob", "neither `job`, `jobs` nor `resume`");
}

#[tokio::test(flavor = "multi_thread")]
async fn executions_that_are_stopped_one_after_the_other_apply_each_row_once() {
    let (database, cloud) = cloud(TABLES, r#", "parallelism": 2"#).await;
    database.execute("UPDATE pause SET seconds = 0.4").await;
    let first = cloud.start_execution(&json!({"job": "increments"})).await;
    applied(&database, "0").await;
    cloud.kill_busy(FunctionName::Executor).await;
    stop(&cloud, &first).await;
    assert_eq!(run_of(&database).await, "STOPPED Stopped");

    let before = database.value("SELECT count(*) FROM stagemill.chunk WHERE state = 'PROCESSED'").await;
    let second = cloud.start_execution(&json!({"resume": 1})).await;
    applied(&database, &before).await;
    // The first one's event may come late, and twice.
    ended(&cloud, &first).await;
    assert_eq!(run_of(&database).await, "RUNNING");
    stop(&cloud, &second).await;
    assert_eq!(run_of(&database).await, "STOPPED Stopped");

    database.execute("UPDATE pause SET seconds = 0").await;
    assert_eq!(cloud.run(&json!({"resume": 1})).await.status, Status::Succeeded);
    assert_eq!((differences(&database).await.as_str(), run_of(&database).await.as_str()), ("0", "COMPLETE"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_planner_whose_answer_was_lost_meets_the_run_that_it_resumed() {
    let (database, cloud) = cloud(&format!("{TABLES} UPDATE stage SET n = 'x' WHERE id = 250;"), "").await;
    assert_eq!(cloud.run(&json!({"job": "increments"})).await.status, Status::Failed);
    database.execute("UPDATE stage SET n = '250' WHERE id = 250").await;
    cloud.play(FunctionName::Planner, Fault::LoseAnswer, 1).await;
    cloud.play(FunctionName::Executor, Fault::DeliverTwice, 1).await;
    cloud.play(FunctionName::Recorder, Fault::LoseAnswer, 1).await;
    assert_eq!(cloud.run(&json!({"resume": 1})).await.status, Status::Succeeded);
    assert_eq!((differences(&database).await.as_str(), run_of(&database).await.as_str()), ("0", "COMPLETE"));
    assert_eq!(database.value("SELECT max(round) FROM stagemill.round").await, "2");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_somebody_works_on_is_not_resumed_and_goes_on() {
    let (database, cloud) = cloud(TABLES, r#", "parallelism": 1"#).await;
    database.execute("UPDATE pause SET seconds = 1").await;
    let first = cloud.start_execution(&json!({"job": "increments"})).await;
    applied(&database, "0").await;
    let second = cloud.start_execution(&json!({"resume": 1})).await;
    let outcome = cloud.wait(&second).await;
    refused(&outcome, "Stagemill.AlreadyRunning", "run 1 is being worked on by arn:");
    ended(&cloud, &second).await;
    assert_eq!(run_of(&database).await, "RUNNING");
    database.execute("UPDATE pause SET seconds = 0").await;
    assert_eq!(cloud.wait(&first).await.status, Status::Succeeded);
    assert_eq!(differences(&database).await, "0");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_of_which_nothing_is_left_is_closed_without_an_executor() {
    let (database, cloud) = cloud(TABLES, r#", "parallelism": 1"#).await;
    let planned = planned(&cloud).await;
    for item in planned["items"].as_array().unwrap() {
        cloud.invoke(FunctionName::Executor, item).await.unwrap();
    }
    ended(&cloud, PLANNED_BY).await;
    assert_eq!(run_of(&database).await, "STOPPED Stopped");
    let called = executors(&cloud).await;
    assert_eq!(cloud.run(&json!({"resume": 1})).await.status, Status::Succeeded);
    assert_eq!((differences(&database).await.as_str(), run_of(&database).await.as_str()), ("0", "COMPLETE"));
    assert_eq!(executors(&cloud).await, called);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_former_execution_still_does_is_refused() {
    let (database, cloud) = cloud(TABLES, r#", "parallelism": 1"#).await;
    let planned = planned(&cloud).await;
    let answer = resume::run(&database.connection, 1, "another", true).await.unwrap();
    let item = &planned["items"][0];
    assert_eq!(cloud.invoke(FunctionName::Executor, item).await.unwrap()["remaining"], 0);
    assert_eq!(database.value("SELECT count(*) FROM stagemill.chunk WHERE attempt > 0").await, "0");
    let round = json!({"start": PLANNED_BY, "run": 1, "round": 1});
    let late = cloud.invoke(FunctionName::Recorder, &round).await.unwrap();
    assert_eq!((&late["status"], &late["error"]), (&json!("failed"), &json!("Stagemill.RunClosed")));
    assert!(late["cause"].as_str().unwrap().contains("another"), "{late}");
    database.drive(answer).await;
    assert_eq!(differences(&database).await, "0");
}

async fn planned(cloud: &Cloud) -> Value {
    let start = json!({"start": PLANNED_BY, "input": {"job": "increments"}});
    cloud.invoke(FunctionName::Planner, &start).await.unwrap()
}

async fn executors(cloud: &Cloud) -> usize {
    cloud.invocations().await.iter().filter(|call| call.function == FunctionName::Executor).count()
}
