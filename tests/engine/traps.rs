//! Tables and jobs that once gave a wrong result, or would have.

use stagemill_engine::{
    check,
    failure::Class,
    ledger,
    outcome::Status,
    plan::{self, Started},
    resume,
};

use crate::database::{Database, job};

fn spec(stage: &str, target: &str, operation: &str, rest: &str) -> stagemill_engine::job::Job {
    job(&format!(
        r#"{{"name": "trap", "stage": {{"table": "{stage}"}}, "target": {{"table": "{target}", "key": ["id"]}}, "operation": "{operation}"{rest}}}"#
    ))
}

const ROWS: &str = "CREATE TABLE target (id int PRIMARY KEY, n int); INSERT INTO target SELECT g, 0 FROM generate_series(1, 10) g;
                    CREATE TABLE stage (id int PRIMARY KEY, n int); INSERT INTO stage SELECT g, g FROM generate_series(1, 20) g;";

/// What keeps a job from running, or what made its run end otherwise than complete.
async fn why_not(database: &Database, spec: &stagemill_engine::job::Job) -> String {
    match database.plan(spec, "me").await {
        Err(failure) => format!("{failure:?}"),
        Ok(Started::Run(answer)) => {
            let summary = database.drive(answer).await;
            assert_ne!(summary.status, Status::Complete);
            summary.error.unwrap_or_default()
        }
        Ok(taken) => panic!("{taken:?}"),
    }
}

#[tokio::test]
async fn tables_of_any_name_can_be_read_by_an_expression() {
    let tables: String = ["s", "u", "i", "d", "t", "boundary", "sample", "low", "keys", "halfway"]
        .map(|name| format!("CREATE TABLE {name} AS SELECT 1000 AS n;"))
        .concat();
    let database = Database::with(&format!("{ROWS}{tables}")).await;
    let value = r#""(SELECT max(s.n) + max(u.n) + max(i.n) + max(d.n) + max(t.n) FROM s, u, i, d, t)""#;
    let summary = database
        .run(&spec(
            "stage",
            "target",
            "upsert",
            &format!(r#", "columns": {{"id": "stage.id", "n": {value}}}, "chunks": {{"by": "key", "rows": 5}}"#),
        ))
        .await;
    assert_eq!(summary.status, Status::Complete);
    assert_eq!(database.value("SELECT count(*) FROM target WHERE n = 5000").await, "20");
}

#[tokio::test]
async fn a_whole_row_is_the_staged_row_and_nothing_more() {
    let database = Database::with("CREATE TABLE target (id int PRIMARY KEY, n text); CREATE TABLE stage (id int PRIMARY KEY, n int); INSERT INTO stage VALUES (1, 2);").await;
    database
        .run(&spec("stage", "target", "upsert", r#", "columns": {"id": "stage.id", "n": "to_jsonb(stage)::text"}"#))
        .await;
    assert_eq!(database.value("SELECT n FROM target").await, r#"{"n": 2, "id": 1}"#);
}

#[tokio::test]
async fn tables_that_inherit_bring_rows_that_no_index_of_the_parent_knows() {
    let database = Database::with(&format!(
        "{ROWS} CREATE TABLE child () INHERITS (stage); INSERT INTO child VALUES (1, 1);
         -- From PostgreSQL 18 on a child keeps the parent's NOT NULL.
         DO $$ BEGIN ALTER TABLE child ALTER id DROP NOT NULL; INSERT INTO child VALUES (NULL, 5);
         EXCEPTION WHEN invalid_table_definition THEN INSERT INTO child VALUES (21, 5); END $$;"
    ))
    .await;
    for by in ["ctid", "key"] {
        let error =
            why_not(&database, &spec("stage", "target", "update", &format!(r#", "chunks": {{"by": "{by}"}}"#))).await;
        assert!(error.contains("staged more than once"), "{by}: {error}");
        database.execute("DELETE FROM stagemill.run").await;
    }
    database.execute("DELETE FROM child WHERE id = 1").await;
    let summary = database.run(&spec("stage", "target", "update", r#", "chunks": {"by": "key"}"#)).await;
    assert_eq!((summary.status, summary.tally.counts.staged), (Status::Complete, 21));
    database.execute("CREATE TABLE heir () INHERITS (target)").await;
    let refused = why_not(&database, &spec("stage", "target", "update", "")).await;
    assert!(refused.contains("target.key (id) has no unique index"), "{refused}");
}

#[tokio::test]
async fn a_foreign_partition_is_staged_too() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("rows.csv");
    std::fs::write(&file, "101,1\n102,1\n").unwrap();
    for (path, mode) in [(folder.path(), 0o755), (&file, 0o644)] {
        std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
    }
    let database = Database::with(&format!(
        "CREATE EXTENSION file_fdw; CREATE SERVER files FOREIGN DATA WRAPPER file_fdw; CREATE TABLE target (id int PRIMARY KEY, n int);
         CREATE TABLE stage (id int, n int) PARTITION BY RANGE (id); CREATE TABLE near PARTITION OF stage FOR VALUES FROM (0) TO (100);
         CREATE FOREIGN TABLE far PARTITION OF stage FOR VALUES FROM (100) TO (200) SERVER files OPTIONS (filename '{}', format 'csv');
         INSERT INTO stage SELECT g, 1 FROM generate_series(1, 5) g;",
        file.display()
    ))
    .await;
    assert_eq!(database.run(&spec("stage", "target", "upsert", "")).await.tally.counts.staged, 7);
}

#[tokio::test]
async fn another_table_under_the_stages_name_is_not_the_stage() {
    let database = Database::with(&format!(
        "{ROWS} CREATE TABLE stage_new (LIKE stage INCLUDING ALL); INSERT INTO stage_new VALUES (99, 99);"
    ))
    .await;
    let answer = database.planned(&spec("stage", "target", "upsert", r#", "chunks": {"by": "ctid"}"#), "me").await;
    database.execute("ALTER TABLE stage RENAME TO stage_old; ALTER TABLE stage_new RENAME TO stage").await;
    assert_eq!(database.drive(answer).await.status, Status::SourceChanged);
    assert_eq!(database.value("SELECT count(*) FROM target WHERE n <> 0").await, "0");
}

#[tokio::test]
async fn a_run_is_not_resumed_over_a_stage_that_was_loaded_anew() {
    let database = Database::with(&format!("{ROWS} ALTER TABLE target ADD CHECK (n <> 13);")).await;
    assert_eq!(database.run(&spec("stage", "target", "upsert", "")).await.status, Status::Incomplete);
    database.execute("TRUNCATE stage; INSERT INTO stage SELECT g, 2 FROM generate_series(1, 20) g").await;
    let refused = resume::run(&database.connection, 1, "me", false).await.unwrap_err();
    assert_eq!(refused.class, Class::SourceChanged);
}

#[tokio::test]
async fn what_a_trigger_raises_is_its_chunks_failure_and_is_not_logged() {
    for code in ["P0001", "U0001", "P0002", "45000"] {
        let database = Database::with(&format!(
            "{ROWS} CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                 IF NEW.id = 15 THEN RAISE EXCEPTION 'account 471147' USING ERRCODE = '{code}', HINT = '471147'; END IF; RETURN NEW; END $$;
             CREATE TRIGGER refuse BEFORE INSERT ON target FOR EACH ROW EXECUTE FUNCTION refuse();"
        ))
        .await;
        let summary = database.run(&spec("stage", "target", "upsert", r#", "chunks": {"rows": 5}"#)).await;
        assert_eq!(
            (summary.status, summary.tally.failed, summary.tally.processed),
            (Status::Incomplete, 1, 3),
            "{code}"
        );
        assert!(!summary.error.as_ref().unwrap().contains("471147"), "{summary:?}");
        assert_eq!(
            database
                .value(
                    "SELECT count(*) FROM stagemill.chunk WHERE detail LIKE '%471147%' AND error NOT LIKE '%471147%'"
                )
                .await,
            "1"
        );
    }
}

#[tokio::test]
async fn two_spellings_that_the_targets_collation_takes_for_one_are_duplicates() {
    let database = Database::with(
        "CREATE COLLATION ci (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
         CREATE TABLE target (id text COLLATE ci PRIMARY KEY, n int); INSERT INTO target VALUES ('a', 0);
         CREATE TABLE stage (id text PRIMARY KEY, n int); INSERT INTO stage VALUES ('a', 1), ('A', 1);",
    )
    .await;
    let error =
        why_not(&database, &spec("stage", "target", "update", r#", "chunks": {"by": "ctid", "rows": 1}"#)).await;
    assert!(error.contains("staged more than once"), "{error}");
}

#[tokio::test]
async fn a_lock_on_the_stage_is_waited_for_and_no_fault_of_the_job() {
    let database = Database::with(ROWS).await;
    let other = database.another_connection().await;
    other.batch("BEGIN; LOCK TABLE stage").await.unwrap();
    let failure = database
        .plan(&spec("stage", "target", "upsert", r#", "session": {"lock_timeout": "1100ms"}"#), "me")
        .await
        .unwrap_err();
    assert_eq!(failure.class, Class::Overloaded);
}

#[tokio::test]
async fn a_job_whose_stage_is_its_target_is_not_cut_into_blocks() {
    let database = Database::with(ROWS).await;
    let increment = r#", "columns": {"id": "stage.id", "n": "target.n + 1"}, "chunks": {"by": "ctid", "rows": 1}"#;
    let error = why_not(&database, &spec("target", "target", "update", increment)).await;
    assert!(error.contains("is the target too"), "{error}");
    database.run(&spec("target", "target", "update", &increment.replace("ctid", "key"))).await;
    assert_eq!(database.value("SELECT count(*) FROM target WHERE n = 1").await, "10");
}

#[tokio::test]
async fn names_and_types_are_looked_up_in_the_jobs_search_path() {
    let database = Database::with(
        "CREATE SCHEMA app; CREATE TYPE app.mood AS ENUM ('a', 'b', 'c'); CREATE TABLE app.target (id app.mood PRIMARY KEY, n int);
         CREATE TABLE app.stage (id app.mood PRIMARY KEY, n int); INSERT INTO app.stage VALUES ('a', 1), ('c', 2);",
    )
    .await;
    for (stage, target, path) in
        [("stage", "target", "app"), ("app.stage", "app.target", "app"), ("app.stage", "app.target", "public")]
    {
        let rest = format!(r#", "session": {{"search_path": "{path}"}}, "chunks": {{"by": "key", "rows": 1}}"#);
        assert_eq!(
            database.run(&spec(stage, target, "upsert", &rest)).await.status,
            Status::Complete,
            "{stage} {path}"
        );
    }
}

#[tokio::test]
async fn a_key_of_a_domain_is_a_key_and_one_that_is_cut_short_is_warned_of() {
    let database = Database::with(
        "CREATE DOMAIN code AS int; CREATE TABLE target (id int PRIMARY KEY, n int); CREATE TABLE stage (id code PRIMARY KEY, n int); INSERT INTO stage VALUES (1, 1);
         CREATE TABLE short (id varchar(3) PRIMARY KEY, n int); CREATE TABLE long (id varchar(10) PRIMARY KEY, n int);
         CREATE TABLE day (id date PRIMARY KEY, n int); CREATE TABLE moment (id timestamp PRIMARY KEY, n int);",
    )
    .await;
    assert_eq!(database.run(&spec("stage", "target", "upsert", "")).await.status, Status::Complete);
    for (stage, target, fault) in [("long", "short", "fails"), ("moment", "day", "can't be used to find the rows")] {
        let checked = check::job(&database.connection, &spec(stage, target, "upsert", "")).await.unwrap();
        assert!(
            checked.findings.iter().any(|finding| finding.at == "columns.id" && finding.fault.contains(fault)),
            "{:?}",
            checked.findings
        );
    }
}

#[tokio::test]
async fn the_privilege_on_each_partition_is_checked() {
    let database = Database::with(
        "CREATE TABLE target (id int PRIMARY KEY, n int); CREATE TABLE stage (id int, n int) PARTITION BY RANGE (id);
         CREATE TABLE part PARTITION OF stage FOR VALUES FROM (0) TO (100); DO $$ BEGIN CREATE ROLE limited; EXCEPTION WHEN duplicate_object THEN END $$;
         GRANT SELECT ON stage TO limited; GRANT ALL ON target TO limited; SET ROLE limited",
    )
    .await;
    let checked = check::job(&database.connection, &spec("stage", "target", "upsert", "")).await.unwrap();
    assert!(
        checked.findings.iter().any(|finding| finding.remedy == r#"GRANT SELECT ON "public"."part" TO "limited""#),
        "{:?}",
        checked.findings
    );
}

#[tokio::test]
async fn the_chunks_statement_timeout_is_not_the_plans() {
    let database = Database::with(&format!(
        "{ROWS} CREATE FUNCTION slowly() RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(0.1); RETURN true; END $$;"
    ))
    .await;
    let mut slow = spec(
        "stage",
        "target",
        "upsert",
        r#", "session": {"statement_timeout": "1100ms"}, "chunks": {"by": "ctid", "rows": 5}"#,
    );
    slow.stage.filter = Some("slowly()".into());
    assert!(matches!(database.plan(&slow, "me").await.unwrap(), Started::Run(_)));
}

#[tokio::test]
async fn hash_and_merge_joins_are_turned_off_where_a_chunk_would_scan_the_target_and_never_for_a_view() {
    let database = Database::with(
        "CREATE TABLE target (id int PRIMARY KEY, n int, pad text); INSERT INTO target SELECT g, 0, repeat('x', 50) FROM generate_series(1, 100000) g;
         CREATE TABLE stage (id int PRIMARY KEY, n int); INSERT INTO stage SELECT g * 4, g FROM generate_series(1, 25000) g;
         CREATE VIEW staged AS SELECT * FROM stage; ANALYZE;",
    )
    .await;
    for (stage, rows, off) in [("stage", 5_000, true), ("staged", 5_000, false)] {
        let spec = spec(stage, "target", "update", &format!(r#", "chunks": {{"rows": {rows}}}, "parallelism": 1"#));
        let (mapping, table) = check::job(&database.connection, &spec).await.unwrap().into_runnable().unwrap();
        let mapping = plan::cut(&database.connection, &mapping, &table, &spec).await.unwrap().mapping;
        assert_eq!(mapping.settings.contains_key("enable_mergejoin"), off, "{stage} {rows}");
    }
}

#[tokio::test]
async fn an_owner_that_lost_its_run_can_neither_interrupt_nor_halt_it() {
    let database = Database::with(ROWS).await;
    database.planned(&spec("stage", "target", "upsert", ""), "old").await;
    resume::run(&database.connection, 1, "new", true).await.unwrap();
    ledger::run::interrupt(&database.connection, 1, "old").await.unwrap();
    let failure = stagemill_engine::failure::Failure::new(Class::BadJob, "of the old round");
    ledger::run::halt(&database.connection, 1, 1, &failure).await.unwrap();
    assert_eq!(database.value("SELECT concat_ws(' ', owner, status, halted) FROM stagemill.run").await, "new RUNNING");
}
