//! What is wrong with a job is said at once, all of it, with what to do.

use stagemill_engine::{check, finding::Finding, job::Job};

use crate::database::{Database, job};

fn at(findings: &[Finding]) -> Vec<&str> {
    findings.iter().map(|finding| finding.at.as_str()).collect()
}

#[test]
fn everything_wrong_with_a_jobs_text_is_found_at_once() {
    let text = r#"{"name": "a b", "stage": {"table": "x y", "wher": "true"}, "target": {"table": "t", "key": "id"}, "operation": "merge",
                   "chunks": {"rows": "many"}, "parallelism": -1, "colums": {}, "session": {"fsync": "off"}}"#;
    let findings = Job::parse(text).unwrap_err();
    assert_eq!(
        at(&findings),
        ["stage.wher", "target.key", "operation", "chunks.rows", "parallelism", "colums", "name", "session.fsync"]
    );
    let text = r#"{"name": "a b", "stage": {"table": "x y"}, "target": {"table": "t", "key": []}, "operation": "upsert", "chunks": {"rows": 0},
                   "parallelism": 1001, "session": {"fsync": "off"}, "columns": {"a": {}, "b": " "}, "retry": {"attempts": 0}}"#;
    let findings = Job::parse(text).unwrap_err();
    let expected = [
        "name",
        "stage.table",
        "target.key",
        "chunks.rows",
        "parallelism",
        "retry.attempts",
        "columns.a",
        "columns.b",
        "session.fsync",
    ];
    assert_eq!(at(&findings), expected);
}

#[test]
fn a_text_that_is_not_a_job_says_so() {
    for (text, part) in [("{", "is not JSON"), ("[]", "is not a JSON object"), ("{}", "is missing")] {
        let findings = Job::parse(text).unwrap_err();
        assert!(findings[0].fault.contains(part), "{findings:?}");
    }
}

#[test]
fn a_job_reads_back_from_its_own_json() {
    let text = r#"{"name": "j", "stage": {"table": "s", "where": "stage.a > 0"}, "target": {"table": "t", "key": ["id"]}, "operation": "upsert",
                   "columns": {"id": "stage.id", "n": {"insert": "1"}}, "session": {"work_mem": "64MB"}}"#;
    assert_eq!(Job::from_value(job(text).to_value()).unwrap(), job(text));
}

const TABLES: &str = "
    CREATE TABLE target (id bigint, n int, g int GENERATED ALWAYS AS (n) STORED); CREATE INDEX ON target (id);
    CREATE TABLE stage (id numeric, n text);";

async fn findings(database: &Database, text: &str) -> Vec<Finding> {
    check::job(&database.connection, &job(text)).await.unwrap().findings
}

#[tokio::test]
async fn everything_wrong_with_a_job_in_its_database_is_found_at_once() {
    let database = Database::with(TABLES).await;
    let found = findings(
        &database,
        r#"{"name": "j", "stage": {"table": "stage", "where": "stage.nope > 0"}, "target": {"table": "target", "key": ["id"]}, "operation": "upsert",
            "columns": {"id": "stage.id", "n": "count(stage.n)", "g": "1", "zzz": "1"}}"#,
    )
    .await;
    assert_eq!(
        at(&found),
        ["columns.g", "columns.zzz", "target.key", "stage.where", "columns.n", "columns.id", "stage.table"]
    );
    let text = stagemill_engine::finding::join(&found);
    for part in [
        "CREATE UNIQUE INDEX CONCURRENTLY",
        "column stage.nope does not exist",
        "aggregate functions are not allowed",
        "CAST(stage.id AS bigint)",
    ] {
        assert!(text.contains(part), "{part} is not in: {text}");
    }
}

#[tokio::test]
async fn missing_tables_and_a_view_as_target() {
    let database = Database::with("CREATE VIEW v AS SELECT 1 AS id; CREATE TABLE s (id int);").await;
    let found = findings(&database, r#"{"name": "j", "stage": {"table": "nope.s"}, "target": {"table": "S", "key": ["id"]}, "operation": "insert"}"#).await;
    assert_eq!(at(&found), ["stage.table"]);
    let found = findings(
        &database,
        r#"{"name": "j", "stage": {"table": "s"}, "target": {"table": "v", "key": ["id"]}, "operation": "insert"}"#,
    )
    .await;
    assert!(at(&found).contains(&"target.table"), "{found:?}");
}

#[tokio::test]
async fn an_index_that_cannot_tell_every_row_is_no_key() {
    let database = Database::with(
        "CREATE TABLE stage (id int);
         CREATE TABLE partial (id int); CREATE UNIQUE INDEX ON partial (id) WHERE id > 0;
         CREATE TABLE deferred (id int UNIQUE DEFERRABLE);
         CREATE TABLE expression (id int); CREATE UNIQUE INDEX ON expression (abs(id));",
    )
    .await;
    for target in ["partial", "deferred", "expression"] {
        let text = format!(
            r#"{{"name": "j", "stage": {{"table": "stage"}}, "target": {{"table": "{target}", "key": ["id"]}}, "operation": "insert"}}"#
        );
        assert!(at(&findings(&database, &text).await).contains(&"target.key"), "{target}");
    }
}

#[tokio::test]
async fn missing_privileges_come_with_their_grants() {
    let database = Database::with(
        "CREATE TABLE stage (id int PRIMARY KEY); CREATE TABLE target (id int PRIMARY KEY, n int);
         DO $$ BEGIN CREATE ROLE reader; EXCEPTION WHEN duplicate_object THEN END $$; SET ROLE reader;",
    )
    .await;
    let found = findings(&database, r#"{"name": "j", "stage": {"table": "stage"}, "target": {"table": "target", "key": ["id"]}, "operation": "insert"}"#).await;
    let remedies: Vec<&str> = found.iter().map(|finding| finding.remedy.as_str()).collect();
    assert!(
        remedies.contains(&r#"GRANT SELECT ON "public"."stage" TO "reader""#)
            && remedies.contains(&r#"GRANT INSERT ON "public"."target" TO "reader""#),
        "{remedies:?}"
    );
}

#[tokio::test]
async fn a_value_that_a_column_cannot_take_is_found_before_anything_starts() {
    let database = Database::with(
        "CREATE TABLE stage (id int PRIMARY KEY, n text); CREATE TABLE target (id int PRIMARY KEY, n int);",
    )
    .await;
    let found = findings(&database, r#"{"name": "j", "stage": {"table": "stage"}, "target": {"table": "target", "key": ["id"]}, "operation": "upsert"}"#).await;
    assert!(found[0].fault.contains("is of type integer but expression is of type text"), "{found:?}");
}
