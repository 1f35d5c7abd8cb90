//! Chunks hold equal numbers of rows, in whatever order these lie in the stage's heap.

use stagemill_engine::{check, plan};

use crate::database::{Database, job};

/// More rows than are counted out along the index: boundaries come from a sample.
const TABLES: &str = "
    CREATE TABLE target (id bigint PRIMARY KEY, n int); CREATE UNLOGGED TABLE stage (id bigint, n int);
    INSERT INTO stage SELECT ORDERED, 1 FROM generate_series(1, 420000) g;
    CREATE UNIQUE INDEX ON stage (id); ANALYZE stage;";

/// The rows of each chunk, when the stage is cut into chunks of up to so many.
async fn sizes(database: &Database, rows: u32) -> Vec<i64> {
    let spec = job(&format!(
        r#"{{"name": "even", "stage": {{"table": "stage"}}, "target": {{"table": "target", "key": ["id"]}}, "operation": "upsert",
            "chunks": {{"by": "key", "rows": {rows}}}, "verify": "off"}}"#
    ));
    let (mapping, stage) = check::job(&database.connection, &spec).await.unwrap().into_runnable().unwrap();
    let mut sizes = Vec::new();
    for chunk in plan::cut(&database.connection, &mapping, &stage, &spec).await.unwrap().chunks {
        let sql = stagemill_engine::statement::count_rows(&mapping, &chunk.range);
        sizes.push(database.connection.query_one(&sql, &[]).await.unwrap().get(0));
    }
    sizes
}

#[tokio::test]
async fn chunks_of_a_large_stage_are_even_whether_its_rows_lie_in_the_order_of_the_key_or_in_none() {
    for order in ["g", "g::bigint * 7919 % 420001", "CASE WHEN g <= 210000 THEN g * 2 ELSE g * 2 - 420001 END"] {
        let database = Database::with(&TABLES.replace("ORDERED", order)).await;
        for rows in [500, 5_000] {
            let sizes = sizes(&database, rows).await;
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
