//! A watermark: a run takes what is newer than the last complete run took.

use stagemill_engine::{check, finding::Severity, job::Job, ledger::summary::Summary, outcome::Status};

use crate::database::{Database, job};

fn spec(watermark: &str, rest: &str) -> Job {
    job(&format!(
        r#"{{"name": "w", "stage": {{"table": "stage", "where": "stage.kind <> 'other'"}}, "target": {{"table": "target", "key": ["id"]}}, "operation": "upsert",
            "columns": {{"id": "stage.id", "n": "stage.n::int"}}, "watermark": {watermark}, "chunks": {{"rows": 30}}, "parallelism": 2{rest}}}"#
    ))
}

const BY_TIME: &str = r#"{"column": "loaded_at"}"#;

const TABLES: &str = "
    CREATE TABLE target (id int PRIMARY KEY, n int);
    CREATE TABLE stage (id int PRIMARY KEY, n text, kind text NOT NULL DEFAULT '', loaded_at timestamptz, seq text);
    INSERT INTO stage SELECT g, g, '', '2026-11-24 12:00Z'::timestamptz + g * interval '1 s', lpad(g::text, 35, '0') FROM generate_series(1, 100) g;";

async fn load(database: &Database, from: i32, to: i32) {
    database.execute(&format!("INSERT INTO stage SELECT g, g, '', '2026-11-24 12:00Z'::timestamptz + g * interval '1 s', lpad(g::text, 35, '0') FROM generate_series({from}, {to}) g")).await;
}

fn staged(summary: &Summary) -> (Status, i64) {
    (summary.status, summary.tally.counts.staged)
}

#[tokio::test]
async fn a_run_takes_what_is_newer_than_the_last_complete_run_took() {
    for watermark in [BY_TIME, r#"{"column": "seq"}"#, r#"{"column": "id"}"#] {
        for by in ["key", "ctid"] {
            let database = Database::with(TABLES).await;
            let mut spec = spec(watermark, "");
            spec.chunks.by =
                if by == "key" { stagemill_engine::job::ChunkBy::Key } else { stagemill_engine::job::ChunkBy::Ctid };
            assert_eq!(staged(&database.run(&spec).await), (Status::Complete, 100), "{watermark} {by}");
            let nothing = database.run(&spec).await;
            assert_eq!((staged(&nothing), nothing.window_high), ((Status::Complete, 0), nothing.window_low));
            load(&database, 101, 130).await;
            let summary = database.run(&spec).await;
            assert_eq!(staged(&summary), (Status::Complete, 30), "{watermark} {by}");
            assert!(
                summary.window_low.is_some()
                    && summary.window_high.is_some()
                    && summary.window_low != summary.window_high
            );
            assert_eq!(database.value("SELECT count(*) || ' ' || sum(n) FROM target").await, "130 8515");
        }
    }
}

#[tokio::test]
async fn what_a_failed_run_took_is_taken_again() {
    let database = Database::with(TABLES).await;
    database.run(&spec(BY_TIME, "")).await;
    load(&database, 101, 200).await;
    database.execute("UPDATE stage SET n = 'x' WHERE id = 150").await;
    assert_eq!(staged(&database.run(&spec(BY_TIME, "")).await).0, Status::Incomplete);
    database.execute("UPDATE stage SET n = '150' WHERE id = 150").await;
    load(&database, 201, 210).await;
    assert_eq!(staged(&database.run(&spec(BY_TIME, "")).await), (Status::Complete, 110));
    assert_eq!(database.value("SELECT count(*) FROM target WHERE n = id").await, "210");
}

#[tokio::test]
async fn rows_that_arrive_during_a_run_are_the_next_ones() {
    let database = Database::with(TABLES).await;
    let answer = database.planned(&spec(BY_TIME, ""), "me").await;
    load(&database, 101, 120).await;
    // Above the window, and so no change under the run.
    assert_eq!(staged(&database.drive(answer).await), (Status::Complete, 100));
    assert_eq!(staged(&database.run(&spec(BY_TIME, "")).await), (Status::Complete, 20));
}

#[tokio::test]
async fn an_overlap_takes_rows_that_were_committed_late() {
    let database = Database::with(TABLES).await;
    let overlapping = spec(r#"{"column": "loaded_at", "overlap": "10 seconds"}"#, "");
    database.run(&overlapping).await;
    database.execute("INSERT INTO stage VALUES (500, '1', '', '2026-11-24 12:01:35Z', '')").await;
    let summary = database.run(&overlapping).await;
    assert_eq!(staged(&summary), (Status::Complete, 11));
    assert_eq!(database.value("SELECT n FROM target WHERE id = 500").await, "1");
    let by_number = spec(r#"{"column": "id", "overlap": "5"}"#, "");
    database.execute("DELETE FROM stagemill.run; DELETE FROM stage WHERE id = 500").await;
    database.run(&by_number).await;
    assert_eq!(staged(&database.run(&by_number).await), (Status::Complete, 5));
    let nonsense = database.plan(&spec(r#"{"column": "id", "overlap": "soon"}"#, ""), "me").await.unwrap_err();
    assert!(nonsense.message().contains("watermark.overlap \"soon\""), "{nonsense}");
}

#[tokio::test]
async fn a_row_without_a_value_to_go_by_is_refused_unless_the_job_leaves_it_out() {
    let database = Database::with(TABLES).await;
    database.execute("UPDATE stage SET loaded_at = NULL WHERE id = 7").await;
    let refused = database.plan(&spec(BY_TIME, ""), "me").await.unwrap_err();
    assert!(refused.message().starts_with("1 staged row(s) have no \"loaded_at\""), "{refused}");
    database.execute("UPDATE stage SET kind = 'other' WHERE id = 7").await;
    assert_eq!(staged(&database.run(&spec(BY_TIME, "")).await), (Status::Complete, 99));
}

#[tokio::test]
async fn check_names_what_a_watermark_can_lose_or_repeat() {
    let database = Database::with(TABLES).await;
    let found = async |spec: &Job| {
        let findings = check::job(&database.connection, spec).await.unwrap().findings;
        findings.into_iter().map(|f| (f.severity, f.at)).collect::<Vec<_>>()
    };
    assert_eq!(found(&spec(BY_TIME, "")).await, [(Severity::Warning, "watermark".to_owned())]);
    assert_eq!(found(&spec(r#"{"column": "loaded_at", "overlap": "1 min"}"#, "")).await, []);
    assert_eq!(found(&spec(r#"{"column": "nope"}"#, "")).await, [(Severity::Error, "watermark.column".to_owned())]);
    let mut adding = spec(r#"{"column": "loaded_at", "overlap": "1 min"}"#, "");
    adding.columns = serde_json::from_str(r#"{"id": "stage.id", "n": {"update": "target.n + stage.n::int"}}"#).unwrap();
    assert_eq!(found(&adding).await, [(Severity::Error, "columns.n".to_owned())]);
}
