//! `stagemill start`, `watch`, `stop` and `resume --on-aws` against the local cloud: the program with the feature `aws`.

use std::process::Output;

use serde_json::json;
use tokio::process::Command;

use super::{TABLES, cloud, cloud::Cloud, differences, until};
use crate::{database::Database, faults::program::program};

/// Calls the program where the cloud and the database are.
async fn stagemill(database: &Database, cloud: &Cloud, args: &[&str]) -> Output {
    command(database, cloud, args).output().await.unwrap()
}

fn command(database: &Database, cloud: &Cloud, args: &[&str]) -> Command {
    let mut command = Command::new(program());
    command.args(args).env_clear().env("DATABASE_URL", database.url());
    command.env("STAGEMILL_STATE_MACHINE", cloud.machine()).env("STAGEMILL_LOG_DIR", std::env::temp_dir());
    command.envs([
        ("AWS_ENDPOINT_URL", cloud.url().as_str()),
        ("AWS_ACCESS_KEY_ID", "test"),
        ("AWS_SECRET_ACCESS_KEY", "test"),
    ]);
    command.env("AWS_EC2_METADATA_DISABLED", "true").kill_on_drop(true);
    command
}

fn said(output: &Output) -> String {
    [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes).into_owned()).concat()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_that_waits_shows_the_run_and_ends_with_its_code() {
    let (database, cloud) = cloud(TABLES, r#", "parallelism": 2"#).await;
    let done = stagemill(&database, &cloud, &["start", "increments", "--rows", "100", "--wait"]).await;
    let text = said(&done);
    assert_eq!(done.status.code(), Some(0), "{text}");
    assert!(text.contains("COMPLETE") && text.contains("execution SUCCEEDED"), "{text}");
    assert_eq!(differences(&database).await, "0");
    assert_eq!(database.value("SELECT spec->'chunks'->>'rows' FROM stagemill.run").await, "100");

    let failed = stagemill(&database, &cloud, &["start", "nowhere", "--wait", "--json"]).await;
    assert_eq!(failed.status.code(), Some(1), "{}", said(&failed));
    let told: serde_json::Value = serde_json::from_slice(&failed.stdout).unwrap();
    assert_eq!((&told["status"], &told["error"]), (&json!("FAILED"), &json!("Stagemill.BadJob")), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_whose_work_is_left_to_another_execution_does_not_end_as_if_it_were_done() {
    let (database, cloud) = cloud(TABLES, r#", "parallelism": 2"#).await;
    database.execute("UPDATE pause SET seconds = 0.3").await;
    let first = cloud.start_execution(&json!({"job": "increments"})).await;
    until("a chunk that is applied", async || {
        database.value("SELECT count(*) FROM stagemill.chunk WHERE state = 'PROCESSED'").await != "0"
    })
    .await;
    let second = stagemill(&database, &cloud, &["start", "increments", "--wait"]).await;
    assert_eq!(second.status.code(), Some(5), "{}", said(&second));
    assert!(said(&second).contains("run 1 was open, and its execution makes one more after it"), "{}", said(&second));

    // Watching outlives the loss of its session on the ledger.
    let mut watch = command(&database, &cloud, &["watch", &first]);
    let watching = tokio::spawn(async move { watch.output().await.unwrap() });
    let watchers = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'stagemill' AND pid <> pg_backend_pid() AND state = 'idle'";
    // It asks every two seconds.
    for _ in 0..15 {
        database.value(watchers).await;
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    }
    database.execute("UPDATE pause SET seconds = 0").await;
    let watched = watching.await.unwrap();
    assert_eq!(watched.status.code(), Some(0), "{}", said(&watched));
    assert!(said(&watched).contains("the ledger can't be asked, and the execution goes on"), "{}", said(&watched));
    assert!(said(&watched).contains("execution SUCCEEDED"), "{}", said(&watched));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_execution_is_stopped_by_its_run_and_another_goes_on_with_it() {
    let (database, cloud) = cloud(TABLES, r#", "parallelism": 2"#).await;
    database.execute("UPDATE pause SET seconds = 0.3").await;
    let started = stagemill(&database, &cloud, &["start", "increments", "--json"]).await;
    let told: serde_json::Value = serde_json::from_slice(&started.stdout).unwrap();
    let execution = told["execution"].as_str().unwrap();
    until("a chunk that is applied", async || {
        database.value("SELECT count(*) FROM stagemill.chunk WHERE state = 'PROCESSED'").await != "0"
    })
    .await;
    let stopped = stagemill(&database, &cloud, &["stop", "1"]).await;
    assert_eq!(stopped.status.code(), Some(0), "{}", said(&stopped));
    assert!(said(&stopped).contains("STOPPED"), "{}", said(&stopped));
    let watched = stagemill(&database, &cloud, &["watch", execution]).await;
    assert_eq!(watched.status.code(), Some(1), "{}", said(&watched));
    assert!(said(&watched).contains("Stagemill.Stopped: stopped by"), "{}", said(&watched));

    database.execute("UPDATE pause SET seconds = 0").await;
    let resumed = stagemill(&database, &cloud, &["resume", "1", "--on-aws"]).await;
    assert_eq!(resumed.status.code(), Some(0), "{}", said(&resumed));
    assert_eq!(differences(&database).await, "0");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_on_the_way_to_aws_is_said_in_words() {
    let (database, cloud) = cloud("", "").await;
    let machine = cloud.machine().replace(":apply", ":nowhere");
    let execution = cloud.machine().replace(":stateMachine:", ":execution:") + ":gone";
    for (args, exit, fragments) in [
        (
            vec!["start", "increments", "--state-machine", &machine],
            2,
            vec!["there is no state machine", "StateMachineArn"],
        ),
        (vec!["start", "increments", "--state-machine", "apply"], 2, vec!["\"apply\" is not an ARN"]),
        (
            vec!["start", "increments", "--state-machine", ""],
            2,
            vec!["no state machine is named", "STAGEMILL_STATE_MACHINE"],
        ),
        (vec!["watch", &execution], 2, vec!["there is no execution"]),
    ] {
        let refused = stagemill(&database, &cloud, &args).await;
        assert_eq!(refused.status.code(), Some(exit), "{args:?}: {}", said(&refused));
        for fragment in fragments {
            assert!(said(&refused).contains(fragment), "{args:?}: {}", said(&refused));
        }
    }
    let mut nobody = command(&database, &cloud, &["start", "increments"]);
    let refused = nobody.env_remove("AWS_ACCESS_KEY_ID").output().await.unwrap();
    assert_eq!(refused.status.code(), Some(3), "{}", said(&refused));
    assert!(said(&refused).contains("no AWS credentials here: set AWS_PROFILE"), "{}", said(&refused));

    // The execution's state alone, where the ledger can't be reached.
    let execution = cloud.start_execution(&json!({"job": "nowhere"})).await;
    let mut far = command(&database, &cloud, &["watch", &execution]);
    let watched = far.env("DATABASE_URL", "postgres://u@127.0.0.1:1/d?connect_timeout=1").output().await.unwrap();
    assert_eq!(watched.status.code(), Some(1), "{}", said(&watched));
    assert!(
        said(&watched).contains("only the execution's state") && said(&watched).contains("Stagemill.BadJob"),
        "{}",
        said(&watched)
    );
}
