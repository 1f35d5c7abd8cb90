//! Executions of jobs that set rows aside, are split, delete, take what is new, or run statements of their own.

use serde_json::json;
use stagemill_engine::{job::Job, ledger};

use super::{
    cloud::{Cloud, FunctionName, Outcome, Status},
    cloud_for, metrics,
};
use crate::database::{Database, job};

/// The log table's row of a run.
async fn logged(database: &Database, run: i64) -> String {
    let sql = format!("SELECT concat_ws(' ', status, error_class, staged) FROM stagemill.run WHERE run_id = {run}");
    database.value(&sql).await
}

fn failed<'a>(outcome: &'a Outcome, error: &str) -> &'a str {
    assert_eq!((outcome.status, outcome.error.as_deref()), (Status::Failed, Some(error)), "{outcome:?}");
    outcome.cause.as_deref().unwrap_or_default()
}

/// Everything that the functions wrote.
fn all_logs(cloud: &Cloud) -> String {
    FunctionName::ALL.map(|function| cloud.logs(function)).concat()
}

/// The sums of a job's metrics; what is 0 is left out of their lines.
fn ended<const N: usize>(cloud: &Cloud, job: &str, names: [&str; N]) -> [i64; N] {
    let written = metrics(&cloud.logs(FunctionName::Recorder));
    let of_job = || written.iter().filter(|line| line["job"] == job);
    names.map(|name| of_job().map(|line| line[name].as_i64().unwrap_or(0)).sum())
}

fn quarantine(name: &str, most: u32) -> Job {
    job(&format!(
        r#"{{"name": "{name}", "stage": {{"table": "stage"}}, "target": {{"table": "target", "key": ["id"]}}, "operation": "upsert",
            "columns": {{"id": "stage.id", "n": "stage.n::int"}}, "on_bad_row": "quarantine", "max_rejects": {most},
            "chunks": {{"rows": 50}}, "parallelism": 2}}"#
    ))
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_are_set_aside_end_well_up_to_the_limit_and_beyond_it_fail_and_nothing_tells_their_values() {
    let sql = "CREATE TABLE target (id int PRIMARY KEY, n int NOT NULL); CREATE TABLE stage (id int PRIMARY KEY, n text);
               INSERT INTO stage SELECT g, g FROM generate_series(1, 200) g;
               UPDATE stage SET n = 'planted-4711' WHERE id IN (7, 8, 180); UPDATE stage SET n = NULL WHERE id = 90; ANALYZE";
    let (database, cloud) = cloud_for(sql, &quarantine("four", 4), |setup| setup).await;
    let first = cloud.start_execution(&json!({"job": "four"})).await;
    let outcome = cloud.wait(&first).await;
    assert_eq!((outcome.status, &outcome.error), (Status::Succeeded, &None), "{outcome:?}");
    assert_eq!(logged(&database, 1).await, "COMPLETE_WITH_REJECTS 200");
    assert_eq!(database.value("SELECT count(*) FROM target WHERE n = id").await, "196");
    assert_eq!(
        ended(
            &cloud,
            "four",
            ["RunsEnded", "RunsFailed", "RowsStaged", "RowsInserted", "RowsRejected", "ChunksFailed"]
        ),
        [1, 0, 200, 196, 4, 0]
    );

    let resumed = cloud.run(&json!({"resume": 1})).await;
    let cause = failed(&resumed, "Stagemill.BadJob");
    assert!(
        cause.contains("run 1 is complete but for rows that were set aside: `stagemill rejects 1 --retry`"),
        "{cause}"
    );

    ledger::job::put(&database.connection, &quarantine("three", 3)).await.unwrap();
    database.execute("TRUNCATE target").await;
    let second = cloud.start_execution(&json!({"job": "three"})).await;
    let limited = cloud.wait(&second).await;
    let cause = failed(&limited, "Stagemill.LimitExceeded");
    assert!(cause.contains("more than max_rejects (3) rows would have to be set aside"), "{cause}");
    assert!(logged(&database, 2).await.starts_with("FAILED LimitExceeded"));
    assert_eq!(ended(&cloud, "three", ["RunsEnded", "RunsFailed"]), [1, 1]);

    let errors = database.value("SELECT string_agg(concat(r.error, c.error), ' ') FROM stagemill.run r JOIN stagemill.chunk c USING (run_id)").await;
    for said in [
        all_logs(&cloud),
        cloud.history(&first).await,
        cloud.history(&second).await,
        format!("{outcome:?} {limited:?}"),
        errors,
    ] {
        assert!(!said.contains("4711"), "a row's value was told: {said}");
    }
    assert_ne!(database.value("SELECT count(*) FROM stagemill.reject WHERE detail LIKE '%4711%'").await, "0");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chunk_that_no_call_can_finish_whole_is_split_and_finished_in_parts() {
    // One chunk of 2.6 s, and calls of 1.5 s.
    let sql = "CREATE TABLE target (id int PRIMARY KEY, n int NOT NULL); INSERT INTO target SELECT g, 0 FROM generate_series(1, 64) g;
               CREATE TABLE stage (id int PRIMARY KEY, n int); INSERT INTO stage SELECT g, g FROM generate_series(1, 64) g;
               CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(0.04); RETURN NEW; END $$;
               CREATE TRIGGER slow BEFORE UPDATE ON target FOR EACH ROW EXECUTE FUNCTION slow(); ANALYZE";
    let slow = job(
        r#"{"name": "slow", "stage": {"table": "stage"}, "target": {"table": "target", "key": ["id"]}, "operation": "update",
            "columns": {"id": "stage.id", "n": "target.n + stage.n"}, "chunks": {"rows": 64}, "parallelism": 1, "retry": {"attempts": 2, "rounds": 1}}"#,
    );
    let (database, cloud) = cloud_for(sql, &slow, |mut setup| {
        setup.executor.environment.insert("STOP_BEFORE_DEADLINE_SECONDS".into(), "58.5".into());
        setup
    })
    .await;
    let outcome = cloud.run(&json!({"job": "slow"})).await;
    assert_eq!(outcome.status, Status::Succeeded, "{outcome:?}\n{}", cloud.logs(FunctionName::Executor));
    assert_eq!(database.value("SELECT count(*) FROM target WHERE n <> id").await, "0");
    assert_eq!(logged(&database, 1).await, "COMPLETE 64");
    assert_ne!(database.value("SELECT count(*) FROM stagemill.chunk WHERE state = 'SPLIT'").await, "0");
    let calls: Vec<_> =
        cloud.invocations().await.into_iter().filter(|call| call.function == FunctionName::Executor).collect();
    assert!(calls.len() > 1 && calls.iter().all(|call| !call.error), "{calls:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stage_that_changes_under_an_execution_fails_it_with_how_much_came() {
    let sql = "CREATE TABLE target (id int PRIMARY KEY, n int); CREATE TABLE stage (id int PRIMARY KEY, n text);
               INSERT INTO stage SELECT g, g FROM generate_series(1, 100) g;
               CREATE FUNCTION load() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO stage SELECT g, g FROM generate_series(201, 203) g; RETURN NULL; END $$;
               CREATE TRIGGER load AFTER INSERT ON target FOR EACH ROW WHEN (NEW.id = 100) EXECUTE FUNCTION load(); ANALYZE";
    let (database, cloud) = cloud_for(sql, &super::increments(r#", "verify": "count""#), |setup| setup).await;
    let outcome = cloud.run(&json!({"job": "increments"})).await;
    let cause = failed(&outcome, "Stagemill.SourceChanged");
    for magnitude in ["3 rows came or were changed", "it holds 3 more rows than were taken", "start the job anew"] {
        assert!(cause.contains(magnitude), "{cause}");
    }
    assert_eq!(logged(&database, 1).await, "SOURCE_CHANGED SourceChanged 100");
    assert_eq!(ended(&cloud, "increments", ["RunsEnded", "RunsFailed"]), [1, 1]);
}

fn changes(rest: &str) -> Job {
    job(&format!(
        r#"{{"name": "changes", "stage": {{"table": "stage"}}, "target": {{"table": "target", "key": ["id"]}}, "operation": "changes",
            "columns": {{"id": "stage.id", "n": "stage.n"}}, "changes": {{"operation": "op", "order": "seq", "guard": "last_seq"}},
            "chunks": {{"rows": 20}}, "parallelism": 2{rest}}}"#
    ))
}

const CHANGES: &str = "
    CREATE TABLE target (id int PRIMARY KEY, n int, last_seq bigint); INSERT INTO target SELECT g, 0, 0 FROM generate_series(1, 100) g;
    CREATE TABLE stage (id int, n int, op text, seq bigint); CREATE INDEX ON stage (id);
    INSERT INTO stage SELECT g, g, CASE WHEN g <= 10 THEN 'D' ELSE 'U' END, g FROM generate_series(1, 120) g; ANALYZE;";

#[tokio::test(flavor = "multi_thread")]
async fn a_second_execution_takes_only_the_changes_that_are_newer_and_each_leaves_the_stage() {
    let spec = changes(r#", "stage_rows": "delete", "watermark": {"column": "seq"}"#);
    let (database, cloud) = cloud_for(CHANGES, &spec, |setup| setup).await;
    assert_eq!(cloud.run(&json!({"job": "changes"})).await.status, Status::Succeeded);
    assert_eq!(database.value("SELECT count(*) || ' ' || min(id) || ' ' || sum(n) FROM target").await, "110 11 7205");
    assert_eq!(database.value("SELECT count(*) FROM stage").await, "0");

    // Two that are newer, and one of the window that was done with.
    database.execute("INSERT INTO stage VALUES (11, 1000, 'U', 121), (12, NULL, 'D', 122), (13, 9, 'U', 60)").await;
    assert_eq!(cloud.run(&json!({"job": "changes"})).await.status, Status::Succeeded);
    assert_eq!(logged(&database, 2).await, "COMPLETE 2");
    assert_eq!(
        database.value("SELECT window_low || ' ' || window_high FROM stagemill.run WHERE run_id = 2").await,
        "120 122"
    );
    assert_eq!(database.value("SELECT string_agg(seq::text, ' ') FROM stage").await, "60");
    assert_eq!(
        database.value("SELECT string_agg(id || '=' || n, ' ' ORDER BY id) FROM target WHERE id < 14").await,
        "11=1000 13=13"
    );
    assert_eq!(ended(&cloud, "changes", ["RunsEnded", "RunsFailed", "RowsDeleted"]), [2, 0, 11]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_execution_that_would_delete_too_much_fails_before_it_deletes_anything() {
    let (database, cloud) = cloud_for(CHANGES, &changes(r#", "max_deletes": "5%""#), |setup| setup).await;
    let outcome = cloud.run(&json!({"job": "changes"})).await;
    let cause = failed(&outcome, "Stagemill.LimitExceeded");
    assert!(cause.contains("could delete 10 rows, max_deletes allows 6 (5% of 120 staged rows)"), "{cause}");
    assert_eq!(logged(&database, 1).await, "FAILED LimitExceeded 0");
    assert_eq!(database.value("SELECT count(*) FROM target WHERE n = 0").await, "100");
    let calls = cloud.invocations().await;
    assert!(!calls.iter().any(|call| call.function == FunctionName::Executor), "{calls:?}");
    assert_eq!(calls.iter().filter(|call| call.function == FunctionName::Planner).count(), 1, "it is not tried again");
}

#[tokio::test(flavor = "multi_thread")]
async fn statements_of_the_jobs_own_are_applied_once_and_their_rows_are_recorded() {
    let own = job(
        r#"{"name": "own", "stage": {"table": "stage"}, "target": {"table": "target"}, "operation": "sql", "chunks": {"column": "id", "rows": 50}, "parallelism": 2,
            "sql": ["UPDATE target AS t SET n = t.n + stage.n FROM stage AS stage WHERE t.id = stage.id AND {chunk}",
                    "INSERT INTO target SELECT id, n FROM stage AS stage WHERE {chunk} AND NOT EXISTS (SELECT FROM target t WHERE t.id = stage.id)"]}"#,
    );
    let sql = "CREATE TABLE target (id int PRIMARY KEY, n int); INSERT INTO target SELECT g, 0 FROM generate_series(1, 100) g;
               CREATE TABLE stage (id int PRIMARY KEY, n int); INSERT INTO stage SELECT g, g FROM generate_series(51, 300) g; ANALYZE";
    let (database, cloud) = cloud_for(sql, &own, |setup| setup).await;
    cloud.play(FunctionName::Executor, super::cloud::Fault::LoseAnswer, 1).await;
    assert_eq!(cloud.run(&json!({"job": "own"})).await.status, Status::Succeeded);
    assert_eq!(database.value("SELECT count(*) FROM target WHERE n = id AND id > 50").await, "250");
    assert_eq!(logged(&database, 1).await, "COMPLETE 250");
    assert_eq!(database.value("SELECT statement_rows::text FROM stagemill.run_status").await, "{50,200}");
}

/// Waits until a query answers `true`.
async fn until(database: &Database, condition: &str) {
    for _ in 0..1_500 {
        if database.value(&format!("SELECT {condition}")).await == "true" {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    panic!("{condition} never held");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_execution_starts_nothing_and_goes_on_when_it_is_unpaused() {
    let sql = "CREATE TABLE target (id int PRIMARY KEY, n int); CREATE TABLE stage (id int PRIMARY KEY, n int);
               INSERT INTO target SELECT g, 0 FROM generate_series(1, 200) g; INSERT INTO stage SELECT g, g FROM generate_series(1, 200) g;
               CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(0.01); RETURN NEW; END $$;
               CREATE TRIGGER slow BEFORE UPDATE ON target FOR EACH ROW EXECUTE FUNCTION slow(); ANALYZE";
    let job = job(
        r#"{"name": "paused", "stage": {"table": "stage"}, "target": {"table": "target", "key": ["id"]}, "operation": "update",
        "columns": {"id": "stage.id", "n": "target.n + stage.n"}, "chunks": {"by": "key", "rows": 10}, "parallelism": 3}"#,
    );
    let (database, cloud) = cloud_for(sql, &job, |setup| setup).await;
    let execution = cloud.start_execution(&json!({"job": "paused"})).await;
    until(&database, "(SELECT count(*) FROM stagemill.chunk WHERE state = 'PROCESSED') >= 3").await;
    assert!(ledger::hold::set(&database.connection, 1, ledger::hold::PEOPLE, "paused by a test", None).await.unwrap());
    until(&database, "NOT EXISTS (SELECT FROM stagemill.chunk WHERE state = 'ASSIGNED')").await;
    let applied = "SELECT count(*) FROM stagemill.chunk WHERE state = 'PROCESSED'";
    let before = database.value(applied).await;
    // Longer than an executor waits: each has come back at least once.
    tokio::time::sleep(std::time::Duration::from_secs(12)).await;
    assert_eq!(database.value(applied).await, before);
    // One at a time from here on: the Map would call three.
    assert_eq!(ledger::pace::fix(&database.connection, 1, 1, "a test").await.unwrap(), Some(3));
    assert!(ledger::hold::lift(&database.connection, 1, ledger::hold::PEOPLE).await.unwrap());
    let mut most = 0;
    let watched = async {
        loop {
            let in_flight = "SELECT count(*) FROM pg_stat_activity WHERE application_name ~ '^stagemill:1:[0-9]+:[0-9]+$' AND datname = current_database()";
            most = most.max(database.value(in_flight).await.parse::<u32>().unwrap());
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    let outcome = tokio::select! {
        outcome = cloud.wait(&execution) => outcome,
        () = watched => unreachable!("it watches for ever"),
    };
    assert_eq!((outcome.status, &outcome.error), (Status::Succeeded, &None), "{outcome:?}");
    assert!((1..=2).contains(&most), "{most} at a time: two may look in one moment");
    assert_eq!(database.value("SELECT count(*) FROM target WHERE n <> id").await, "0");
    assert_eq!(logged(&database, 1).await, "COMPLETE 200");
}
