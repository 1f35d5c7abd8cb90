//! Partitioned targets: rows find their partition whatever the stage is cut along, and the target is the single statement's.

use stagemill_engine::outcome::Status;

use super::oracle::Case;
use crate::database::{Database, job};

/// Accounts by region and, in the north, by id; one partition has another layout, regions that nobody named go to the default one. Half of the
/// staged rows have a target row.
const TABLES: &str = "
    CREATE TABLE target (serial bigint GENERATED ALWAYS AS IDENTITY, id int, region text, n int, twice int GENERATED ALWAYS AS (n * 2) STORED,
                         seq numeric, at date DEFAULT '2026-01-01', PRIMARY KEY (region, id)) PARTITION BY LIST (region);
    CREATE TABLE north PARTITION OF target FOR VALUES IN ('n', 'nw') PARTITION BY RANGE (id);
    CREATE TABLE north_low PARTITION OF north FOR VALUES FROM (MINVALUE) TO (300);
    CREATE TABLE north_high PARTITION OF north FOR VALUES FROM (300) TO (700);
    CREATE TABLE north_rest PARTITION OF north DEFAULT PARTITION BY HASH (id);
    CREATE TABLE north_rest_0 PARTITION OF north_rest FOR VALUES WITH (MODULUS 2, REMAINDER 0);
    CREATE TABLE north_rest_1 PARTITION OF north_rest FOR VALUES WITH (MODULUS 2, REMAINDER 1);
    CREATE TABLE south (at date DEFAULT '2026-01-01', gone text, seq numeric, n int, twice int GENERATED ALWAYS AS (n * 2) STORED, region text NOT NULL,
                        id int NOT NULL, serial bigint NOT NULL);
    ALTER TABLE south DROP COLUMN gone; ALTER TABLE target ATTACH PARTITION south FOR VALUES IN ('s');
    CREATE TABLE elsewhere PARTITION OF target DEFAULT;
    CREATE FUNCTION region(g int) RETURNS text IMMUTABLE LANGUAGE sql AS $$ SELECT (ARRAY['n', 's', 'nw', 'ö', 'e'])[g % 5 + 1] $$;
    INSERT INTO target (id, region, n, seq) SELECT g, region(g), g, 1500 - g FROM generate_series(1, 1000) g;
    CREATE TABLE oracle (LIKE target INCLUDING ALL);
    INSERT INTO oracle (serial, id, region, n, seq, at) OVERRIDING SYSTEM VALUE SELECT serial, id, region, n, seq, at FROM target;
    CREATE TABLE stage (id int, region text, n int, op text, seq numeric);
    INSERT INTO stage SELECT g, region(g), CASE WHEN g % 2 = 0 THEN g ELSE -g END, substr('IUD', g % 3 + 1, 1), g FROM generate_series(501, 1500) g ORDER BY md5(g::text);
    CREATE INDEX ON stage (id, region); ANALYZE;";

const KEY: &str = r#""stage": {"table": "stage"}, "target": {"table": "target", "key": ["id", "region"]}"#;

/// The same, with numbers of the server's own out of the way: which row gets which is chance.
fn without_serials() -> String {
    format!(
        "{TABLES} ALTER TABLE target ALTER serial DROP IDENTITY, ALTER serial DROP NOT NULL; ALTER TABLE oracle ALTER serial DROP IDENTITY, ALTER serial DROP NOT NULL;"
    )
}

#[tokio::test]
async fn upsert_into_nested_and_default_partitions() {
    let statement = "INSERT INTO oracle (id, region, n) SELECT id, region, n FROM stage ON CONFLICT (region, id) DO UPDATE SET n = excluded.n";
    for rest in ["", r#", "skip_unchanged": true"#] {
        let job = format!(r#"{KEY}, "operation": "upsert", "columns": ["id", "region", "n"]{rest}"#);
        Case { tables: &without_serials(), job: &job, statement }.holds_for(&["key", "ctid"]).await;
    }
}

#[tokio::test]
async fn rows_that_are_as_they_should_be_are_left_alone_in_every_partition() {
    let job = format!(r#"{KEY}, "operation": "upsert", "columns": ["id", "region", "n"], "skip_unchanged": true"#);
    let (database, summary) = Case { tables: &without_serials(), job: &job, statement: "" }.run("key", 4).await;
    let counts = summary.tally.counts;
    assert_eq!((counts.inserted, counts.updated, counts.unchanged), (500, 250, 250));
    let homes = "SELECT string_agg(home, ' ' ORDER BY home) FROM (SELECT DISTINCT tableoid::regclass::text AS home FROM target WHERE id > 1000) h";
    assert_eq!(database.value(homes).await, "elsewhere north_rest_0 north_rest_1 south");
}

#[tokio::test]
async fn delete_from_nested_and_default_partitions() {
    let job = format!(r#"{KEY}, "operation": "delete""#);
    let statement = "DELETE FROM oracle t USING stage s WHERE t.id = s.id AND t.region = s.region";
    Case { tables: TABLES, job: &job, statement }.holds_for(&["key", "ctid"]).await;
}

#[tokio::test]
async fn changes_of_rows_in_nested_and_default_partitions() {
    for (guard, newer) in [("", "true"), (r#", "guard": "seq""#, "t.seq < s.seq")] {
        let job = format!(
            r#"{KEY}, "operation": "changes", "changes": {{"operation": "op", "order": "seq"{guard}}}, "columns": ["id", "region", "n", "seq"]"#
        );
        let statement = format!(
            "WITH d AS (DELETE FROM oracle t USING stage s WHERE t.id = s.id AND t.region = s.region AND s.op = 'D' AND {newer}),
                  u AS (UPDATE oracle t SET n = s.n, seq = s.seq FROM stage s WHERE t.id = s.id AND t.region = s.region AND s.op <> 'D' AND {newer})
             INSERT INTO oracle (id, region, n, seq) SELECT id, region, n, seq FROM stage s WHERE op <> 'D' AND NOT EXISTS (SELECT FROM oracle t WHERE t.id = s.id AND t.region = s.region)"
        );
        Case { tables: &without_serials(), job: &job, statement: &statement }.holds_for(&["key"]).await;
    }
}

#[tokio::test]
async fn the_chunk_key_need_not_be_the_partition_key() {
    let database = Database::with(&without_serials()).await;
    let text = format!(
        r#"{{"name": "case", {KEY}, "operation": "changes", "changes": {{"operation": "op", "order": "seq"}}, "columns": ["id", "region", "n", "seq"],
            "chunks": {{"by": "sql", "column": "region", "query": "VALUES ('a', 'm'), ('n', 'nw'), ('s', 'zzz')"}}}}"#
    );
    let summary = database.run(&job(&text)).await;
    // 'ö' lies in no range: the database's order is that of the code points.
    assert_eq!((summary.status, summary.tally.chunks, summary.outside), (Status::Complete, 3, 200));
    assert_eq!(summary.tally.counts.staged, 800);
    let left = "SELECT count(*) FROM target t JOIN stage s USING (id, region) WHERE s.op = 'D' AND region <> 'ö'";
    assert_eq!(database.value(left).await, "0");
}

#[tokio::test]
async fn an_identity_and_a_generated_column_are_the_servers_in_every_partition() {
    let job = format!(r#"{KEY}, "operation": "upsert", "columns": ["id", "region", "n"]"#);
    let (database, summary) = Case { tables: TABLES, job: &job, statement: "" }.run("ctid", 4).await;
    assert_eq!((summary.tally.counts.inserted, summary.tally.counts.updated), (500, 500));
    assert_eq!(database.value("SELECT count(DISTINCT serial) FROM target WHERE twice = n * 2").await, "1500");
    // Rows that are updated burn no number.
    assert_eq!(database.value("SELECT max(serial) FROM target").await, "1500");
}

#[tokio::test]
async fn a_staged_identity_is_taken_where_it_is_named() {
    let tables = format!("{TABLES} ALTER TABLE stage ADD serial bigint; UPDATE stage SET serial = id + 10000;");
    let job = format!(r#"{KEY}, "operation": "insert", "columns": ["id", "region", "n", "serial"]"#);
    let statement = "INSERT INTO oracle (id, region, n, serial) OVERRIDING SYSTEM VALUE SELECT id, region, n, serial FROM stage ON CONFLICT (id, region) DO NOTHING";
    Case { tables: &tables, job: &job, statement }.holds_for(&["key", "ctid"]).await;
}

#[tokio::test]
async fn a_key_without_the_partition_column_is_refused() {
    let database = Database::with(&format!("{TABLES} CREATE UNIQUE INDEX ON north_low (id);")).await;
    let text = r#"{"name": "case", "stage": {"table": "stage"}, "target": {"table": "target", "key": ["id"]}, "operation": "update", "columns": ["id", "region"]}"#;
    let refused = database.plan(&job(text), "me").await.unwrap_err().to_string();
    assert!(refused.contains("target.key (id) has no unique index"), "{refused}");
}

#[tokio::test]
async fn statements_of_ones_own_move_rows_to_other_partitions() {
    let tables = without_serials();
    for by in [r#""by": "key", "column": "id""#, r#""by": "ctid""#] {
        let database = Database::with(&tables).await;
        let text = format!(
            r#"{{"name": "case", "stage": {{"table": "stage"}}, "target": {{"table": "target"}}, "operation": "sql", "chunks": {{{by}, "rows": 40}},
                "sql": ["UPDATE target t SET region = CASE t.region WHEN 's' THEN 'n' ELSE 'x' END FROM stage WHERE t.id = stage.id AND t.region = stage.region AND {{chunk}}"]}}"#
        );
        let summary = database.run(&job(&text)).await;
        assert_eq!((summary.status, summary.statement_rows.as_deref()), (Status::Complete, Some(&[500][..])));
        database.execute("UPDATE oracle t SET region = CASE t.region WHEN 's' THEN 'n' ELSE 'x' END FROM stage s WHERE t.id = s.id AND t.region = s.region").await;
        let differences = "SELECT count(*) FROM ((TABLE target EXCEPT ALL TABLE oracle) UNION ALL (TABLE oracle EXCEPT ALL TABLE target)) d";
        assert_eq!(database.value(differences).await, "0", "{by}");
        assert_eq!(database.value("SELECT count(*) FROM elsewhere WHERE region = 'x'").await, "400");
    }
}

#[tokio::test]
async fn a_row_that_no_partition_takes_is_set_aside() {
    let tables = format!("{} DROP TABLE elsewhere;", without_serials());
    let database = Database::with(&tables).await;
    let text = format!(
        r#"{{"name": "case", {KEY}, "operation": "upsert", "columns": ["id", "region", "n"], "on_bad_row": "quarantine", "max_rejects": 400, "chunks": {{"rows": 250}}}}"#
    );
    let summary = database.run(&job(&text)).await;
    assert_eq!((summary.status, summary.tally.counts.rejected), (Status::CompleteWithRejects, 400));
    assert_eq!(database.value("SELECT count(*) FROM stagemill.reject WHERE staged_row ->> 'region' IN ('ö', 'e') AND sqlstate = '23514'").await, "400");
}
