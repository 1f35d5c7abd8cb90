//! Chunks that a person passes over, and the workers that know nothing of it.

use stagemill_engine::{
    failure::Class,
    ledger::{self, chunk::Claim},
    outcome::Status,
    resume, skip,
};

use crate::database::{Database, job};

const TABLES: &str = "
    CREATE TABLE target (id int PRIMARY KEY, n int NOT NULL DEFAULT 0); INSERT INTO target SELECT g FROM generate_series(1, 200) g;
    CREATE TABLE stage (id int, n int); INSERT INTO stage SELECT g, g FROM generate_series(1, 200) g; ANALYZE;";

fn increments(by: &str, filter: &str) -> stagemill_engine::job::Job {
    job(&format!(
        r#"{{"name": "increments", "stage": {{"table": "stage"{filter}}}, "target": {{"table": "target", "key": ["id"]}}, "operation": "update",
            "columns": {{"id": "stage.id", "n": "target.n + stage.n"}}, "chunks": {{"by": "{by}", "rows": 50}}, "parallelism": 2}}"#
    ))
}

#[tokio::test]
async fn a_worker_that_was_taken_for_dead_cannot_apply_a_skipped_chunk() {
    let database = Database::with(TABLES).await;
    database.planned(&increments("key", ""), "gone").await;
    let Claim::Ours(zombie) = ledger::chunk::claim(&database.connection, 1, (1, 1), "zombie", None).await.unwrap()
    else {
        panic!("the chunk is not free")
    };
    skip::chunks(&database.connection, 1, &[1]).await.unwrap();
    database.execute("BEGIN").await;
    assert!(!ledger::chunk::fence(&database.connection, "", &zombie).await.unwrap());
    database.execute("ROLLBACK").await;
    let answer = resume::run(&database.connection, 1, "me", false).await.unwrap();
    let summary = database.drive(answer).await;
    assert_eq!((summary.status, summary.tally.counts.skipped), (Status::Complete, 50));
    assert_eq!(database.value("SELECT count(*) FROM target WHERE n = id").await, "150");
}

#[tokio::test]
async fn a_chunk_of_a_run_that_is_worked_on_is_not_skipped() {
    let database = Database::with(TABLES).await;
    database.planned(&increments("key", ""), "arn:aws:states:r:1:execution:m:alive").await;
    let refused = skip::chunks(&database.connection, 1, &[1]).await.unwrap_err();
    assert_eq!(refused.class, Class::AlreadyRunning, "{refused}");
    assert_eq!(database.value("SELECT count(*) FROM stagemill.chunk WHERE state = 'PROCESSED'").await, "0");
}

#[tokio::test]
async fn only_the_jobs_own_rows_of_a_block_range_are_counted() {
    let database = Database::with(TABLES).await;
    database.planned(&increments("ctid", r#", "where": "stage.id <= 30""#), "gone").await;
    let skipped = skip::chunks(&database.connection, 1, &[1]).await.unwrap();
    assert_eq!(skipped, [skip::Skipped { chunk: 1, rows: 30 }]);
    database.execute("VACUUM FULL stage").await;
    assert_eq!(skip::chunks(&database.connection, 1, &[1]).await.unwrap_err().class, Class::SourceChanged);
}
