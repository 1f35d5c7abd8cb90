//! `skip_unchanged`: rows that are already as they should be are not written.

use stagemill_engine::{check, job::Job, ledger::summary::Summary, outcome::Status};

use crate::database::{Database, job};

fn spec(operation: &str, columns: &str) -> Job {
    job(&format!(
        r#"{{"name": "u", "stage": {{"table": "stage"}}, "target": {{"table": "target", "key": ["id"]}}, "operation": "{operation}",
            "columns": {columns}, "skip_unchanged": true, "chunks": {{"rows": 40}}, "parallelism": 2}}"#
    ))
}

fn counts(summary: &Summary) -> [i64; 5] {
    let counts = &summary.tally.counts;
    [counts.staged, counts.inserted, counts.updated, counts.unchanged, counts.skipped]
}

/// Rows 1 to 100 in the target, of which 51 to 90 are staged as they are and 91 to 100 otherwise; and ten that are new.
const TABLES: &str = "
    CREATE TABLE target (id int PRIMARY KEY, n int, note text, at timestamptz);
    INSERT INTO target SELECT g, g, CASE WHEN g % 5 > 0 THEN 'n' || g END, '2026-01-01Z' FROM generate_series(1, 100) g;
    CREATE TABLE stage (id int PRIMARY KEY, n int, note text);
    INSERT INTO stage SELECT g, g, CASE WHEN g % 5 > 0 THEN 'n' || g END FROM generate_series(51, 110) g;
    UPDATE stage SET note = CASE WHEN id % 5 = 0 THEN 'was NULL' WHEN id % 5 = 1 THEN NULL ELSE note || '!' END WHERE id BETWEEN 91 AND 100;";

#[tokio::test]
async fn rows_that_are_as_they_should_be_are_not_written_and_counted() {
    let columns = r#"{"id": "stage.id", "n": "stage.n", "note": "stage.note", "at": {"update": "CURRENT_TIMESTAMP"}}"#;
    for (operation, expected) in [("upsert", [60, 10, 10, 40, 0]), ("update", [60, 0, 10, 40, 10])] {
        let database = Database::with(TABLES).await;
        let untouched = "SELECT count(*) FROM target WHERE at = '2026-01-01Z' AND id BETWEEN 51 AND 100";
        let places = "SELECT md5(string_agg(ctid::text || xmin::text, ' ' ORDER BY id)) FROM target WHERE id <= 90";
        let before = database.value(places).await;
        let summary = database.run(&spec(operation, columns)).await;
        assert_eq!((summary.status, counts(&summary)), (Status::Complete, expected), "{operation}");
        // The time of the change is no reason for one.
        assert_eq!(database.value(untouched).await, "40");
        assert_eq!(database.value(places).await, before);
        assert_eq!(
            database
                .value("SELECT count(*) FROM target t JOIN stage s USING (id) WHERE t.note IS DISTINCT FROM s.note")
                .await,
            "0"
        );
        let again = database.run(&spec(operation, columns)).await;
        assert_eq!(again.tally.counts.written(), 0);
    }
}

#[tokio::test]
async fn changes_that_change_nothing_are_unchanged() {
    let database = Database::with(TABLES).await;
    database
        .execute(
            "ALTER TABLE stage ADD op text DEFAULT 'U', ADD seq int DEFAULT 1; UPDATE stage SET op = 'D' WHERE id = 51",
        )
        .await;
    let mut spec = spec("upsert", r#"{"id": "stage.id", "n": "stage.n", "note": "stage.note"}"#);
    spec.operation = stagemill_engine::job::Operation::Changes;
    spec.changes = serde_json::from_str(r#"{"operation": "op", "order": "seq"}"#).unwrap();
    let summary = database.run(&spec).await;
    assert_eq!((counts(&summary), summary.tally.counts.deleted), ([60, 10, 10, 39, 0], 1));
}

#[tokio::test]
async fn values_of_their_own_time_are_not_compared_and_casts_that_go_by_the_settings_are() {
    let database = Database::with(
        "CREATE TABLE target (id int PRIMARY KEY, day date, by text, random float8, at timestamptz);
         INSERT INTO target VALUES (1, '2026-01-01', 'x', 0, '2026-01-01Z'), (2, '2026-01-01', 'x', 0, '2026-01-01Z');
         CREATE TABLE stage (id int PRIMARY KEY, at timestamptz); INSERT INTO stage VALUES (1, '2026-01-01 12:00Z'), (2, '2026-02-02 12:00Z');",
    )
    .await;
    let columns = r#"{"id": "stage.id", "day": "CAST(stage.at AS date)", "by": "current_user || stage.id", "random": "random()", "at": "clock_timestamp()"}"#;
    let summary = database.run(&spec("update", columns)).await;
    assert_eq!(counts(&summary), [2, 0, 1, 1, 0]);
    assert_eq!(
        database.value("SELECT string_agg(day::text, ' ' ORDER BY id) FROM target").await,
        "2026-01-01 2026-02-02"
    );
}

#[tokio::test]
async fn values_that_only_look_equal_are_written() {
    let database = Database::with(
        "CREATE COLLATION nocase (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
         CREATE TYPE pair AS (a int, b json);
         CREATE TABLE target (id int PRIMARY KEY, name text COLLATE nocase, span interval, doc json, place point, box box, pair pair, docs json[], code char(5));
         CREATE TABLE stage (LIKE target INCLUDING ALL);
         INSERT INTO target SELECT g, 'abc', '1 day', '{\"a\": 1}', '(1,2)', '(1,1),(0,0)', ROW(1, '{}'::json)::pair, ARRAY['{}'::json], 'ab' FROM generate_series(0, 8) g;
         INSERT INTO stage TABLE target;
         UPDATE stage SET name = 'ABC' WHERE id = 1; UPDATE stage SET span = '24 hours' WHERE id = 2; UPDATE stage SET doc = '{\"a\":1}' WHERE id = 3;
         UPDATE stage SET place = '(1,3)' WHERE id = 4; UPDATE stage SET box = '(2,0.5),(0,0)' WHERE id = 5; UPDATE stage SET pair = ROW(1, '[]'::json)::pair WHERE id = 6;
         UPDATE stage SET docs = NULL WHERE id = 7; UPDATE stage SET code = 'abc' WHERE id = 8;",
    )
    .await;
    let columns = r#"["id", "name", "span", "doc", "place", "box", "pair", "docs", "code"]"#;
    let summary = database.run(&spec("update", columns)).await;
    assert_eq!((summary.status, counts(&summary)), (Status::Complete, [9, 0, 8, 1, 0]), "{:?}", summary.error);
    assert_eq!(
        database.value("SELECT count(*) FROM target t JOIN stage s USING (id) WHERE t::text = s::text").await,
        "9"
    );
}

#[tokio::test]
async fn a_value_that_does_not_fit_is_an_error_and_not_unchanged() {
    let database = Database::with(
        "CREATE TABLE target (id int PRIMARY KEY, code varchar(3)); INSERT INTO target VALUES (1, 'abc');
         CREATE TABLE stage (id int PRIMARY KEY, code text); INSERT INTO stage VALUES (1, 'abcdef');",
    )
    .await;
    let summary = database.run(&spec("update", r#"["id", "code"]"#)).await;
    assert_eq!((summary.status, summary.sqlstate.as_deref()), (Status::Incomplete, Some("22001")));
}

#[tokio::test]
async fn a_role_that_may_not_look_into_expressions_is_told_so() {
    let database = Database::with(TABLES).await;
    database
        .execute(
            "DO $$ BEGIN EXECUTE format('REVOKE TEMPORARY ON DATABASE %I FROM PUBLIC', current_database()); END $$;
             DO $$ BEGIN CREATE ROLE plain; EXCEPTION WHEN duplicate_object THEN END $$; GRANT ALL ON ALL TABLES IN SCHEMA public TO plain; SET ROLE plain",
        )
        .await;
    let found = check::job(&database.connection, &spec("update", r#"["id", "n"]"#)).await.unwrap().findings;
    assert!(found.iter().any(|f| f.at == "skip_unchanged" && f.remedy.contains("GRANT TEMPORARY")), "{found:?}");
}
