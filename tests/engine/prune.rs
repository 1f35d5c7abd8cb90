//! Deleting old runs: which go, which never do, in batches.

use std::time::Duration;

use stagemill_engine::ledger::prune::{Old, Pruned};

use crate::database::Database;

const DAY: Duration = Duration::from_secs(24 * 3600);

/// Adds runs to the ledger, the oldest first: `(job, status, days since it ended, chunks)`.
async fn runs(database: &Database, runs: &[(&str, &str, u32, u32)]) {
    for (job, status, days, chunks) in runs {
        let open = matches!(*status, "RUNNING" | "INTERRUPTED");
        let ended = if open { "NULL".to_owned() } else { format!("now() - interval '{days} days'") };
        database
            .execute(&format!(
                "WITH r AS (INSERT INTO stagemill.run (job, status, started_at, planned_at, ended_at, owner, spec, mapping, stage_table, target_table,
                                                       shares_tables, parallelism, round, round_limit, chunks, chunks_processed, staged, inserted, updated,
                                                       deleted, unchanged, skipped, rejected, handed)
                            SELECT '{job}', '{status}', now() - interval '{days} days 1 hour', now(), {ended}, gen_random_uuid(), '{{}}', '{{}}', 's', 't',
                                   true, 1, 1, 1, {chunks}, {chunks}, 0, 0, 0, 0, 0, 0, 0, 0 RETURNING run_id),
                      o AS (INSERT INTO stagemill.round (run_id, round, items) SELECT run_id, 1, '[]' FROM r)
                 INSERT INTO stagemill.chunk (run_id, chunk_id, root_id, kind, attempt_limit) SELECT run_id, n, n, 'keys', 1 FROM r, generate_series(1, {chunks}) n"
            ))
            .await;
    }
}

async fn left(database: &Database) -> String {
    database.value("SELECT string_agg(run_id::text, ' ' ORDER BY run_id) FROM stagemill.run").await
}

#[tokio::test]
async fn the_last_run_of_a_watermark_stays_though_the_job_went_another_way_since() {
    let database = Database::with("").await;
    runs(
        &database,
        &[("a", "COMPLETE", 400, 1), ("a", "COMPLETE", 300, 1), ("a", "COMPLETE", 200, 1), ("a", "COMPLETE", 100, 1)],
    )
    .await;
    database
        .execute(
            r#"UPDATE stagemill.run SET window_high = run_id::text, mapping = '{"window": {"column": {"column": "at"}}}' WHERE run_id < 3;
               UPDATE stagemill.run SET window_high = '9', stage_table = 'other', mapping = '{"window": {"column": {"column": "at"}}}' WHERE run_id = 3"#,
        )
        .await;
    let old = Old::than(&database.connection, DAY * 90, None).await.unwrap();
    assert_eq!(old.delete(&database.connection).await.unwrap().runs, 1);
    assert_eq!(left(&database).await, "2 3 4");
}

#[tokio::test]
async fn an_open_run_the_newest_run_and_the_last_complete_one_stay() {
    let database = Database::with("").await;
    runs(
        &database,
        &[
            ("a", "COMPLETE", 400, 3),   // 1: goes
            ("a", "COMPLETE", 300, 3),   // 2: the last complete one of a
            ("a", "ABANDONED", 200, 3),  // 3: goes
            ("a", "INCOMPLETE", 100, 3), // 4: can be resumed
            ("b", "FAILED", 300, 3),     // 5: goes, since
            ("b", "COMPLETE", 200, 3),   // 6: is the newest of b
            ("c", "INCOMPLETE", 200, 3), // 7: goes: a newer one is open
            ("c", "INTERRUPTED", 100, 3),
            ("d", "FAILED", 300, 3), // 9: goes
            ("d", "COMPLETE", 20, 3),
        ],
    )
    .await;
    let old = Old::than(&database.connection, DAY * 90, None).await.unwrap();
    let counted = old.count(&database.connection).await.unwrap();
    assert_eq!((counted.runs, counted.chunks), (5, 15));
    let kept: Vec<String> = old
        .kept(&database.connection)
        .await
        .unwrap()
        .iter()
        .map(|run| format!("{} {} {}", run.run, run.job, run.status.as_str()))
        .collect();
    assert_eq!(kept, ["2 a COMPLETE", "4 a INCOMPLETE", "6 b COMPLETE"]);
    let of_b = Old::than(&database.connection, DAY * 90, Some("b".to_owned())).await.unwrap();
    assert_eq!(of_b.delete(&database.connection).await.unwrap().runs, 1);
    assert_eq!(left(&database).await, "1 2 3 4 6 7 8 9 10");
    let deleted = old.delete(&database.connection).await.unwrap();
    assert_eq!((deleted.runs, deleted.chunks, deleted.from), (4, 12, counted.from));
    assert_eq!(left(&database).await, "2 4 6 8 10");
    assert_eq!(
        database.value("SELECT count(*) || ' ' || (SELECT count(*) FROM stagemill.round) FROM stagemill.chunk").await,
        "15 5"
    );
    assert_eq!(old.delete(&database.connection).await.unwrap(), Pruned::default());
}

#[tokio::test]
async fn many_runs_go_in_several_transactions_and_a_large_one_in_one() {
    let database = Database::with("").await;
    runs(&database, &[("big", "COMPLETE", 300, 50_001), ("big", "COMPLETE", 299, 10), ("big", "COMPLETE", 298, 10)])
        .await;
    database
        .execute(
            "INSERT INTO stagemill.run (job, status, started_at, ended_at, owner, spec, mapping, stage_table, target_table, parallelism, round_limit)
             SELECT 'small', 'FAILED', now() - interval '200 days', now() - interval '200 days', n, '{}', '{}', 's', 't', 1, 1 FROM generate_series(1, 2101) n;
             CREATE TABLE seen (run_id bigint, xid xid8);
             CREATE FUNCTION see() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO seen VALUES (OLD.run_id, pg_current_xact_id()); RETURN NULL; END $$;
             CREATE TRIGGER see AFTER DELETE ON stagemill.run FOR EACH ROW EXECUTE FUNCTION see();",
        )
        .await;
    let old = Old::than(&database.connection, DAY * 90, None).await.unwrap();
    let deleted = old.delete(&database.connection).await.unwrap();
    assert_eq!((deleted.runs, deleted.chunks), (2 + 2100, 50_011));
    assert_eq!(left(&database).await, database.value("SELECT '3 ' || max(run_id) FROM stagemill.run").await);
    let batches = "SELECT string_agg(n::text, ' ' ORDER BY first) FROM (SELECT min(run_id) AS first, count(*) AS n FROM seen GROUP BY xid) batch";
    assert_eq!(database.value(batches).await, "1 1000 1000 101");
}
