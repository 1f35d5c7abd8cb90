//! The real state machine and the functions' real binaries, on a local AWS.

pub mod cloud;

mod contract;
mod credentials;
mod events;
mod failures;
mod flow;
mod operations;
mod repeats;
mod resume;
#[cfg(feature = "aws")]
mod terminal;
mod triggers;

use stagemill_engine::{job::Job, ledger};

use crate::database::{Database, job};
use cloud::{Cloud, Setup, binaries};

/// 400 staged rows on 300 target rows, and what the single statement makes of them.
pub const TABLES: &str = "
    CREATE TABLE target (id int PRIMARY KEY, n int NOT NULL);
    INSERT INTO target SELECT g, 0 FROM generate_series(1, 300) g;
    CREATE TABLE stage (id int PRIMARY KEY, n text);
    INSERT INTO stage SELECT g, g FROM generate_series(101, 500) g;
    CREATE TABLE oracle (LIKE target INCLUDING ALL); INSERT INTO oracle TABLE target;
    INSERT INTO oracle SELECT id, n::int FROM stage ON CONFLICT (id) DO UPDATE SET n = oracle.n + excluded.n;
    CREATE TABLE pause (seconds float8); INSERT INTO pause VALUES (0);
    CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep((SELECT seconds FROM pause)); RETURN NULL; END $$;
    CREATE TRIGGER slow AFTER INSERT ON target FOR EACH STATEMENT EXECUTE FUNCTION slow();
    ANALYZE;";

/// Makes a target of increments: a row that is applied twice, or not at all, shows.
pub fn increments(rest: &str) -> Job {
    job(&format!(
        r#"{{"name": "increments", "stage": {{"table": "stage"}}, "target": {{"table": "target", "key": ["id"]}}, "operation": "upsert",
            "columns": {{"id": "stage.id", "n": {{"insert": "stage.n::int", "update": "target.n + stage.n::int"}}}}, "chunks": {{"rows": 20}}{rest}}}"#
    ))
}

/// A database with the tables and the job `increments`, and a cloud whose functions work on it.
pub async fn cloud(sql: &str, rest: &str) -> (Database, Cloud) {
    cloud_of(sql, rest, |setup| setup).await
}

/// The same, with the functions set up otherwise.
pub async fn cloud_of(sql: &str, rest: &str, change: impl FnOnce(Setup) -> Setup) -> (Database, Cloud) {
    cloud_for(sql, &increments(rest), change).await
}

/// A database with what `sql` makes and a job, and a cloud whose functions work on it.
pub async fn cloud_for(sql: &str, job: &Job, change: impl FnOnce(Setup) -> Setup) -> (Database, Cloud) {
    let database = Database::with(sql).await;
    ledger::job::put(&database.connection, job).await.unwrap();
    let setup = Setup::new(binaries()).variable("DATABASE_URL", &database.url());
    let cloud = Cloud::start(change(setup)).await;
    (database, cloud)
}

/// Asks again until a question is answered with yes, within a bound.
pub async fn until(what: &str, question: impl AsyncFn() -> bool) {
    let bound = std::time::Duration::from_secs(60);
    let asked = async {
        while !question().await {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    };
    assert!(tokio::time::timeout(bound, asked).await.is_ok(), "{what} did not come within {bound:?}");
}

/// The lines of metrics in a function's log.
pub fn metrics(log: &str) -> Vec<serde_json::Value> {
    let lines = log.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    lines.filter(|line| line["_aws"].is_object()).collect()
}

/// Rows in which target and oracle differ.
pub async fn differences(database: &Database) -> String {
    database.value("SELECT count(*) FROM ((TABLE target EXCEPT ALL TABLE oracle) UNION ALL (TABLE oracle EXCEPT ALL TABLE target)) d").await
}
