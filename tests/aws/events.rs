//! The sample events for `sam local invoke`, each sent to its function's real binary.

use serde_json::Value;

use super::{
    cloud::{FunctionName, repository},
    cloud_of,
};

fn event(name: &str) -> Value {
    let path = repository().join("events").join(name);
    serde_json::from_str(&std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display())))
        .unwrap()
}

/// The tables that the sample events' jobs speak of, with few rows.
fn tables() -> String {
    let template = concat!(
        "CREATE SCHEMA edw_ods; CREATE SCHEMA edw_ods_stg;",
        include_str!("../../crates/cli/src/command/demo/target.sql"),
        include_str!("../../crates/cli/src/command/demo/stage.sql"),
    );
    let accounts = "CREATE TABLE pgbench_accounts (aid int PRIMARY KEY, bid int, abalance int, filler char(84));
                    INSERT INTO pgbench_accounts SELECT g, 1, 0, '' FROM generate_series(1, 2000) g;";
    let values = [("{table}", "account"), ("{target_rows}", "3000"), ("{existing}", "1800"), ("{rows}", "2000")];
    let account = values.iter().fold(template.to_owned(), |text, (name, value)| text.replace(name, value));
    [&account, accounts, include_str!("../../jobs/pgbench_accounts.sql")].join("\n")
}

#[tokio::test(flavor = "multi_thread")]
async fn every_sample_event_is_understood_by_its_function() {
    let (database, cloud) = cloud_of(&tables(), "", |setup| setup.variable("ALLOW_INLINE_JOBS", "true")).await;
    let job = crate::database::job(include_str!("../../jobs/sm_account.json"));
    stagemill_engine::ledger::job::put(&database.connection, &job).await.unwrap();
    for (function, name, status) in [
        (FunctionName::Planner, "planner.json", "round"),
        (FunctionName::Executor, "executor.json", ""),
        (FunctionName::Recorder, "recorder.json", "complete"),
        (FunctionName::Planner, "planner-inline.json", "round"),
        (FunctionName::Recorder, "recorder-plan-failed.json", "failed"),
        (FunctionName::Recorder, "recorder-execution-ended.json", "failed"),
        (FunctionName::Recorder, "recorder-alarm.json", "complete"),
    ] {
        let answer = cloud.invoke(function, &event(name)).await.unwrap();
        assert_eq!(answer["status"].as_str().unwrap_or_default(), status, "{name}: {answer}");
    }
    assert_eq!(
        database
            .value(
                "SELECT string_agg(concat_ws(' ', job, status, chunks_failed), ', ' ORDER BY run_id) FROM stagemill.run"
            )
            .await,
        "sm_account COMPLETE 0, pgbench_accounts RUNNING"
    );
    database.execute("UPDATE stagemill.run SET status = 'FAILED' WHERE run_id = 1").await;
    let resumed = cloud.invoke(FunctionName::Planner, &event("planner-resume.json")).await.unwrap();
    assert_eq!((&resumed["run"], &resumed["round"]), (&1.into(), &2.into()), "{resumed}");
    // Its first job is open, and sm_billinfo would not follow it.
    let list = cloud.invoke(FunctionName::Planner, &event("planner-chain.json")).await.unwrap();
    assert_eq!((&list["status"], &list["turn"]["sequence"]), (&"wait".into(), &1.into()), "{list}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_of_another_shape_is_refused_by_name() {
    let (_database, cloud) = cloud_of("", "", |setup| setup).await;
    for function in FunctionName::ALL {
        let refused = cloud.invoke(function, &serde_json::json!({"unknown": 1})).await.unwrap_err();
        assert_eq!(refused.error_type, "Stagemill.BadJob");
        assert!(refused.error_message.contains("the event can't be used"), "{}", refused.error_message);
    }
}
