//! Ways in which a run could lose a row, apply one twice, or say what is not so.

use std::time::{Duration, Instant};

use stagemill_engine::{
    failure::Class, job::Job, ledger::summary::Summary, outcome::Status, pg::{Server, Trust}, resume, skip,
};

use crate::database::{Database, job, shared};

fn spec(operation: &str, columns: &str, rest: &str) -> Job {
    job(&format!(
        r#"{{"name": "h", "stage": {{"table": "stage"}}, "target": {{"table": "target", "key": ["id"]}}, "operation": "{operation}",
            "columns": {columns}, "parallelism": 2{rest}}}"#
    ))
}

const PLAIN: &str = r#"{"id": "stage.id", "n": "stage.n"}"#;
const TABLES: &str = "
    CREATE TABLE target (id int PRIMARY KEY, n int CHECK (n <> 13));
    CREATE TABLE stage (id int PRIMARY KEY, n int); INSERT INTO stage SELECT g, 1 FROM generate_series(1, 200) g;";

async fn retry(database: &Database) -> Summary {
    let answer = resume::rejects(&database.connection, 1, "retry").await.unwrap();
    database.drive(answer).await
}

#[tokio::test]
async fn a_chunks_statement_timeout_says_nothing_about_the_counts_at_the_end() {
    let database = Database::with(TABLES).await;
    database.execute("CREATE FUNCTION slow(n int) RETURNS boolean LANGUAGE plpgsql COST 1 AS $$ BEGIN PERFORM pg_sleep(0.01); RETURN true; END $$").await;
    let mut spec = spec("upsert", PLAIN, r#", "verify": "count", "chunks": {"by": "sql", "query": "SELECT g, g + 49 FROM generate_series(1, 151, 50) g"}, "session": {"statement_timeout": "1500ms"}"#);
    spec.stage.filter = Some("slow(stage.n)".into());
    let summary = database.run(&spec).await;
    assert_eq!(summary.status, Status::Complete, "{:?}", summary.error);
}
