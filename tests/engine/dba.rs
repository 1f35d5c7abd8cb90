//! What `check` says of a job that a DBA would say.

use std::time::Duration;

use stagemill_engine::{
    check::{
        self, activity,
        expression::{self, Expression, Facts},
    },
    finding::{Finding, Severity},
    ident::{Ident, TableName},
    job::Job,
    pg::{Server, Trust},
    settings::Settings,
};

use crate::database::{Database, job};

/// A job on `stage` and `target` by `id`.
fn spec(operation: &str, rest: &str) -> Job {
    job(&format!(
        r#"{{"name": "dba", "stage": {{"table": "public.stage"}}, "target": {{"table": "public.target", "key": ["id"]}}, "operation": "{operation}"{rest}}}"#
    ))
}

async fn findings(database: &Database, job: &Job) -> Vec<Finding> {
    check::thoroughly(&database.connection, job).await.unwrap().findings
}

/// The one finding that says this.
fn one<'a>(findings: &'a [Finding], part: &str) -> &'a Finding {
    let mut said = findings.iter().filter(|finding| finding.to_string().contains(part));
    let (first, second) = (said.next(), said.next());
    assert!(first.is_some() && second.is_none(), "{part} is not said once in {findings:#?}");
    first.unwrap()
}

fn silent(findings: &[Finding], part: &str) {
    assert!(findings.iter().all(|finding| !finding.to_string().contains(part)), "{part} is said in {findings:#?}");
}

const TABLES: &str = "
    CREATE TABLE target (id int PRIMARY KEY, n int, note text);
    CREATE TABLE stage (id int PRIMARY KEY, n int, note text);
    INSERT INTO stage SELECT g, g FROM generate_series(1, 100) g;";

async fn facts_of(database: &Database, texts: &[(&str, bool)]) -> Vec<Option<Facts>> {
    let expressions: Vec<Expression> = texts
        .iter()
        .map(|(text, with_target)| Expression {
            at: "columns.n".into(),
            text: (*text).into(),
            with_target: *with_target,
        })
        .collect();
    let name = |text| TableName::parse(text).unwrap();
    let (stage, target) = (name("public.stage"), name("public.target"));
    expression::facts(&database.connection, &Settings::new(), &stage, &target, &expressions).await.unwrap().unwrap()
}

#[tokio::test]
async fn the_server_says_what_an_expression_depends_on() {
    let database = Database::with(&format!(
        "{TABLES} CREATE SCHEMA shop; CREATE TABLE shop.rates AS SELECT 1 AS rate; CREATE VIEW over_target AS SELECT max(n) AS most FROM target;
         CREATE FUNCTION shop.clean(text) RETURNS text LANGUAGE sql AS 'SELECT trim($1)'; CREATE SEQUENCE shop.numbers;"
    ))
    .await;
    let facts = facts_of(
        &database,
        &[
            ("stage.n + 1 -- a comment", false),
            ("random() + length(shop.clean(stage.note)) + nextval('shop.numbers')", false),
            ("now()", false),
            ("CURRENT_TIMESTAMP(0)", false),
            ("current_setting('TimeZone')", false),
            ("clock_timestamp()", false),
            ("target.n + stage.n", true),
            ("to_jsonb(target)::text || ' :funcid 1598 {SQLVALUEFUNCTION'", true),
            ("(SELECT max(target.n) FROM target)", true),
            ("(SELECT max(t.n) FROM target t WHERE t.id > target.id)", true),
            ("(SELECT rate FROM shop.rates)", false),
            ("(SELECT most FROM over_target)", false),
            ("stage", false),
            ("NULL", false),
            ("stage.nope", false),
        ],
    )
    .await;
    let known: Vec<&Facts> = facts[..14].iter().map(|facts| facts.as_ref().unwrap()).collect();
    assert_eq!(facts[14], None, "what the server does not accept has no facts");
    assert_eq!(*known[0], Facts::default());
    assert_eq!(known[1].volatile, ["nextval()", "random()", "shop.clean()"]);
    assert_eq!(known[1].schemas.iter().map(Ident::as_str).collect::<Vec<_>>(), ["shop"]);
    for (n, facts) in known.iter().enumerate() {
        assert_eq!(facts.clock, (2..=5).contains(&n), "{n} {facts:?}");
        assert_eq!(facts.reads_target_row, [6, 7, 9].contains(&n), "{n} {facts:?}");
        assert_eq!(facts.reads_target, [8, 9, 11].contains(&n), "{n} {facts:?}");
        assert_eq!(facts.volatile.is_empty(), n != 1, "{n} {facts:?}");
        assert_eq!(facts.tables.is_empty(), ![8, 9, 10, 11].contains(&n), "{n} {facts:?}");
    }
    assert_eq!(known[10].tables, [TableName::parse("shop.rates").unwrap()]);
    assert_eq!(database.value("SELECT count(*) FROM pg_class WHERE relname LIKE 'stagemill %'").await, "0");
}

#[tokio::test]
async fn a_view_of_the_target_or_its_partitions_is_the_target() {
    let database = Database::with(
        "CREATE TABLE stage (id int PRIMARY KEY, n int);
         CREATE TABLE target (id int PRIMARY KEY, n int) PARTITION BY RANGE (id); CREATE TABLE part PARTITION OF target DEFAULT;
         CREATE VIEW inner_view AS SELECT n FROM part; CREATE VIEW outer_view AS SELECT n FROM inner_view",
    )
    .await;
    let facts =
        facts_of(&database, &[("(SELECT max(n) FROM part)", false), ("(SELECT max(n) FROM outer_view)", false)]).await;
    assert!(facts.iter().flatten().all(|facts| facts.reads_target) && facts.iter().flatten().count() == 2, "{facts:?}");
}

#[tokio::test]
async fn expressions_that_no_single_statement_would_give_are_named() {
    let database = Database::with(TABLES).await;
    let found = findings(
        &database,
        &spec(
            "upsert",
            r#", "columns": {"id": "stage.id", "n": {"insert": "(random() * 9)::int", "update": "(SELECT max(t.n) FROM target t)"},
                 "note": "now()::text"}"#,
        ),
    )
    .await;
    assert_eq!(one(&found, "calls random(), which is volatile").at, "columns.n");
    assert_eq!(one(&found, "has a subquery on the target").at, "columns.n");
    silent(&found, "now()");
    let found = findings(
        &database,
        &job(r#"{"name": "dba", "stage": {"table": "stage", "where": "random() < 0.5"}, "target": {"table": "target", "key": ["id"]}, "operation": "upsert"}"#),
    )
    .await;
    assert_eq!(one(&found, "another reading of the stage").at, "stage.where");
}

#[tokio::test]
async fn a_role_that_may_not_make_views_is_told_so_and_checks_the_rest() {
    let database = Database::with(&format!(
        "{TABLES} DO $$ BEGIN CREATE ROLE no_views; EXCEPTION WHEN duplicate_object THEN END $$;
         GRANT SELECT ON stage TO no_views; GRANT SELECT, INSERT, UPDATE ON target TO no_views;
         DO $$ BEGIN EXECUTE format('REVOKE TEMPORARY ON DATABASE %I FROM PUBLIC', current_database()); END $$; SET ROLE no_views"
    ))
    .await;
    let found = findings(&database, &spec("upsert", "")).await;
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(one(&found, "may not create temporary views").severity, Severity::Warning);
}

#[tokio::test]
async fn triggers_and_rules_of_the_target_are_named_where_they_would_fire() {
    let database = Database::with(&format!(
        "{TABLES} CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
         CREATE TRIGGER once AFTER INSERT ON target FOR EACH STATEMENT EXECUTE FUNCTION f();
         CREATE TRIGGER before_row BEFORE UPDATE ON target FOR EACH ROW EXECUTE FUNCTION f();
         CREATE TRIGGER of_note AFTER UPDATE OF note ON target FOR EACH ROW EXECUTE FUNCTION f();
         CREATE TRIGGER deleted AFTER DELETE ON target FOR EACH ROW EXECUTE FUNCTION f();
         CREATE TRIGGER disabled AFTER INSERT ON target FOR EACH ROW EXECUTE FUNCTION f(); ALTER TABLE target DISABLE TRIGGER disabled;
         CREATE TRIGGER always AFTER INSERT ON target FOR EACH ROW EXECUTE FUNCTION f(); ALTER TABLE target ENABLE ALWAYS TRIGGER always;"
    ))
    .await;
    let found = findings(&database, &spec("upsert", "")).await;
    assert!(
        one(&found, "statement trigger once (public.f): it fires once a chunk")
            .remedy
            .contains("DISABLE TRIGGER \"once\"")
    );
    one(&found, "row trigger before_row (public.f), called for every row: where it returns NULL");
    one(&found, "row trigger of_note");
    silent(&found, "deleted");
    silent(&found, "disabled");
    let without_note = findings(&database, &spec("update", r#", "columns": ["id", "n"]"#)).await;
    silent(&without_note, "of_note");
    silent(&without_note, "statement trigger once");
    let replica = findings(&database, &spec("upsert", r#", "session": {"session_replication_role": "replica"}"#)).await;
    silent(&replica, "before_row");
    one(&replica, "row trigger always");
    database.execute("CREATE RULE log_it AS ON DELETE TO target DO ALSO NOTHING").await;
    one(&findings(&database, &spec("upsert", "")).await, "has the rule log_it");
}

#[tokio::test]
async fn rows_that_row_level_security_hides_are_spoken_of() {
    let database = Database::with(&format!(
        "{TABLES} ALTER TABLE stage ENABLE ROW LEVEL SECURITY; CREATE POLICY upper_half ON stage USING (id > 50);
         DO $$ BEGIN CREATE ROLE half_blind; EXCEPTION WHEN duplicate_object THEN END $$;
         GRANT SELECT ON stage TO half_blind; GRANT SELECT, INSERT, UPDATE ON target TO half_blind;"
    ))
    .await;
    silent(&findings(&database, &spec("upsert", "")).await, "row-level security");
    database.execute("SET ROLE half_blind").await;
    let found = findings(&database, &spec("upsert", "")).await;
    assert!(one(&found, "row-level security that applies to role half_blind").remedy.contains("BYPASSRLS"));
}

#[tokio::test]
async fn foreign_keys_to_the_target_are_spoken_of_where_they_cost_or_fail() {
    let database = Database::with(
        "CREATE TABLE target (id int PRIMARY KEY, code text UNIQUE, parent int CONSTRAINT my_parent REFERENCES target);
         CREATE TABLE child (a int, code text CONSTRAINT to_code REFERENCES target (code), id int REFERENCES target);
         CREATE TABLE stage (id int PRIMARY KEY, code text, parent int);",
    )
    .await;
    let found = findings(&database, &spec("upsert", "")).await;
    one(&found, "foreign key my_parent to itself");
    assert_eq!(
        one(&found, "(to_code) without an index").remedy,
        r#"CREATE INDEX CONCURRENTLY ON "public"."child" ("code")"#
    );
    silent(&found, "child_id_fkey");
    database.execute("CREATE INDEX ON child (code, a)").await;
    let found = findings(&database, &spec("update", r#", "columns": ["id", "code"]"#)).await;
    silent(&found, "without an index");
    silent(&found, "to itself");
}

#[tokio::test]
async fn a_not_null_column_without_a_value_is_found_before_anything_starts() {
    let database = Database::with(
        "CREATE DOMAIN filled AS int DEFAULT 5 NOT NULL;
         CREATE TABLE target (id int PRIMARY KEY, n int NOT NULL, a int NOT NULL DEFAULT 1, b int NOT NULL GENERATED ALWAYS AS IDENTITY, c filled);
         CREATE TABLE stage (id int PRIMARY KEY);",
    )
    .await;
    let columns = |operation| spec(operation, r#", "columns": {"id": "stage.id", "a": "1"}"#);
    let severity =
        async |operation| one(&findings(&database, &columns(operation)).await, "columns.n is NOT NULL").severity;
    assert_eq!(severity("insert").await, Severity::Error);
    assert_eq!(severity("upsert").await, Severity::Warning);
    let found = findings(&database, &columns("insert")).await;
    assert_eq!(found.len(), 1, "{found:?}");
    silent(&findings(&database, &columns("update")).await, "NOT NULL");
    database
        .execute(
            "CREATE FUNCTION fill() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN NEW.n := 1; RETURN NEW; END';
             CREATE TRIGGER fill BEFORE INSERT ON target FOR EACH ROW EXECUTE FUNCTION fill()",
        )
        .await;
    assert_eq!(severity("insert").await, Severity::Warning);
}

#[tokio::test]
async fn a_trigger_of_a_partition_may_give_the_value_too() {
    let database = Database::with(
        "CREATE TABLE target (id int PRIMARY KEY, n int NOT NULL) PARTITION BY RANGE (id); CREATE TABLE part PARTITION OF target DEFAULT;
         CREATE TABLE stage (id int PRIMARY KEY); INSERT INTO stage VALUES (1);
         CREATE FUNCTION fill() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN NEW.n := 1; RETURN NEW; END';
         CREATE TRIGGER fill BEFORE INSERT ON part FOR EACH ROW EXECUTE FUNCTION fill()",
    )
    .await;
    let found = findings(&database, &spec("insert", "")).await;
    assert_eq!(one(&found, "unless a trigger gives it one").severity, Severity::Warning);
    one(&found, "row trigger fill");
    assert_eq!(database.run(&spec("insert", "")).await.tally.counts.inserted, 1);
}

#[tokio::test]
async fn what_keeps_a_job_from_running_and_what_is_doubtful_are_one_list() {
    let database = Database::with(&format!(
        "{TABLES} CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
         CREATE TRIGGER once AFTER INSERT ON target FOR EACH STATEMENT EXECUTE FUNCTION f();"
    ))
    .await;
    let found = findings(
        &database,
        &spec("upsert", r#", "columns": {"id": "stage.id", "n": "stage.nope", "note": "random()::text"}"#),
    )
    .await;
    assert_eq!(one(&found, "column stage.nope does not exist").severity, Severity::Error);
    one(&found, "calls random()");
    one(&found, "statement trigger once");
    assert!(
        found.iter().all(|finding| !finding.at.is_empty() && !finding.fault.is_empty() && !finding.remedy.is_empty())
    );
}

#[tokio::test]
async fn who_holds_a_lock_is_said_before_anything_waits_for_it() {
    let database = Database::with(TABLES).await;
    let other = database.another_connection().await;
    let pid: i32 = other.query_one("SELECT pg_backend_pid()", &[]).await.unwrap().get(0);
    for (lock, at, mode) in
        [("target IN SHARE MODE", "target.table", "ShareLock"), ("stage", "stage.table", "AccessExclusiveLock")]
    {
        other.batch(&format!("BEGIN; LOCK TABLE {lock}")).await.unwrap();
        let found = findings(&database, &spec("upsert", "")).await;
        assert_eq!(found.len(), 1, "{found:?}");
        let said = one(&found, &format!("is locked by session {pid} (idle in transaction, test) ({mode})"));
        assert_eq!((said.severity, said.at.as_str()), (Severity::Error, at));
        assert!(said.remedy.contains(&format!("pg_terminate_backend({pid})")), "{said}");
        other.batch("ROLLBACK").await.unwrap();
    }
    other.batch("BEGIN; LOCK TABLE target IN ROW EXCLUSIVE MODE; LOCK TABLE stage IN SHARE MODE").await.unwrap();
    assert_eq!(findings(&database, &spec("upsert", "")).await, []);
}

#[tokio::test]
async fn transactions_that_were_left_open_are_named_without_their_query() {
    let database = Database::with(TABLES).await;
    let other = database.another_connection().await;
    other.batch("BEGIN; SELECT 'secret-4711'").await.unwrap();
    let ours = database.server().connect("stagemill:1:1:1").await.unwrap();
    ours.batch("BEGIN; SELECT 1").await.unwrap();
    let mut found = Vec::new();
    activity::open_transactions(&database.connection, Duration::ZERO, &mut found).await.unwrap();
    assert_eq!(found.len(), 1, "{found:?}");
    let said = one(&found, "(idle in transaction, test) has had a transaction open");
    assert!(!said.to_string().contains("4711"), "{said}");
    silent(&findings(&database, &spec("upsert", "")).await, "transaction open");
}

#[tokio::test]
async fn a_prepared_transaction_that_was_forgotten_is_named() {
    let server =
        scratch_postgres::ScratchPostgres::builder().setting("max_prepared_transactions", "2").start().unwrap();
    let connection =
        Server::new(server.url("postgres").parse().unwrap(), &Trust::System).unwrap().connect("test").await.unwrap();
    connection.batch("BEGIN; CREATE TABLE t (id int); PREPARE TRANSACTION 'it''s'").await.unwrap();
    let mut found = Vec::new();
    activity::open_transactions(&connection, Duration::ZERO, &mut found).await.unwrap();
    let remedy = &one(&found, "has had the prepared transaction it's for").remedy;
    connection.batch(remedy.split(", or ").nth(1).unwrap()).await.unwrap();
    found.clear();
    activity::open_transactions(&connection, Duration::ZERO, &mut found).await.unwrap();
    assert_eq!(found, []);
}

#[tokio::test]
async fn a_vacuum_that_is_running_is_named() {
    let database = Database::with(&format!(
        "{TABLES} INSERT INTO target SELECT g, g FROM generate_series(1, 100000) g; DELETE FROM target WHERE id % 2 = 0"
    ))
    .await;
    let other = database.another_connection().await;
    other.batch("SET vacuum_cost_delay = '100ms'; SET vacuum_cost_limit = 1").await.unwrap();
    let vacuum = tokio::spawn(async move { other.batch("VACUUM target").await });
    let start = std::time::Instant::now();
    let mut found = Vec::new();
    while !found.iter().any(|finding: &Finding| finding.fault.contains("in the middle of VACUUM on public.target")) {
        assert!(start.elapsed() < Duration::from_secs(30) && !vacuum.is_finished(), "{found:?}");
        found = findings(&database, &spec("upsert", "")).await;
    }
    assert_eq!(one(&found, "in the middle of VACUUM").at, "target.table");
    database
        .execute("SELECT pg_cancel_backend(pid) FROM pg_stat_progress_vacuum WHERE datname = current_database()")
        .await;
    assert!(vacuum.await.unwrap().is_err());
}

#[tokio::test]
async fn dead_space_missing_statistics_and_no_autovacuum_are_seen() {
    let database = Database::with(
        "CREATE TABLE target (id int PRIMARY KEY, n int) WITH (autovacuum_enabled = off);
         CREATE TABLE stage (id int PRIMARY KEY, n int) WITH (autovacuum_enabled = off);
         INSERT INTO stage SELECT g, g FROM generate_series(1, 50000) g; INSERT INTO target SELECT * FROM stage;
         DELETE FROM stage WHERE id > 100;",
    )
    .await;
    let dead = "SELECT n_dead_tup > 40000 FROM pg_stat_all_tables WHERE relid = 'stage'::regclass";
    let start = std::time::Instant::now();
    while database.value(dead).await != "true" {
        assert!(start.elapsed() < Duration::from_secs(30), "the server never counted its dead rows");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let found = findings(&database, &spec("upsert", "")).await;
    assert!(one(&found, "is mostly dead space").remedy.contains(r#"VACUUM (ANALYZE) "public"."stage""#));
    one(&found, r#"target.table has no statistics ("public"."target" was never analyzed)"#);
    one(&found, "stage.table has no statistics");
    assert_eq!(one(&found, "has autovacuum turned off").at, "target.table");
    database.execute("VACUUM FULL ANALYZE stage").await;
    database.execute("ANALYZE target; ALTER TABLE target RESET (autovacuum_enabled)").await;
    let start = std::time::Instant::now();
    while !findings(&database, &spec("upsert", "")).await.is_empty() {
        assert!(start.elapsed() < Duration::from_secs(30), "{:?}", findings(&database, &spec("upsert", "")).await);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn changes_that_dms_could_not_apply_to_the_stage_are_counted_and_not_shown() {
    for quote in ["\"", ""] {
        let name = |name: &str| if quote.is_empty() { name.to_lowercase() } else { format!("\"{name}\"") };
        let names = ["TASK_NAME", "TABLE_OWNER", "TABLE_NAME", "ERROR_TIME", "STATEMENT", "ERROR"].map(name);
        let database = Database::with(&format!(
            "{TABLES} CREATE TABLE public.awsdms_apply_exceptions ({} varchar(128), {} varchar(128), {} varchar(128), {} timestamp, {} text, {} text);
             INSERT INTO public.awsdms_apply_exceptions VALUES ('t', 'public', 'STAGE', '2026-01-02 03:04:05', 'secret-4711', 'secret-4711'),
                    ('t', 'public', 'stage', '2026-01-01', 'secret-4711', 'secret-4711'), ('t', 'public', 'other', '2026-02-02', '', '')",
            names[0], names[1], names[2], names[3], names[4], names[5]
        ))
        .await;
        let found = findings(&database, &spec("upsert", "")).await;
        let said = one(&found, "misses 2 change(s) that DMS could not apply to it, the newest at 2026-01-02 03:04:05");
        assert!(!said.to_string().contains("4711"), "{said}");
        assert_eq!(database.connection.query(&said.remedy, &[]).await.unwrap().len(), 2, "{said}");
    }
}

#[tokio::test]
async fn duplicate_keys_are_found_by_check_with_the_query_that_shows_them() {
    let database = Database::with(
        "CREATE TABLE target (id int PRIMARY KEY, n int); CREATE TABLE stage (id int, n int);
         INSERT INTO stage SELECT g % 90, g FROM generate_series(1, 100) g; INSERT INTO stage VALUES (NULL, 201), (NULL, 202);",
    )
    .await;
    for by in ["ctid", "key"] {
        let job = job(&format!(
            r#"{{"name": "dba", "stage": {{"table": "stage", "where": "stage.n <> 91 -- not that one"}}, "target": {{"table": "target", "key": ["id"]}},
                 "operation": "upsert", "chunks": {{"by": "{by}"}}}}"#
        ));
        let found = findings(&database, &job).await;
        let said = one(&found, "holds 9 target key(s) more than once");
        assert_eq!(said.severity, Severity::Error);
        let rows = database.connection.query(&said.remedy, &[]).await.unwrap();
        assert_eq!(rows.iter().filter(|row| row.get::<_, Option<i32>>(0).is_some()).count(), 9, "{said}");
    }
    let apart = spec("upsert", r#", "columns": {"id": "stage.n", "n": "1"}"#);
    silent(&findings(&database, &apart).await, "more than once");
}

#[tokio::test]
async fn a_plan_that_reads_the_whole_target_for_each_chunk_is_seen() {
    let database = Database::with(
        "CREATE TABLE target (id int PRIMARY KEY, n int); CREATE TABLE stage (id int PRIMARY KEY, n int);
         INSERT INTO target SELECT g, g FROM generate_series(1, 50000) g; INSERT INTO stage SELECT g, g FROM generate_series(1, 20000) g;
         ANALYZE stage, target",
    )
    .await;
    for by in ["ctid", "key"] {
        let chunks = format!(r#", "chunks": {{"by": "{by}"}}"#);
        let good = findings(&database, &spec("upsert", &chunks)).await;
        silent(&good, "is scanned");
        let subquery = r#", "columns": {"id": "stage.id", "n": "(SELECT count(*) FROM target t WHERE t.n > stage.n)"}"#;
        let found = findings(&database, &spec("upsert", &format!("{chunks}{subquery}"))).await;
        assert!(
            one(&found, "is scanned by each chunk").remedy.starts_with(r#"ANALYZE "public"."target""#),
            "{by} {found:?}"
        );
    }
}

#[tokio::test]
async fn a_run_looks_at_nothing_of_this_and_starts() {
    let database = Database::with(&format!(
        "{TABLES} CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
         CREATE TRIGGER t BEFORE INSERT ON target FOR EACH ROW EXECUTE FUNCTION f()"
    ))
    .await;
    let found = check::job(&database.connection, &spec("upsert", "")).await.unwrap().findings;
    assert!(found.is_empty(), "{found:?}");
}
