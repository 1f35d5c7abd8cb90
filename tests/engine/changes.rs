//! Deletes, and changes of which the newest wins.

use stagemill_engine::{failure::Class, job::Job, ledger::summary::Summary, outcome::Status, plan::Started};

use crate::database::{Database, job};

fn changes(rest: &str) -> Job {
    job(&format!(
        r#"{{"name": "changes", "stage": {{"table": "stage"}}, "target": {{"table": "target", "key": ["id"]}}, "operation": "changes",
            "columns": {{"id": "stage.id", "n": "stage.n"}}, "chunks": {{"rows": 50}}, "parallelism": 4{rest}}}"#
    ))
}

const RULES: &str = r#", "changes": {"operation": "op", "order": "seq"}"#;
const GUARDED: &str = r#", "changes": {"operation": "op", "order": "seq", "guard": "last_seq"}"#;

/// A target of rows 1 to 100 with n = 0, and an empty stage with a DMS sequence of 35 digits as text.
const TABLES: &str = "
    CREATE TABLE target (id int PRIMARY KEY, n int, last_seq numeric(38)); INSERT INTO target SELECT g, 0 FROM generate_series(1, 100) g;
    CREATE TABLE stage (id int, n int, op text, seq text); CREATE INDEX ON stage (id);";

async fn with(changes: &str) -> Database {
    Database::with(&format!("{TABLES} INSERT INTO stage (id, n, op, seq) VALUES {changes}")).await
}

async fn target(database: &Database) -> String {
    database
        .value("SELECT string_agg(id || '=' || n, ' ' ORDER BY id) FROM target WHERE n <> 0 OR id > 100 OR id < 1")
        .await
}

fn counts(summary: &Summary) -> [i64; 6] {
    let counts = &summary.tally.counts;
    [counts.staged, counts.inserted, counts.updated, counts.deleted, counts.unchanged, counts.skipped]
}

/// What made a run end otherwise than complete.
async fn why_not(database: &Database, spec: &Job) -> (Option<String>, String) {
    match database.plan(spec, "me").await {
        Err(failure) => (Some(format!("{:?}", failure.class)), failure.to_string()),
        Ok(Started::Run(answer)) => {
            let summary = database.drive(answer).await;
            assert!(!summary.status.is_success(), "{summary:?}");
            (summary.error_class, summary.error.unwrap_or_default())
        }
        Ok(taken) => panic!("{taken:?}"),
    }
}

#[tokio::test]
async fn changes_of_a_key_alone_have_nothing_to_update() {
    let database = with("(1, 1, 'I', '1')").await;
    let mut spec = changes(RULES);
    spec.columns = job(r#"{"name": "c", "stage": {"table": "s"}, "target": {"table": "t", "key": ["id"]}, "operation": "insert", "columns": ["id"]}"#).columns;
    let (class, text) = why_not(&database, &spec).await;
    assert_eq!(class.as_deref(), Some("BadJob"));
    assert!(text.contains("has nothing to update") && text.contains("or a guard"), "{text}");
}

#[tokio::test]
async fn delete_removes_the_rows_whose_key_is_staged_and_counts_those_that_are_not_there() {
    for by in ["key", "ctid"] {
        let database =
            Database::with(&format!("{TABLES} INSERT INTO stage (id) SELECT g FROM generate_series(91, 200) g")).await;
        let text = format!(
            r#"{{"name": "d", "stage": {{"table": "stage"}}, "target": {{"table": "target", "key": ["id"]}}, "operation": "delete", "chunks": {{"by": "{by}", "rows": 20}}}}"#
        );
        let summary = database.run(&job(&text)).await;
        assert_eq!((summary.status, counts(&summary)), (Status::Complete, [110, 0, 0, 10, 0, 100]));
        assert_eq!(database.value("SELECT max(id) || ' ' || count(*) FROM target").await, "90 90");
    }
}

#[tokio::test]
async fn the_newest_change_of_a_key_wins_by_the_sequence_as_a_number() {
    // As text '9' would be greater than '10'; the long ones are beyond a bigint.
    let database = with("(1, 9, 'U', '9'), (1, 10, 'U', '10'), (2, 7, 'U', '20261124000000000000000000000000002'), (2, 8, 'U', '20261124000000000000000000000000001'),
                         (3, 1, 'I', '1'), (3, NULL, 'D', '2'), (4, NULL, 'D', '1'), (4, 4, 'I', '2'), (101, 1, 'I', '1'), (101, 2, 'U', '2'),
                         (102, NULL, 'D', '5'), (5, 5, 'U', NULL), (6, 6, 'I', '1'), (6, 66, 'I', NULL)").await;
    let summary = database.run(&changes(RULES)).await;
    assert_eq!(summary.status, Status::Complete, "{:?}", summary.error);
    assert_eq!(target(&database).await, "1=10 2=7 4=4 5=5 6=6 101=2");
    assert_eq!(database.value("SELECT count(*) FROM target WHERE id = 3").await, "0");
    // Six were superseded, and there was no 102 to delete.
    assert_eq!(counts(&summary), [14, 1, 5, 1, 0, 7]);
}

#[tokio::test]
async fn all_changes_of_a_key_lie_in_one_chunk_and_block_ranges_are_refused() {
    let database = Database::with(&format!(
        "{TABLES} INSERT INTO stage SELECT g % 40, g, 'U', lpad(g::text, 35, '0') FROM generate_series(1, 1000) g ORDER BY md5(g::text)"
    ))
    .await;
    let summary = database.run(&changes(RULES)).await;
    assert_eq!((summary.status, summary.tally.counts.skipped, summary.tally.chunks > 8), (Status::Complete, 960, true));
    assert_eq!(database.value("SELECT count(*) FROM target WHERE n > 960 AND n % 40 = id").await, "40");
    let mut by_block = changes(RULES);
    by_block.chunks.by = stagemill_engine::job::ChunkBy::Ctid;
    assert!(why_not(&database, &by_block).await.1.contains("changes of one key lie in two chunks"));
}

#[tokio::test]
async fn indicators_are_the_jobs_own() {
    let database = with("(1, 1, 'insert', '1'), (2, 2, 'update', '1'), (3, 3, 'delete', '1')").await;
    let rules = r#", "changes": {"operation": "op", "order": "seq", "insert": "insert", "update": "update", "delete": "delete"}"#;
    let summary = database.run(&changes(rules)).await;
    assert_eq!((summary.status, counts(&summary)), (Status::Complete, [3, 0, 2, 1, 0, 0]));
}

#[tokio::test]
async fn what_is_no_change_fails_its_chunk_and_says_why() {
    for bad in ["(1, 1, 'X', '1')", "(1, 1, NULL, '1')", "(NULL, 1, 'U', '1')", "(1, 1, 'U', 'ten')"] {
        let database = with(bad).await;
        let (class, error) = why_not(&database, &changes(RULES)).await;
        assert!(
            error.contains("BadData") && error.contains("1 staged change(s) can't be used"),
            "{bad}: {class:?} {error}"
        );
        assert!(!error.contains("ten"), "{error}");
    }
}

#[tokio::test]
async fn two_changes_of_one_order_are_an_error_unless_they_say_the_same() {
    let same = with("(1, 7, 'U', '5'), (1, 7, 'U', '5'), (2, 1, 'U', NULL), (2, 1, 'U', NULL)").await;
    let summary = same.run(&changes(RULES)).await;
    assert_eq!((summary.status, counts(&summary)), (Status::Complete, [4, 0, 2, 0, 0, 2]));
    // What the job does not use is no matter, nor is whether the row is called an insert or an update.
    let unused = with("(1, 7, 'U', '5'), (1, 7, 'I', '5.0'), (2, 1, 'D', '3'), (2, 2, 'D', '3')").await;
    unused.execute("ALTER TABLE stage ADD loaded serial").await;
    let summary = unused.run(&changes(RULES)).await;
    assert_eq!((summary.status, counts(&summary)), (Status::Complete, [4, 0, 1, 1, 0, 2]), "{:?}", summary.error);
    let (class, _) = why_not(&with("(1, 7, 'U', '5'), (1, 7, 'D', '5')").await, &changes(RULES)).await;
    assert_eq!(class.as_deref(), Some("DuplicateKeys"));
    // An older tie is no matter; the newest is.
    let old = with("(1, 1, 'U', '5'), (1, 2, 'U', '5'), (1, 3, 'U', '6')").await;
    assert_eq!(old.run(&changes(RULES)).await.status, Status::Complete);
    let tie = with("(1, 1, 'U', '5'), (1, 2, 'U', '5')").await;
    let (class, error) = why_not(&tie, &changes(RULES)).await;
    assert_eq!(class.as_deref(), Some("DuplicateKeys"));
    assert!(error.contains("two different changes of the same order") && error.contains("GROUP BY"), "{error}");
}

#[tokio::test]
async fn the_guard_refuses_what_is_not_newer_than_the_target_across_runs() {
    let database = with("(1, 10, 'U', '10'), (2, NULL, 'D', '10'), (3, 3, 'U', '10'), (101, 1, 'I', '10')").await;
    database.run(&changes(GUARDED)).await;
    assert_eq!(
        database
            .value("SELECT string_agg(id || ':' || last_seq, ' ' ORDER BY id) FROM target WHERE last_seq IS NOT NULL")
            .await,
        "1:10 3:10 101:10"
    );
    // A late batch: an older update, an equal one, a newer one, an older delete, a change without an order.
    database
        .execute("TRUNCATE stage; INSERT INTO stage VALUES (1, 9, 'U', '9'), (3, 4, 'U', '10'), (101, 2, 'U', '11'), (1, NULL, 'D', '8'), (4, 4, 'U', NULL), (3, 5, 'U', NULL)")
        .await;
    let summary = database.run(&changes(GUARDED)).await;
    assert_eq!((summary.status, target(&database).await.as_str()), (Status::Complete, "1=10 3=3 4=4 101=2"));
    // Superseded: 1's delete and 3's without an order. Refused as older: 1's update. Just this: 3's.
    assert_eq!(counts(&summary), [6, 0, 2, 0, 1, 3]);
    database.execute("TRUNCATE stage; INSERT INTO stage VALUES (101, NULL, 'D', '11'), (3, NULL, 'D', '9'), (1, NULL, 'D', '12')").await;
    let summary = database.run(&changes(GUARDED)).await;
    assert_eq!((counts(&summary), target(&database).await.as_str()), ([3, 0, 0, 1, 1, 1], "3=3 4=4 101=2"));
}

#[tokio::test]
async fn a_change_that_changes_nothing_but_its_order_moves_the_guard() {
    let database = with("(1, 0, 'U', '10')").await;
    let spec = changes(&format!(r#"{GUARDED}, "skip_unchanged": true"#));
    database.run(&spec).await;
    database.execute("TRUNCATE stage; INSERT INTO stage VALUES (1, 9, 'U', '9')").await;
    assert_eq!((counts(&database.run(&spec).await), target(&database).await.as_str()), ([1, 0, 0, 0, 0, 1], "NULL"));
}

#[tokio::test]
async fn a_guard_of_text_is_compared_as_a_number_too() {
    let database = with("(1, 10, 'U', '10')").await;
    database
        .execute("ALTER TABLE target ALTER last_seq TYPE text; UPDATE target SET last_seq = '9' WHERE id = 1")
        .await;
    let summary = database.run(&changes(GUARDED)).await;
    assert_eq!(
        (counts(&summary)[2], database.value("SELECT last_seq FROM target WHERE id = 1").await.as_str()),
        (1, "10")
    );
}

#[tokio::test]
async fn a_run_that_would_delete_too_much_is_refused_before_it_deletes_anything() {
    let staged = format!(
        "{TABLES} INSERT INTO stage SELECT g, 1, CASE WHEN g <= 30 THEN 'D' ELSE 'U' END, g::text FROM generate_series(1, 100) g;
         INSERT INTO stage SELECT g, 1, 'D', '0' FROM generate_series(50, 90) g;"
    );
    for (limit, fits) in [("29", false), ("30", true), (r#""21%""#, false), (r#""22%""#, true)] {
        let database = Database::with(&staged).await;
        let spec = changes(&format!(r#"{RULES}, "max_deletes": {limit}"#));
        if fits {
            let summary = database.run(&spec).await;
            assert_eq!((summary.status, summary.tally.counts.deleted), (Status::Complete, 30), "{limit}");
        } else {
            let (class, error) = why_not(&database, &spec).await;
            assert_eq!(class.as_deref(), Some("LimitExceeded"));
            assert!(error.contains("could delete 30 rows") && error.contains("nothing was applied"), "{error}");
            assert_eq!(database.value("SELECT count(*) FROM target WHERE n = 0").await, "100");
            assert_eq!(
                database.value("SELECT status || ' ' || error_class FROM stagemill.run").await,
                "FAILED LimitExceeded"
            );
        }
    }
}

#[tokio::test]
async fn a_chunk_that_would_delete_more_than_was_counted_is_rolled_back() {
    let database = with("(1, 1, 'U', '1'), (2, 1, 'D', '1')").await;
    let answer = database.planned(&changes(&format!(r#"{RULES}, "max_deletes": 50"#)), "me").await;
    database.execute("UPDATE stage SET op = 'D'").await;
    let summary = database.drive(answer).await;
    assert_eq!((summary.status, summary.error_class.as_deref()), (Status::SourceChanged, Some("SourceChanged")));
    assert_eq!(database.value("SELECT count(*) FROM target").await, "100");
    assert_eq!(Class::of_error_name("Stagemill.LimitExceeded"), Class::LimitExceeded);
}
