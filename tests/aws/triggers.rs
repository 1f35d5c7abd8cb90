//! What starts executions, and what becomes of a start while another run is open: one more run follows, a repeat is known, jobs wait their turn.

use serde_json::{Value, json};
use stagemill_engine::{job::Job, ledger};

use super::{
    TABLES,
    cloud::{Cloud, FunctionName, Outcome, Status},
    cloud_of, until,
};
use crate::database::{Database, job};

/// A database with the job `increments`, slow enough to be met, and a second job on other tables.
async fn two_jobs() -> (Database, Cloud) {
    let sql = format!(
        "{TABLES} CREATE TABLE other_stage (id int PRIMARY KEY, n int); INSERT INTO other_stage SELECT g, g FROM generate_series(1, 50) g;
         CREATE TABLE other (id int PRIMARY KEY, n int); ANALYZE;"
    );
    let (database, cloud) = cloud_of(&sql, r#", "parallelism": 2"#, |setup| setup).await;
    ledger::job::put(&database.connection, &second()).await.unwrap();
    (database, cloud)
}

fn second() -> Job {
    job(
        r#"{"name": "second", "stage": {"table": "other_stage"}, "target": {"table": "other", "key": ["id"]}, "operation": "upsert",
            "columns": ["id", "n"], "chunks": {"rows": 25}}"#,
    )
}

/// The log table: job, status and whose run of its execution each is.
async fn logged(database: &Database) -> String {
    let sql = "SELECT string_agg(concat_ws(' ', job, status, '#' || COALESCE(NULLIF(split_part(owner, '#', 2), ''), '1')), ', ' ORDER BY run_id) FROM stagemill.run";
    database.value(sql).await
}

async fn is_under_way(database: &Database, job: &str) {
    until("the run", async || {
        database.value(&format!("SELECT count(*) FROM stagemill.chunk JOIN stagemill.run USING (run_id) WHERE job = '{job}' AND chunk_id = 1 AND state = 'PROCESSED'")).await != "0"
    })
    .await;
}

async fn slow(database: &Database, seconds: f64) {
    database.execute(&format!("UPDATE pause SET seconds = {seconds}")).await;
}

fn succeeded(outcome: &Outcome) {
    assert_eq!(outcome.status, Status::Succeeded, "{outcome:?}");
}

fn chain(trigger: &str) -> Value {
    json!({"jobs": ["increments", "second"], "trigger": {"id": trigger}})
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_during_a_run_makes_one_more_follow_and_what_came_meanwhile_is_applied() {
    let (database, cloud) = two_jobs().await;
    slow(&database, 0.3).await;
    let first = cloud.start_execution(&json!({"job": "increments"})).await;
    is_under_way(&database, "increments").await;
    // Of the first chunk, which is applied.
    database.execute("INSERT INTO stage VALUES (100, 7)").await;
    let starts = [json!({"job": "increments", "trigger": {"id": "t"}}), json!({"job": "increments"})];
    for start in &starts {
        let second = cloud.start_execution(start).await;
        succeeded(&cloud.wait(&second).await);
        assert_eq!(cloud.states(&second).await.last().unwrap(), "Coalesced");
    }
    let again = cloud.start_execution(&starts[0]).await;
    succeeded(&cloud.wait(&again).await);
    assert_eq!(cloud.states(&again).await.last().unwrap(), "Duplicate", "its event is known although it has no run");
    slow(&database, 0.0).await;
    succeeded(&cloud.wait(&first).await);
    let runs = logged(&database).await;
    assert!(runs.ends_with(", increments COMPLETE #2") && runs.matches("increments").count() == 2, "{runs}");
    assert_eq!(database.value("SELECT n FROM target WHERE id = 100").await, "7");
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_of_one_start_run_in_order_and_the_same_event_again_starts_none() {
    let (database, cloud) = two_jobs().await;
    succeeded(&cloud.run(&chain("event")).await);
    assert_eq!(logged(&database).await, "increments COMPLETE #1, second COMPLETE #2");
    let again = cloud.start_execution(&chain("event")).await;
    succeeded(&cloud.wait(&again).await);
    assert_eq!(cloud.states(&again).await.last().unwrap(), "Duplicate");
    succeeded(&cloud.run(&chain("next event")).await);
    assert_eq!(database.value("SELECT count(*) FROM stagemill.run").await, "4");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_fails_keeps_those_behind_it_from_starting_and_says_which() {
    let (database, cloud) = two_jobs().await;
    database.execute("UPDATE stage SET n = 'x' WHERE id = 300").await;
    let outcome = cloud.run(&chain("event")).await;
    let cause = outcome.cause.clone().unwrap_or_default();
    assert_eq!(outcome.status, Status::Failed, "{outcome:?}");
    assert!(cause.contains("not started: second"), "{cause}");
    assert_eq!(database.value("SELECT count(*) FROM stagemill.run WHERE job = 'second'").await, "0");

    // Once mended, the run and then what follows it.
    database.execute("UPDATE stage SET n = '300' WHERE id = 300").await;
    succeeded(&cloud.run(&json!({"resume": 1})).await);
    assert_eq!(logged(&database).await, "increments COMPLETE #1, second COMPLETE #2");

    let unknown = cloud.run(&json!({"jobs": ["second", "nowhere", "increments"]})).await;
    let cause = unknown.cause.unwrap_or_default();
    assert!(
        cause.contains("job 2 of 3") && cause.contains("nowhere") && cause.contains("not started: increments"),
        "{cause}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_of_jobs_is_left_to_a_run_only_if_the_same_jobs_follow_it_and_else_waits_its_turn() {
    let (database, cloud) = two_jobs().await;
    slow(&database, 0.3).await;
    let first = cloud.start_execution(&json!({"job": "increments"})).await;
    is_under_way(&database, "increments").await;
    let list = cloud.start_execution(&chain("event")).await;
    until("the wait", async || cloud.states(&list).await.iter().any(|state| state == "WaitForTurn")).await;
    slow(&database, 0.0).await;
    succeeded(&cloud.wait(&first).await);
    succeeded(&cloud.wait(&list).await);
    assert_eq!(logged(&database).await, "increments COMPLETE #1, increments COMPLETE #1, second COMPLETE #2");

    slow(&database, 0.3).await;
    let first = cloud.start_execution(&chain("third")).await;
    is_under_way(&database, "increments").await;
    until("the third", async || database.value("SELECT count(*) FROM stagemill.run").await == "4").await;
    succeeded(&cloud.run(&chain("fourth")).await);
    slow(&database, 0.0).await;
    succeeded(&cloud.wait(&first).await);
    assert!(logged(&database).await.ends_with("increments COMPLETE #1, increments COMPLETE #2, second COMPLETE #3"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_waits_for_a_run_of_the_command_line_which_makes_no_other() {
    let (database, cloud) = two_jobs().await;
    let spec = super::increments(r#", "parallelism": 2"#);
    let planned = database.planned(&spec, "host:1:2").await;
    let waiting = cloud.start_execution(&json!({"job": "increments"})).await;
    until("the wait", async || cloud.states(&waiting).await.iter().any(|state| state == "WaitForTurn")).await;
    database.drive(planned).await;
    succeeded(&cloud.wait(&waiting).await);
    assert_eq!(logged(&database).await, "increments COMPLETE #1, increments COMPLETE #1");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_execution_that_is_aborted_in_a_later_run_closes_that_run_and_says_what_was_left_to_it() {
    let (database, cloud) = two_jobs().await;
    slow(&database, 0.3).await;
    let list = cloud.start_execution(&json!({"jobs": ["second", "increments"]})).await;
    is_under_way(&database, "increments").await;
    succeeded(&cloud.run(&json!({"job": "increments"})).await);
    cloud.stop_execution(&list).await;
    assert_eq!(cloud.wait(&list).await.status, Status::Aborted);
    let event = json!({"execution_ended": {"execution": list, "status": "ABORTED"}});
    cloud.invoke(FunctionName::Recorder, &event).await.unwrap();
    assert_eq!(logged(&database).await, "second COMPLETE #1, increments STOPPED #2");
    let error = database.value("SELECT error FROM stagemill.run WHERE run_id = 2").await;
    assert!(error.contains("ABORTED") && error.contains("start the job again"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_alarm_holds_the_state_machines_runs_back_until_it_is_over_and_touches_no_others() {
    let (database, cloud) = two_jobs().await;
    slow(&database, 0.2).await;
    let execution = cloud.start_execution(&json!({"job": "increments"})).await;
    is_under_way(&database, "increments").await;
    database.planned(&second(), "host:1:2").await;
    let alarm = |name: &str, state: &str| {
        let machine = cloud.machine();
        json!({"control": {"alarm": name, "state": state, "state_machine": machine}})
    };
    let held = async || {
        database.value("SELECT COALESCE(string_agg(concat(run_id, ' ', owner), ', ' ORDER BY hold_id), 'none') FROM stagemill.hold WHERE ended_at IS NULL AND until > now() + interval '59 min'").await
    };
    let mut late = alarm("cpu", "ALARM");
    late["control"]["at"] = json!("2026-11-24T02:10:00Z");
    cloud.invoke(FunctionName::Recorder, &late).await.unwrap();
    assert_eq!(held().await, "none", "what was heard of too late may be over");
    late["control"]["at"] =
        json!(database.value("SELECT to_char(now() AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"')").await);
    cloud.invoke(FunctionName::Recorder, &late).await.unwrap();
    cloud.invoke(FunctionName::Recorder, &alarm("memory", "ALARM")).await.unwrap();
    assert_eq!(held().await, "1 cpu, 1 memory");
    cloud.invoke(FunctionName::Recorder, &alarm("cpu", "INSUFFICIENT_DATA")).await.unwrap();
    cloud.invoke(FunctionName::Recorder, &alarm("memory", "OK")).await.unwrap();
    assert_eq!(held().await, "1 cpu", "each lifts its own, and one that knows nothing lifts none");
    cloud.invoke(FunctionName::Recorder, &alarm("cpu", "OK")).await.unwrap();
    assert_eq!(held().await, "none");
    slow(&database, 0.0).await;
    succeeded(&cloud.wait(&execution).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_input_may_change_parallelism_and_rows_for_its_run_but_not_which_rows_are_applied() {
    let (database, cloud) = two_jobs().await;
    succeeded(&cloud.run(&json!({"job": "increments", "parallelism": 3, "rows": 100})).await);
    let run = "SELECT concat(spec->>'parallelism', ' ', spec->'chunks'->>'rows') FROM stagemill.run";
    assert_eq!(database.value(run).await, "3 100");
    for (input, said) in [
        (json!({"job": "increments", "where": "true"}), "can't change a job's `where`"),
        (json!({"job": "increments", "rows": 0}), "rows"),
    ] {
        let refused = cloud.run(&input).await;
        assert_eq!(refused.error.as_deref(), Some("Stagemill.BadJob"), "{refused:?}");
        assert!(refused.cause.as_ref().unwrap().contains(said), "{refused:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deadline_at_risk_is_a_metric_while_the_run_goes_and_a_missed_one_at_its_end() {
    let (database, cloud) = cloud_of(TABLES, r#", "parallelism": 1, "deadline_minutes": 60"#, |setup| {
        setup.variable("STACK_NAME", "warehouse")
    })
    .await;
    slow(&database, 0.7).await;
    let execution = cloud.start_execution(&json!({"job": "increments"})).await;
    is_under_way(&database, "increments").await;
    database.execute("UPDATE stagemill.run SET deadline_at = now() - interval '1 second'").await;
    let of_stack = |function, name: &str| {
        super::metrics(&cloud.logs(function)).into_iter().find(|line| line["job"].is_null() && line[name].is_number())
    };
    until("the warning", async || of_stack(FunctionName::Executor, "SlaAtRisk").is_some()).await;
    assert!(cloud.outcome(&execution).await.is_none(), "it is told before the end");
    slow(&database, 0.0).await;
    succeeded(&cloud.wait(&execution).await);
    let ended = of_stack(FunctionName::Recorder, "SlaMissed").unwrap();
    assert_eq!((&ended["SlaMissed"], &ended["stack"]), (&json!(1), &json!("warehouse")), "{ended}");
    assert_eq!(ended["_aws"]["CloudWatchMetrics"][0]["Dimensions"], json!([["stack"]]));
}
