//! Chunks hold equal numbers of rows, in whatever order these lie in the stage's heap.

use stagemill_engine::{
    check,
    pg::{Connection, Server, Trust},
    plan,
};

use crate::database::{Database, job};

/// More rows than are counted out along the index: boundaries come from a sample.
const TABLES: &str = "
    CREATE TABLE target (id bigint PRIMARY KEY, n int); CREATE UNLOGGED TABLE stage (id bigint, n int);
    INSERT INTO stage SELECT ORDERED, 1 FROM generate_series(1, 420000) g;
    CREATE UNIQUE INDEX ON stage (id); ANALYZE stage;";

/// The rows of each chunk, when the stage is cut into chunks of up to so many.
async fn sizes(connection: &Connection, rows: u32, parallelism: &str) -> Vec<i64> {
    let spec = job(&format!(
        r#"{{"name": "even", "stage": {{"table": "stage"}}, "target": {{"table": "target", "key": ["id"]}}, "operation": "upsert",
            "chunks": {{"by": "key", "rows": {rows}}}, "parallelism": {parallelism}, "verify": "off"}}"#
    ));
    let (mapping, stage) = check::job(connection, &spec).await.unwrap().into_runnable().unwrap();
    let mut sizes = Vec::new();
    for chunk in plan::cut(connection, &mapping, &stage, &spec).await.unwrap().chunks {
        let sql = stagemill_engine::statement::count_rows(&mapping, &chunk.range);
        sizes.push(connection.query_one(&sql, &[]).await.unwrap().get(0));
    }
    sizes
}

#[tokio::test]
async fn chunks_of_a_large_stage_are_even_whether_its_rows_lie_in_the_order_of_the_key_or_in_none() {
    for order in ["g", "g::bigint * 7919 % 420001", "CASE WHEN g <= 210000 THEN g * 2 ELSE g * 2 - 420001 END"] {
        let database = Database::with(&TABLES.replace("ORDERED", order)).await;
        for rows in [500, 5_000] {
            let sizes = sizes(&database.connection, rows, "4").await;
            let (most, all, chunks) = (*sizes.iter().max().unwrap(), sizes.iter().sum::<i64>(), sizes.len());
            let mean = all as f64 / chunks as f64;
            assert_eq!(all, 420_000, "{order}");
            assert!((0.8..1.3).contains(&(mean / f64::from(rows))), "{order}, {rows} rows: {chunks} chunks");
            assert!(
                most as f64 <= 1.6 * mean,
                "{order}, {rows} rows: the largest of {chunks} chunks has {most} rows, the mean is {mean}"
            );
        }
    }
}

#[tokio::test]
async fn a_run_that_finds_the_number_itself_has_chunks_for_many_sessions_where_the_target_does_not_fit_the_cache() {
    // So few pages that all of them are counted.
    let stage = "CREATE TABLE stage (id int PRIMARY KEY, n int); INSERT INTO stage SELECT g, 1 FROM generate_series(1, 40000) g;";
    let fill = "INSERT INTO target SELECT g, 1 FROM generate_series(1, 40000) g;";
    for (at, target) in [
        ("plain", "CREATE TABLE target (id bigint PRIMARY KEY, n int);"),
        (
            "partitioned",
            "CREATE TABLE target (id bigint PRIMARY KEY, n int) PARTITION BY RANGE (id);
             CREATE TABLE low PARTITION OF target FOR VALUES FROM (0) TO (20000);
             CREATE TABLE high PARTITION OF target FOR VALUES FROM (20000) TO (50000);",
        ),
    ] {
        let tables = format!("{stage}{target}{fill}");
        let fits = Database::with(&tables).await;
        let few = sizes(&fits.connection, 5_000, "\"auto\"").await;
        assert!(few.len() <= 66, "{at}: {few:?}");
        let small = scratch_postgres::ScratchPostgres::builder().setting("shared_buffers", "1MB").start().unwrap();
        let connection =
            Server::new(small.url("postgres").parse().unwrap(), &Trust::System).unwrap().connect("test").await.unwrap();
        connection.batch(&tables).await.unwrap();
        let many = sizes(&connection, 5_000, "\"auto\"").await;
        assert!(many.len() >= 75, "{at}: {many:?}");
    }
}

#[tokio::test]
async fn chunks_of_a_stage_that_is_mostly_dead_space_are_even_too() {
    let database = Database::with(
        "CREATE TABLE target (id bigint PRIMARY KEY, n int); CREATE UNLOGGED TABLE stage (id bigint PRIMARY KEY, n int) WITH (autovacuum_enabled = off);
         INSERT INTO stage SELECT g, 1 FROM generate_series(1, 1500000) g; DELETE FROM stage WHERE id / 1000 % 5 <> 0; ANALYZE stage;",
    )
    .await;
    let sizes = sizes(&database.connection, 5_000, "4").await;
    let (most, mean) = (*sizes.iter().max().unwrap() as f64, 300_000.0 / sizes.len() as f64);
    assert!((0.7..1.4).contains(&(mean / 5_000.0)), "{} chunks", sizes.len());
    assert!(most <= 2.0 * mean, "the largest of {} chunks has {most} rows, the mean is {mean}", sizes.len());
}
