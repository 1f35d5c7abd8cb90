//! Planner, executor and recorder called twice with the same input change nothing the second time.

use serde_json::{Value, json};

use super::{
    TABLES, cloud,
    cloud::{Fault, FunctionName, Status},
    differences,
};
use crate::database::Database;

/// Everything that stands in ledger and target.
async fn state(database: &Database) -> String {
    database
        .value(
            "SELECT concat((SELECT string_agg(t::text, ',' ORDER BY id) FROM target t), (SELECT string_agg(r::text, ',') FROM stagemill.run r),
                           (SELECT string_agg(c::text, ',' ORDER BY chunk_id) FROM stagemill.chunk c), (SELECT string_agg(r::text, ',' ORDER BY round) FROM stagemill.round r))",
        )
        .await
}

#[tokio::test(flavor = "multi_thread")]
async fn each_function_called_twice_changes_nothing_the_second_time() {
    let (database, cloud) = cloud(TABLES, r#", "parallelism": 1"#).await;
    let start = json!({"start": "arn:aws:states:eu-central-1:123456789012:execution:apply:one", "input": {"job": "increments"}});
    let twice = async |function, payload: &Value| {
        let first = cloud.invoke(function, payload).await.unwrap();
        let stood = state(&database).await;
        assert_eq!(cloud.invoke(function, payload).await.unwrap(), first, "{function:?}");
        assert_eq!(state(&database).await, stood, "{function:?}");
        first
    };
    let planned = twice(FunctionName::Planner, &start).await;
    for item in planned["items"].as_array().unwrap() {
        assert_eq!(twice(FunctionName::Executor, item).await["remaining"], 0);
    }
    let recorded = twice(
        FunctionName::Recorder,
        &json!({"start": start["start"], "run": planned["run"], "round": planned["round"]}),
    )
    .await;
    assert_eq!((&recorded["status"], differences(&database).await.as_str()), (&json!("complete"), "0"));
}

#[tokio::test(flavor = "multi_thread")]
async fn lost_answers_and_double_deliveries_apply_nothing_twice() {
    let (database, cloud) = cloud(TABLES, r#", "parallelism": 3"#).await;
    for function in FunctionName::ALL {
        cloud.play(function, Fault::LoseAnswer, 1).await;
    }
    cloud.play(FunctionName::Executor, Fault::DeliverTwice, 3).await;
    assert_eq!(cloud.run(&json!({"job": "increments"})).await.status, Status::Succeeded);
    assert_eq!(
        (differences(&database).await.as_str(), database.value("SELECT count(*) FROM stagemill.run").await.as_str()),
        ("0", "1")
    );
}
