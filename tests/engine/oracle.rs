//! The target after a run equals that of the single statement a person would have written, run alone on a copy: every row, every column.

use stagemill_engine::{ledger::summary::Summary, outcome::Status};

use crate::database::{Database, job};

/// What is done to one stage and target, in two ways.
pub(super) struct Case<'a> {
    /// Makes `stage`, `target` and `oracle`, the copy.
    pub(super) tables: &'a str,
    /// The job, without `name`, `chunks` and `parallelism`.
    pub(super) job: &'a str,
    /// The single statement, on `oracle`.
    pub(super) statement: &'a str,
}

impl Case<'_> {
    /// Runs the job with each way of cutting and with one and many sessions, and compares.
    pub(super) async fn holds_for(&self, cuts: &[&str]) {
        for by in cuts {
            for parallelism in [1, 8] {
                let (database, summary) = self.run(by, parallelism).await;
                assert_eq!(summary.status, Status::Complete, "{by} {parallelism}: {summary:?}");
                assert!(summary.tally.counts.add_up());
                assert!(summary.tally.chunks > 1, "{by}: one chunk shows nothing");
                assert_eq!(differences(&database).await, "0", "{by}, {parallelism} sessions");
            }
        }
    }

    pub(super) async fn run(&self, by: &str, parallelism: u32) -> (Database, Summary) {
        let database = Database::with(self.tables).await;
        let text = format!(
            r#"{{"name": "case", {}, "chunks": {{"by": "{by}", "rows": 40}}, "parallelism": {parallelism}}}"#,
            self.job
        );
        let summary = database.run(&job(&text)).await;
        database.execute(self.statement).await;
        (database, summary)
    }
}

async fn differences(database: &Database) -> String {
    database
        .value("SELECT count(*) FROM ((TABLE target EXCEPT ALL TABLE oracle) UNION ALL (TABLE oracle EXCEPT ALL TABLE target)) d")
        .await
}

/// 1,000 staged rows in random order, half of them on 1,000 target rows.
const TABLES: &str = "
    CREATE TABLE target (id bigint PRIMARY KEY, n int, note text DEFAULT 'by default', at timestamptz);
    INSERT INTO target SELECT g, g, 'old ' || g, '2026-01-01Z' FROM generate_series(1, 1000) g;
    CREATE TABLE oracle (LIKE target INCLUDING ALL); INSERT INTO oracle TABLE target;
    CREATE TABLE stage (id bigint PRIMARY KEY, n int, note text, op text);
    INSERT INTO stage SELECT g, g * 10, CASE WHEN g % 7 = 0 THEN NULL ELSE 'new ' || g END, substr('IUD', g % 3 + 1, 1)
        FROM generate_series(501, 1500) g ORDER BY md5(g::text);
    ANALYZE;";

const BOTH: [&str; 3] = ["ctid", "key", "auto"];

#[tokio::test]
async fn upsert_of_all_common_columns() {
    let job = r#""stage": {"table": "stage"}, "target": {"table": "target", "key": ["id"]}, "operation": "upsert""#;
    let statement = "INSERT INTO oracle (id, n, note) SELECT id, n, note FROM stage
                     ON CONFLICT (id) DO UPDATE SET n = excluded.n, note = excluded.note";
    Case { tables: TABLES, job, statement }.holds_for(&BOTH).await;
}

#[tokio::test]
async fn upsert_with_expressions_branches_and_a_condition() {
    let job = r#""stage": {"table": "public.stage", "where": "stage.op IN ('I','U') -- not deletes"},
        "target": {"table": "public.target", "key": ["id"]}, "operation": "upsert",
        "columns": {"id": "stage.id", "n": {"insert": "stage.n", "update": "target.n + stage.n"},
                    "note": {"update": "coalesce(stage.note, target.note)"}, "at": {"insert": "'2026-11-24Z'"}}"#;
    let statement = "WITH u AS (UPDATE oracle t SET n = t.n + s.n, note = coalesce(s.note, t.note) FROM stage s WHERE t.id = s.id AND s.op IN ('I','U'))
                     INSERT INTO oracle (id, n, at) SELECT id, n, '2026-11-24Z' FROM stage s
                     WHERE op IN ('I','U') AND NOT EXISTS (SELECT FROM oracle t WHERE t.id = s.id)";
    Case { tables: TABLES, job, statement }.holds_for(&BOTH).await;
}

#[tokio::test]
async fn update_skips_rows_that_the_target_does_not_have() {
    let job = r#""stage": {"table": "stage"}, "target": {"table": "target", "key": ["id"]}, "operation": "update",
        "columns": {"id": "stage.id", "n": "target.n + stage.n"}"#;
    let case =
        Case { tables: TABLES, job, statement: "UPDATE oracle t SET n = t.n + s.n FROM stage s WHERE t.id = s.id" };
    case.holds_for(&BOTH).await;
    let (_, summary) = case.run("auto", 4).await;
    assert_eq!((summary.tally.counts.updated, summary.tally.counts.skipped), (500, 500));
}

#[tokio::test]
async fn insert_skips_rows_that_the_target_has() {
    let job = r#""stage": {"table": "stage"}, "target": {"table": "target", "key": ["id"]}, "operation": "insert", "columns": ["id", "note"]"#;
    let statement = "INSERT INTO oracle (id, note) SELECT id, note FROM stage ON CONFLICT (id) DO NOTHING";
    let case = Case { tables: TABLES, job, statement };
    case.holds_for(&BOTH).await;
    let (_, summary) = case.run("auto", 4).await;
    assert_eq!((summary.tally.counts.inserted, summary.tally.counts.skipped), (500, 500));
}

#[tokio::test]
async fn insert_that_may_not_meet_a_row_fails_where_it_does_and_nowhere_else() {
    let job = r#""stage": {"table": "stage"}, "target": {"table": "target", "key": ["id"]}, "operation": "insert", "existing": "error", "columns": ["id", "n"]"#;
    let new_only = format!("{TABLES} DELETE FROM stage WHERE id <= 1000;");
    Case { tables: &new_only, job, statement: "INSERT INTO oracle (id, n) SELECT id, n FROM stage" }
        .holds_for(&["ctid", "key"])
        .await;
    let one_old = format!("{TABLES} DELETE FROM stage WHERE id < 1000;");
    let (database, summary) = Case { tables: &one_old, job, statement: "" }.run("key", 4).await;
    assert_eq!((summary.status, summary.sqlstate.as_deref()), (Status::Incomplete, Some("23505")));
    assert_eq!((summary.tally.failed, summary.tally.processed + 1), (1, summary.tally.chunks));
    assert_eq!(database.value("SELECT count(*) FROM target WHERE id > 1000").await, (500 - 39).to_string());
}

#[tokio::test]
async fn skewed_and_composite_keys() {
    let tables = "
        CREATE TABLE target (region text COLLATE \"C\", id numeric(20), n int, UNIQUE (id, region));
        INSERT INTO target SELECT 'r' || g % 3, g, 0 FROM generate_series(1, 500) g;
        CREATE TABLE oracle (LIKE target INCLUDING ALL); INSERT INTO oracle TABLE target;
        CREATE TABLE stage (region text COLLATE \"C\", id numeric(20), n int, UNIQUE (region, id));
        INSERT INTO stage SELECT 'r' || g % 3, CASE WHEN g < 900 THEN g ELSE g * 1e12 END, g FROM generate_series(1, 1000) g;
        ANALYZE;";
    let job =
        r#""stage": {"table": "stage"}, "target": {"table": "target", "key": ["id", "region"]}, "operation": "upsert""#;
    let statement = "INSERT INTO oracle SELECT * FROM stage ON CONFLICT (id, region) DO UPDATE SET n = excluded.n";
    let case = Case { tables, job, statement };
    case.holds_for(&BOTH).await;
    let (database, _) = case.run("key", 8).await;
    let largest: i64 = database.value("SELECT max(staged) FROM stagemill.chunk").await.parse().unwrap();
    assert!(largest <= 60, "chunks of equal population whatever the keys: one has {largest} rows");
}

#[tokio::test]
async fn null_keys_lie_in_a_chunk_of_their_own() {
    let tables = "
        CREATE TABLE target (a int, b int, n int, UNIQUE (a, b));
        INSERT INTO target SELECT g % 50, g, 0 FROM generate_series(1, 300) g;
        CREATE TABLE oracle (LIKE target INCLUDING ALL); INSERT INTO oracle TABLE target;
        CREATE TABLE stage (a int, b int, n int); CREATE INDEX ON stage (a, b);
        INSERT INTO stage SELECT CASE WHEN g % 10 > 0 THEN g % 50 END, CASE WHEN g % 11 > 0 THEN g END, g FROM generate_series(1, 600) g;
        ANALYZE;";
    let job = r#""stage": {"table": "stage"}, "target": {"table": "target", "key": ["a", "b"]}, "operation": "upsert""#;
    let statement = "INSERT INTO oracle SELECT * FROM stage ON CONFLICT (a, b) DO UPDATE SET n = excluded.n";
    let case = Case { tables, job, statement };
    case.holds_for(&BOTH).await;
    let (database, _) = case.run("key", 2).await;
    assert_eq!(database.value("SELECT staged FROM stagemill.chunk WHERE kind = 'null_keys'").await, "109");
}

#[tokio::test]
async fn quoted_and_mixed_case_identifiers() {
    let tables = r#"
        CREATE SCHEMA "Ods Schema"; CREATE SCHEMA "stg;--";
        CREATE TABLE "Ods Schema"."Account" ("Acct ""Id""" bigint PRIMARY KEY, "select" text, "größe" int);
        CREATE VIEW target AS TABLE "Ods Schema"."Account";
        CREATE TABLE oracle (LIKE "Ods Schema"."Account" INCLUDING ALL);
        CREATE TABLE "stg;--"."Stage '1'" ("Acct ""Id""" bigint PRIMARY KEY, "select" text, "größe" int);
        INSERT INTO "stg;--"."Stage '1'" SELECT g, 'it''s ' || g, g FROM generate_series(1, 500) g;"#;
    let job = r#""stage": {"table": "\"stg;--\".\"Stage '1'\""}, "target": {"table": "\"Ods Schema\".\"Account\"", "key": ["\"Acct \"\"Id\"\"\""]},
        "operation": "upsert", "columns": ["\"Acct \"\"Id\"\"\"", "\"select\"", "größe"]"#;
    Case { tables, job, statement: r#"INSERT INTO oracle SELECT * FROM "stg;--"."Stage '1'""# }.holds_for(&BOTH).await;
}

#[tokio::test]
async fn generated_and_identity_columns_are_left_to_the_server() {
    let tables = "
        CREATE TABLE target (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, n int, twice int GENERATED ALWAYS AS (n * 2) STORED,
                             serial bigint GENERATED BY DEFAULT AS IDENTITY);
        INSERT INTO target (id, n, serial) OVERRIDING SYSTEM VALUE SELECT g, g, 7 FROM generate_series(1, 400) g;
        CREATE TABLE oracle (LIKE target INCLUDING ALL); INSERT INTO oracle (id, n, serial) OVERRIDING SYSTEM VALUE SELECT id, n, serial FROM target;
        CREATE TABLE stage (id bigint PRIMARY KEY, n int, twice int, serial bigint);
        INSERT INTO stage SELECT g, -g, 1, g FROM generate_series(201, 800) g;";
    let job = r#""stage": {"table": "stage"}, "target": {"table": "target", "key": ["id"]}, "operation": "upsert""#;
    let statement = "INSERT INTO oracle (id, n, serial) OVERRIDING SYSTEM VALUE SELECT id, n, serial FROM stage
                     ON CONFLICT (id) DO UPDATE SET n = excluded.n, serial = excluded.serial";
    Case { tables, job, statement }.holds_for(&BOTH).await;
}

#[tokio::test]
async fn a_partitioned_stage_is_cut_leaf_by_leaf() {
    let tables = "
        CREATE TABLE target (id bigint PRIMARY KEY, n int);
        CREATE TABLE oracle (LIKE target INCLUDING ALL);
        CREATE TABLE stage (n int, id bigint, PRIMARY KEY (id)) PARTITION BY RANGE (id);
        CREATE TABLE stage_low PARTITION OF stage FOR VALUES FROM (MINVALUE) TO (300);
        CREATE TABLE stage_mid (extra int, id bigint NOT NULL, n int); ALTER TABLE stage_mid DROP COLUMN extra;
        ALTER TABLE stage ATTACH PARTITION stage_mid FOR VALUES FROM (300) TO (600);
        CREATE TABLE stage_high PARTITION OF stage FOR VALUES FROM (600) TO (MAXVALUE) PARTITION BY RANGE (id);
        CREATE TABLE stage_higher PARTITION OF stage_high FOR VALUES FROM (600) TO (MAXVALUE);
        INSERT INTO stage SELECT g, g FROM generate_series(1, 1000) g;";
    let job = r#""stage": {"table": "stage"}, "target": {"table": "target", "key": ["id"]}, "operation": "upsert""#;
    let case = Case { tables, job, statement: "INSERT INTO oracle SELECT id, n FROM stage" };
    case.holds_for(&BOTH).await;
    let (database, _) = case.run("ctid", 2).await;
    assert_eq!(
        database.value("SELECT string_agg(DISTINCT leaf_name, ' ') FROM stagemill.chunk").await,
        "stage_higher stage_low stage_mid"
    );
}

#[tokio::test]
async fn a_partitioned_target() {
    let tables = "
        CREATE TABLE target (id bigint PRIMARY KEY, n int) PARTITION BY HASH (id);
        CREATE TABLE target_0 PARTITION OF target FOR VALUES WITH (MODULUS 2, REMAINDER 0);
        CREATE TABLE target_1 (n int, id bigint NOT NULL); ALTER TABLE target ATTACH PARTITION target_1 FOR VALUES WITH (MODULUS 2, REMAINDER 1);
        INSERT INTO target SELECT g, g FROM generate_series(1, 500) g;
        CREATE TABLE oracle (id bigint PRIMARY KEY, n int); INSERT INTO oracle TABLE target;
        CREATE TABLE stage (id bigint PRIMARY KEY, n int); INSERT INTO stage SELECT g, -g FROM generate_series(300, 900) g;";
    let job = r#""stage": {"table": "stage"}, "target": {"table": "target", "key": ["id"]}, "operation": "upsert""#;
    let statement = "INSERT INTO oracle SELECT * FROM stage ON CONFLICT (id) DO UPDATE SET n = excluded.n";
    Case { tables, job, statement }.holds_for(&BOTH).await;
}

#[tokio::test]
async fn boundaries_read_back_whatever_date_style_and_time_zone_say() {
    // For sessions that come later: the workers', not the planner's.
    let tables = "
        DO $$ BEGIN
            EXECUTE format('ALTER DATABASE %I SET datestyle = ''SQL, DMY''', current_database());
            EXECUTE format('ALTER DATABASE %I SET timezone = ''Pacific/Chatham''', current_database());
        END $$;
        CREATE TABLE target (at timestamptz PRIMARY KEY, day date);
        CREATE TABLE oracle (LIKE target INCLUDING ALL);
        CREATE TABLE stage (at timestamptz PRIMARY KEY, day date);
        INSERT INTO stage SELECT '2026-10-25Z'::timestamptz + g * interval '37 seconds', '2026-01-02'::date + g FROM generate_series(1, 500) g;";
    let job = r#""stage": {"table": "stage"}, "target": {"table": "target", "key": ["at"]}, "operation": "upsert""#;
    Case { tables, job, statement: "INSERT INTO oracle TABLE stage" }.holds_for(&["key"]).await;
}

#[tokio::test]
async fn a_view_as_stage_is_cut_by_key() {
    let tables = format!(
        "{TABLES} ALTER TABLE stage RENAME TO raw; CREATE VIEW stage AS SELECT id, n, note FROM raw WHERE op <> 'D';"
    );
    let job = r#""stage": {"table": "stage"}, "target": {"table": "target", "key": ["id"]}, "operation": "upsert""#;
    let statement = "INSERT INTO oracle (id, n, note) TABLE stage ON CONFLICT (id) DO UPDATE SET n = excluded.n, note = excluded.note";
    Case { tables: &tables, job, statement }.holds_for(&["auto", "key"]).await;
}
