//! Credentials from Secrets Manager.

use scratch_postgres::ScratchPostgres;
use serde_json::json;
use stagemill_engine::{
    ledger,
    pg::{Connection, Server, Trust},
};

use super::{
    TABLES,
    cloud::{Cloud, FunctionName, Setup, Status, binaries},
    increments, until,
};

/// A server that asks for passwords, with everything that the job needs.
async fn guarded() -> (ScratchPostgres, Connection) {
    let server = ScratchPostgres::builder().password("first-secret").start().unwrap_or_else(|error| panic!("{error}"));
    let connection =
        Server::new(server.url("postgres").parse().unwrap(), &Trust::System).unwrap().connect("test").await.unwrap();
    ledger::schema::migrate(&connection).await.unwrap();
    connection.batch(TABLES).await.unwrap();
    ledger::job::put(&connection, &increments("")).await.unwrap();
    (server, connection)
}

async fn cloud_with_secret(server: &ScratchPostgres, password: &str) -> (Cloud, String) {
    let setup = Setup::new(binaries())
        .variable("DATABASE_HOST", "127.0.0.1")
        .variable("DATABASE_PORT", &server.port().to_string())
        .variable("DATABASE_NAME", "postgres");
    let cloud = Cloud::start(setup).await;
    // As RDS manages them: user and password only.
    let arn = cloud.create_secret("database", &json!({"username": server.user(), "password": password})).await;
    cloud.set_environment(&[("SECRET_ARN", &arn)]).await;
    (cloud, arn)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_that_is_rotated_between_two_calls_is_fetched_again() {
    let (server, connection) = guarded().await;
    let (cloud, arn) = cloud_with_secret(&server, "first-secret").await;
    let input = json!({"job": "increments"});
    assert_eq!(cloud.run(&input).await.status, Status::Succeeded);
    connection.batch(&format!("ALTER ROLE {} PASSWORD 'second-secret'", server.user())).await.unwrap();
    cloud.put_secret(&arn, &json!({"username": server.user(), "password": "second-secret"})).await;
    // Warm sandboxes keep a session that was opened with the old password; without it they need the new one.
    connection
        .batch("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'stagemill'")
        .await
        .unwrap();
    assert_eq!(cloud.run(&input).await.status, Status::Succeeded);
    for log in FunctionName::ALL.map(|function| cloud.logs(function)) {
        assert!(!log.contains("first-secret") && !log.contains("second-secret"), "a password was logged");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_that_has_not_changed_yet_is_a_rotation_and_is_retried() {
    let (server, _connection) = guarded().await;
    let (cloud, arn) = cloud_with_secret(&server, "not-yet").await;
    let execution = cloud.start_execution(&json!({"job": "increments"})).await;
    until("a refused password", async || {
        cloud.invocations().await.iter().any(|call| call.answer["errorType"] == "Stagemill.CredentialsRotating")
    })
    .await;
    cloud.put_secret(&arn, &json!({"username": server.user(), "password": "first-secret"})).await;
    assert_eq!(cloud.wait(&execution).await.status, Status::Succeeded);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_environment_that_cannot_be_used_is_an_answer_and_no_crash() {
    for (name, value) in [("DATABASE_CA_FILE", "/nope"), ("DATABASE_PORT", "many")] {
        let cloud = Cloud::start(Setup::new(binaries()).variable("SECRET_ARN", "any").variable(name, value)).await;
        let refused = cloud
            .invoke(FunctionName::Planner, &json!({"start": "x", "input": {"job": "increments"}}))
            .await
            .unwrap_err();
        assert_eq!(refused.error_type, "Stagemill.Configuration");
        assert!(refused.error_message.contains(name), "{}", refused.error_message);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_that_is_not_there_is_named() {
    let (server, _connection) = guarded().await;
    let (cloud, _) = cloud_with_secret(&server, "any").await;
    cloud.set_environment(&[("SECRET_ARN", "arn:aws:secretsmanager:eu-central-1:123456789012:secret:nope")]).await;
    let refused =
        cloud.invoke(FunctionName::Planner, &json!({"start": "x", "input": {"job": "increments"}})).await.unwrap_err();
    assert_eq!(refused.error_type, "Stagemill.Configuration");
    assert!(
        refused.error_message.contains("secret:nope") && refused.error_message.contains("ResourceNotFoundException"),
        "{}",
        refused.error_message
    );
}
