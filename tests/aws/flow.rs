//! Executions that go well.

use serde_json::json;

use super::{
    TABLES, cloud,
    cloud::{FunctionName, Status, most_in_flight},
    cloud_of, differences, metrics,
};

#[tokio::test(flavor = "multi_thread")]
async fn all_goes_well_and_the_target_equals_the_single_statements() {
    let (database, cloud) = cloud(TABLES, r#", "parallelism": 4"#).await;
    let outcome = cloud.run(&json!({"job": "increments"})).await;
    assert_eq!((outcome.status, outcome.error), (Status::Succeeded, None));
    assert_eq!(differences(&database).await, "0");
    let run = "SELECT status || ' ' || chunks || ' ' || staged || ' ' || inserted || ' ' || updated FROM stagemill.run";
    assert_eq!(database.value(run).await, "COMPLETE 20 400 200 200");

    let metrics = metrics(&cloud.logs(FunctionName::Recorder));
    assert_eq!(metrics.len(), 2, "one for the stack and one for its job: {metrics:?}");
    let metrics = metrics.iter().find(|line| line["job"] == "increments").unwrap();
    assert_eq!((&metrics["stack"], &metrics["level"]), (&json!("stagemill"), &json!("INFO")));
    assert_eq!(
        (&metrics["RowsInserted"], &metrics["RowsUpdated"], &metrics["ChunksProcessed"]),
        (&json!(200), &json!(200), &json!(20))
    );
    assert_eq!(metrics["_aws"]["CloudWatchMetrics"][0]["Namespace"], "stagemill");
    assert_eq!(metrics["_aws"]["CloudWatchMetrics"][0]["Dimensions"], json!([["stack", "job"]]));
}

#[tokio::test(flavor = "multi_thread")]
async fn as_many_executors_are_in_flight_as_the_job_allows() {
    for parallelism in [2, 5] {
        let (database, cloud) = cloud(TABLES, &format!(r#", "parallelism": {parallelism}"#)).await;
        database.execute("UPDATE pause SET seconds = 0.2").await;
        assert_eq!(cloud.run(&json!({"job": "increments"})).await.status, Status::Succeeded);
        assert_eq!(most_in_flight(&cloud.invocations().await, FunctionName::Executor), parallelism);
        assert_eq!(differences(&database).await, "0");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_executor_that_returns_with_chunks_left_is_called_again() {
    let change = |mut setup: super::Setup| {
        setup.executor.environment.insert("STOP_BEFORE_DEADLINE_SECONDS".into(), "59.2".into());
        setup
    };
    let (database, cloud) = cloud_of(TABLES, r#", "parallelism": 1"#, change).await;
    database.execute("UPDATE pause SET seconds = 0.3").await;
    assert_eq!(cloud.run(&json!({"job": "increments"})).await.status, Status::Succeeded);
    assert_eq!(differences(&database).await, "0");
    let answers: Vec<_> =
        cloud.invocations().await.into_iter().filter(|call| call.function == FunctionName::Executor).collect();
    let again = answers.iter().filter(|call| call.answer["remaining"].as_u64() > Some(0)).count();
    assert!(again > 0, "{} calls", answers.len());
    // By its own answer, and not by the round after this one.
    assert!(answers.iter().all(|call| !call.error), "{answers:?}");
    assert_eq!(database.value("SELECT max(round) FROM stagemill.round").await, "1");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stage_without_rows_succeeds_with_zero() {
    let (database, cloud) =
        cloud(&format!("{TABLES} TRUNCATE stage; TRUNCATE oracle; INSERT INTO oracle TABLE target;"), "").await;
    let outcome = cloud.run(&json!({"job": "increments"})).await;
    assert_eq!((outcome.status, differences(&database).await.as_str()), (Status::Succeeded, "0"));
    assert_eq!(
        database.value("SELECT status || ' ' || chunks || ' ' || staged FROM stagemill.run").await,
        "COMPLETE 0 0"
    );
    assert!(!cloud.invocations().await.iter().any(|call| call.function == FunctionName::Executor));
}

#[tokio::test(flavor = "multi_thread")]
async fn eight_thousand_chunks_pass_as_few_items() {
    let sql = "CREATE TABLE target (id int PRIMARY KEY, n int); CREATE TABLE oracle (LIKE target); CREATE TABLE stage (id int PRIMARY KEY, n text);
               INSERT INTO stage SELECT g, g FROM generate_series(1, 8000) g; INSERT INTO oracle SELECT id, n::int FROM stage; ANALYZE;";
    let (database, cloud) = cloud(sql, "").await;
    database
        .execute(r#"UPDATE stagemill.job SET spec = spec || '{"chunks": {"by": "key", "rows": 1}, "parallelism": 2}'"#)
        .await;
    assert_eq!(cloud.run(&json!({"job": "increments"})).await.status, Status::Succeeded);
    assert_eq!(differences(&database).await, "0");
    assert_eq!(database.value("SELECT chunks FROM stagemill.run").await, "8000");
    assert_eq!(database.value("SELECT jsonb_array_length(items) FROM stagemill.round").await, "16");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_trigger_delivered_twice_starts_one_run() {
    let (database, cloud) = cloud(TABLES, "").await;
    let input = json!({"job": "increments", "trigger": {"id": "event-1"}});
    assert_eq!(cloud.run(&input).await.status, Status::Succeeded);
    let second = cloud.start_execution(&input).await;
    assert_eq!(cloud.wait(&second).await.status, Status::Succeeded);
    assert!(cloud.states(&second).await.contains(&"Duplicate".to_owned()));
    assert_eq!(
        (differences(&database).await.as_str(), database.value("SELECT count(*) FROM stagemill.run").await.as_str()),
        ("0", "1")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_inline_job_runs_only_where_the_stack_allows_it() {
    let input = json!({"job": super::increments("").to_value()});
    let (database, refusing) = cloud(TABLES, "").await;
    let outcome = refusing.run(&input).await;
    assert_eq!((outcome.status, outcome.error.as_deref()), (Status::Failed, Some("Stagemill.BadJob")));
    assert!(outcome.cause.unwrap().contains("inline jobs are refused here"));
    assert_eq!(database.value("SELECT count(*) FROM stagemill.run").await, "0");
    let (database, allowing) = cloud_of(TABLES, "", |setup| setup.variable("ALLOW_INLINE_JOBS", "true")).await;
    assert_eq!((allowing.run(&input).await.status, differences(&database).await.as_str()), (Status::Succeeded, "0"));
}
