//! Chunks hold equal numbers of rows, in whatever order these lie in the stage's heap.

use stagemill_engine::{check, plan};

use crate::database::{Database, job};

/// More rows than are counted out along the index: boundaries come from a sample.
const TABLES: &str = "
    CREATE TABLE target (id bigint PRIMARY KEY, n int); CREATE UNLOGGED TABLE stage (id bigint, n int);
    INSERT INTO stage SELECT ORDERED, 1 FROM generate_series(1, 2100000) g;
    CREATE UNIQUE INDEX ON stage (id); ANALYZE stage;";

#[tokio::test]
async fn chunks_of_a_large_stage_are_even_whether_its_rows_lie_in_the_order_of_the_key_or_in_none() {
    for order in ["g", "g::bigint * 7919 % 2100001", "CASE WHEN g <= 1050000 THEN g * 2 ELSE g * 2 - 2100001 END"] {
        let database = Database::with(&TABLES.replace("ORDERED", order)).await;
        let spec = job(
            r#"{"name": "even", "stage": {"table": "stage"}, "target": {"table": "target", "key": ["id"]}, "operation": "upsert",
            "chunks": {"by": "key", "rows": 5000}, "verify": "off"}"#,
        );
        let (mapping, stage) = check::job(&database.connection, &spec).await.unwrap().into_runnable().unwrap();
        let chunks = plan::cut(&database.connection, &mapping, &stage, &spec).await.unwrap().chunks;
        let mut sizes = Vec::new();
        for chunk in &chunks {
            let sql = stagemill_engine::statement::count_rows(&mapping, &chunk.range);
            sizes.push(database.connection.query_one(&sql, &[]).await.unwrap().get::<_, i64>(0));
        }
        let (most, mean) = (*sizes.iter().max().unwrap() as f64, sizes.iter().sum::<i64>() as f64 / sizes.len() as f64);
        assert_eq!(sizes.iter().sum::<i64>(), 2_100_000, "{order}");
        assert!((350..550).contains(&chunks.len()), "{order}: {} chunks", chunks.len());
        assert!(
            most <= 1.6 * mean,
            "{order}: the largest of {} chunks has {most} rows, the mean is {mean}",
            chunks.len()
        );
    }
}
