//! Rows that can't be applied are set aside, and the others of their chunk are applied.

use stagemill_engine::{
    failure::Class, job::Job, ledger, ledger::summary::Summary, outcome::Status, plan::Started, resume,
};

use crate::database::{Database, job};

fn spec(rest: &str) -> Job {
    job(&format!(
        r#"{{"name": "q", "stage": {{"table": "stage"}}, "target": {{"table": "target", "key": ["id"]}}, "operation": "upsert",
            "columns": {{"id": "stage.id", "n": "stage.n::int"}}, "on_bad_row": "quarantine", "parallelism": 3{rest}}}"#
    ))
}

const TEN: &str = r#", "max_rejects": 10, "chunks": {"by": "key", "rows": 100}"#;

/// 1,000 rows, half of which the target has.
const TABLES: &str = "
    CREATE TABLE target (id int PRIMARY KEY, n int NOT NULL CHECK (n <> 13)); INSERT INTO target SELECT g, 0 FROM generate_series(1, 500) g;
    CREATE TABLE stage (id int PRIMARY KEY, n text); INSERT INTO stage SELECT g, g + 1000 FROM generate_series(1, 1000) g;";

async fn rejected(database: &Database) -> String {
    database
        .value("SELECT string_agg(concat_ws(' ', staged_row ->> 'id', sqlstate, constraint_name, column_name), ', ' ORDER BY (staged_row ->> 'id')::int) FROM stagemill.reject WHERE retried_in IS NULL")
        .await
}

async fn retry(database: &Database) -> Summary {
    let answer = resume::rejects(&database.connection, 1, "retry").await.unwrap();
    database.drive(answer).await
}

#[tokio::test]
async fn bad_rows_are_set_aside_with_what_is_wrong_and_the_rest_is_applied() {
    for by in ["key", "ctid"] {
        let database = Database::with(TABLES).await;
        database.execute("UPDATE stage SET n = 'planted 4711' WHERE id IN (7, 901); UPDATE stage SET n = '13' WHERE id = 8; UPDATE stage SET n = NULL WHERE id = 600").await;
        let summary =
            database.run(&spec(&format!(r#", "max_rejects": "1%", "chunks": {{"by": "{by}", "rows": 100}}"#))).await;
        assert_eq!((summary.status, summary.error), (Status::CompleteWithRejects, None));
        let counts = summary.tally.counts;
        assert_eq!((counts.staged, counts.inserted, counts.updated, counts.rejected), (1_000, 498, 498, 4));
        assert_eq!(rejected(&database).await, "7 22P02, 8 23514 target_n_check, 600 23502 n, 901 22P02");
        assert_eq!(database.value("SELECT count(*) FROM target WHERE n = id + 1000").await, "996");
        // The row and the server's words are here; the message has no values.
        assert_eq!(database.value("SELECT count(*) FROM stagemill.reject WHERE error LIKE '%4711%'").await, "0");
        assert_eq!(database.value("SELECT count(*) FROM stagemill.reject WHERE staged_row ->> 'n' LIKE '%4711%' AND detail LIKE '%4711%' AND NOT staged_row ? 'stagemill number'").await, "2");
        assert_eq!(ledger::reject::list(&database.connection, 1, 100).await.unwrap().len(), 4);
        assert_eq!(database.value("SELECT status FROM stagemill.dba_parallel_execute_tasks").await, "FINISHED");
    }
}

#[tokio::test]
async fn one_bad_row_among_5000_costs_about_thirty_statements() {
    for bad in [1, 2_500, 4_999, 5_000] {
        let database = Database::with(
            "CREATE TABLE target (id int PRIMARY KEY, n int); CREATE TABLE stage (id int PRIMARY KEY, n text); INSERT INTO stage SELECT g, g FROM generate_series(1, 5000) g;
             CREATE SEQUENCE statements; CREATE FUNCTION tally() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM nextval('statements'); RETURN NULL; END $$;
             CREATE TRIGGER tally BEFORE INSERT ON target FOR EACH STATEMENT EXECUTE FUNCTION tally();",
        )
        .await;
        database.execute(&format!("UPDATE stage SET n = 'x' WHERE id = {bad}")).await;
        let one = r#", "max_rejects": 10, "chunks": {"by": "sql", "query": "SELECT 1, 5000"}"#;
        let summary = database.run(&spec(one)).await;
        assert_eq!(
            (summary.status, summary.tally.chunks, summary.tally.counts.inserted),
            (Status::CompleteWithRejects, 1, 4_999),
            "{bad}"
        );
        let statements: i64 = database.value("SELECT last_value FROM statements").await.parse().unwrap();
        assert!(statements <= 30, "{statements} statements");
    }
}

#[tokio::test]
async fn over_the_maximum_the_run_fails_and_says_so() {
    let database = Database::with(TABLES).await;
    database.execute("UPDATE stage SET n = 'x' WHERE id % 80 = 0").await;
    // One after the other, so that the first ten are set aside.
    let summary = database.run(&Job { parallelism: 1.into(), ..spec(TEN) }).await;
    assert_eq!((summary.status, summary.error_class.as_deref()), (Status::Failed, Some("LimitExceeded")));
    let error = summary.error.unwrap();
    assert!(error.contains("more than max_rejects (10) rows") && error.contains("not valid for its type"), "{error}");
    assert!(summary.tally.counts.rejected <= 10);
    // Mended, the run goes on.
    database.execute("UPDATE stage SET n = '1' WHERE n = 'x'").await;
    let answer = resume::run(&database.connection, 1, "again", false).await.unwrap();
    let summary = database.drive(answer).await;
    assert_eq!((summary.status, summary.tally.counts.staged), (Status::CompleteWithRejects, 1_000), "{summary:?}");
    // What was set aside was mended with the rest, which is no change under the run.
    assert_eq!(retry(&database).await.status, Status::Complete);
    assert_eq!(
        database.value("SELECT count(*) FROM target t JOIN stage s USING (id) WHERE t.n = s.n::int").await,
        "1000"
    );
}

#[tokio::test]
async fn rows_that_only_wait_for_another_chunk_are_not_bad() {
    let database = Database::with(
        "CREATE TABLE target (id int PRIMARY KEY, parent int REFERENCES target, n int);
         CREATE TABLE stage (id int PRIMARY KEY, parent int, n text); INSERT INTO stage SELECT g, nullif(201 - g, g), g FROM generate_series(1, 200) g;
         UPDATE stage SET parent = NULL WHERE id > 100; UPDATE stage SET parent = 5000 WHERE id = 50;",
    )
    .await;
    let mut spec = spec(r#", "max_rejects": 10, "chunks": {"rows": 50}"#);
    spec.columns = None;
    spec.columns =
        serde_json::from_str(r#"{"id": "stage.id", "parent": "stage.parent", "n": "stage.n::int"}"#).unwrap();
    spec.parallelism = 1.into();
    let summary = database.run(&spec).await;
    assert_eq!((summary.status, summary.tally.counts.inserted), (Status::CompleteWithRejects, 199));
    assert_eq!(rejected(&database).await, "50 23503 target_parent_fkey");
}

#[tokio::test]
async fn of_two_chunks_that_wait_for_each_other_neither_loses_a_good_row() {
    // 1 to 50 are children of 51 to 100, in the next chunk, which has a bad row of its own.
    let database = Database::with(
        "CREATE TABLE target (id int PRIMARY KEY, parent int REFERENCES target, n int CHECK (n <> 13));
         CREATE TABLE stage (id int PRIMARY KEY, parent int, n text); INSERT INTO stage SELECT g, CASE WHEN g <= 50 THEN 101 - g END, g FROM generate_series(1, 100) g;
         UPDATE stage SET n = 1 WHERE id = 13; UPDATE stage SET n = 13 WHERE id = 100;",
    )
    .await;
    let mut spec = spec(r#", "max_rejects": 60, "chunks": {"rows": 50}"#);
    spec.columns =
        serde_json::from_str(r#"{"id": "stage.id", "parent": "stage.parent", "n": "stage.n::int"}"#).unwrap();
    spec.parallelism = 1.into();
    let summary = database.run(&spec).await;
    assert_eq!(
        (summary.status, summary.tally.counts.inserted),
        (Status::CompleteWithRejects, 98),
        "{:?}",
        summary.error
    );
    assert_eq!(rejected(&database).await, "1 23503 target_parent_fkey, 100 23514 target_n_check");
}

#[tokio::test]
async fn a_deferred_constraint_is_checked_before_the_row_is_let_go() {
    let database = Database::with(&format!(
        "{TABLES} CREATE TABLE codes (n int PRIMARY KEY); INSERT INTO codes SELECT g + 1000 FROM generate_series(1, 1000) g; INSERT INTO codes VALUES (0);
         ALTER TABLE target ADD FOREIGN KEY (n) REFERENCES codes DEFERRABLE INITIALLY DEFERRED;"
    ))
    .await;
    database.execute("UPDATE stage SET n = '9999' WHERE id IN (4, 800)").await;
    let summary = database.run(&spec(TEN)).await;
    assert_eq!(
        (summary.status, summary.tally.counts.written()),
        (Status::CompleteWithRejects, 998),
        "{:?}",
        summary.error
    );
    assert_eq!(rejected(&database).await, "4 23503 target_n_fkey, 800 23503 target_n_fkey");
}

#[tokio::test]
async fn rejects_are_tried_again_once_they_are_mended_and_counted_once() {
    let database = Database::with(TABLES).await;
    database.execute("UPDATE stage SET n = 'x' WHERE id IN (7, 8, 901)").await;
    database.run(&spec(TEN)).await;
    // One is mended at the source, one is still bad, and one is gone.
    database.execute("UPDATE stage SET n = '1007' WHERE id = 7; UPDATE stage SET n = '13' WHERE id = 8; DELETE FROM stage WHERE id = 901").await;
    let summary = retry(&database).await;
    assert_eq!(summary.status, Status::CompleteWithRejects, "{:?}", summary.error);
    let counts = summary.tally.counts;
    assert_eq!((counts.staged, counts.updated, counts.inserted, counts.rejected), (1_000, 499, 499, 2));
    assert_eq!(rejected(&database).await, "8 23514 target_n_check, 901 22P02");
    assert_eq!(database.value("SELECT n FROM target WHERE id = 7").await, "1007");
    database.execute("UPDATE stage SET n = '1008' WHERE id = 8; INSERT INTO stage VALUES (901, '1901')").await;
    let summary = retry(&database).await;
    assert_eq!((summary.status, summary.tally.counts.rejected), (Status::Complete, 0));
    assert_eq!(database.value("SELECT count(*) FROM target WHERE n = id + 1000").await, "1000");
    assert_eq!(resume::rejects(&database.connection, 1, "more").await.unwrap_err().class, Class::BadJob);
}

#[tokio::test]
async fn rejects_are_not_tried_over_a_newer_run_or_beside_an_open_one() {
    let database = Database::with(TABLES).await;
    database.execute("UPDATE stage SET n = 'x' WHERE id = 7").await;
    database.run(&spec(TEN)).await;
    let refused = resume::run(&database.connection, 1, "me", false).await.unwrap_err();
    assert!(refused.message().contains("stagemill rejects 1 --retry"), "{refused}");
    let Started::Run(answer) = database.plan(&spec(TEN), "newer").await.unwrap() else { panic!() };
    let refused = resume::rejects(&database.connection, 1, "me").await.unwrap_err();
    assert!(refused.message().contains("run 2"), "{refused}");
    assert_eq!(resume::rejects(&database.connection, 2, "me").await.unwrap_err().class, Class::AlreadyRunning);
    database.drive(answer).await;
}

#[tokio::test]
async fn a_row_whose_key_is_bad_is_set_aside_too() {
    let database = Database::with(
        "CREATE TABLE target (id int PRIMARY KEY, n int); CREATE TABLE stage (id text PRIMARY KEY, n text);
         INSERT INTO stage SELECT g, g FROM generate_series(1, 300) g; INSERT INTO stage VALUES (NULL, 1);"
            .replace("INSERT INTO stage VALUES (NULL, 1);", "")
            .as_str(),
    )
    .await;
    let mut spec = spec(r#", "max_rejects": 10, "chunks": {"by": "ctid", "rows": 100}"#);
    spec.columns = serde_json::from_str(r#"{"id": "CAST(stage.id AS int)", "n": "stage.n::int"}"#).unwrap();
    let answer = database.planned(&spec, "me").await;
    // Planning counts keys, which has to compute them.
    database.execute("UPDATE stage SET id = 'bad ' || id WHERE id = '7'").await;
    let summary = database.drive(answer).await;
    assert_eq!((summary.tally.counts.inserted, summary.tally.counts.rejected), (299, 1));
    assert_eq!(database.value("SELECT target_key FROM stagemill.reject").await, "NULL");
}

#[tokio::test]
async fn with_stage_rows_delete_the_rows_set_aside_stay_and_a_retry_takes_them() {
    for by in ["key", "ctid"] {
        let database = Database::with(TABLES).await;
        database.execute("UPDATE stage SET n = 'x' WHERE id IN (7, 901)").await;
        let spec =
            spec(&format!(r#", "max_rejects": 10, "stage_rows": "delete", "chunks": {{"by": "{by}", "rows": 100}}"#));
        let summary = database.run(&spec).await;
        assert_eq!(summary.status, Status::CompleteWithRejects, "{:?}", summary.error);
        assert_eq!(database.value("SELECT string_agg(id::text, ' ' ORDER BY id) FROM stage").await, "7 901");
        database.execute("UPDATE stage SET n = '1007' WHERE id = 7").await;
        let summary = retry(&database).await;
        assert_eq!((summary.status, summary.tally.counts.rejected), (Status::CompleteWithRejects, 1));
        assert_eq!(database.value("SELECT string_agg(id::text, ' ' ORDER BY id) FROM stage").await, "901");
        assert_eq!(summary.tally.counts.staged, 1_000);
    }
}

#[tokio::test]
async fn a_stage_is_truncated_once_what_was_set_aside_is_applied_and_nothing_else_has_come() {
    for (change, expected, left) in [
        ("UPDATE stage SET n = '1007' WHERE id = 7", Status::Complete, "0"),
        ("UPDATE stage SET n = '1007' WHERE id IN (7, 8)", Status::SourceChanged, "1000"),
    ] {
        let database = Database::with(TABLES).await;
        database.execute("UPDATE stage SET n = 'x' WHERE id = 7").await;
        let spec = spec(r#", "max_rejects": 10, "stage_rows": "truncate""#);
        assert_eq!(database.run(&spec).await.status, Status::CompleteWithRejects);
        assert_eq!(database.value("SELECT count(*) FROM stage").await, "1000");
        database.execute(change).await;
        let summary = retry(&database).await;
        assert_eq!(summary.status, expected, "{:?}", summary.error);
        assert_eq!(database.value("SELECT count(*) FROM stage").await, left);
    }
}

#[tokio::test]
async fn of_changes_the_newest_is_set_aside_and_the_older_ones_are_not_applied_for_it() {
    let database = Database::with(
        "CREATE TABLE target (id int PRIMARY KEY, n int); INSERT INTO target SELECT g, 0 FROM generate_series(1, 100) g;
         CREATE TABLE stage (id int, n text, op text, seq text); CREATE INDEX ON stage (id);
         INSERT INTO stage SELECT g, g, 'U', '2' FROM generate_series(1, 100) g; INSERT INTO stage SELECT g, 999, 'U', '1' FROM generate_series(1, 100) g;
         UPDATE stage SET n = 'x' WHERE id = 7 AND seq = '2'; UPDATE stage SET op = '?' WHERE id = 8 AND seq = '2'; UPDATE stage SET seq = 'ten' WHERE id = 9 AND seq = '2';
         INSERT INTO stage VALUES (NULL, 5, 'U', '9'); INSERT INTO stage VALUES (10, NULL, 'D', '3'); INSERT INTO stage VALUES (7, '70', '?', '9');",
    )
    .await;
    let mut spec = spec(TEN);
    spec.operation = stagemill_engine::job::Operation::Changes;
    spec.changes = serde_json::from_str(r#"{"operation": "op", "order": "seq"}"#).unwrap();
    let summary = database.run(&spec).await;
    assert_eq!(summary.status, Status::CompleteWithRejects, "{:?}", summary.error);
    // 7 keeps its row; of 8 and 9 the older change is the newest that can be read.
    assert_eq!(
        database.value("SELECT string_agg(id || '=' || n, ' ' ORDER BY id) FROM target WHERE n <> id").await,
        "7=0 8=999 9=999"
    );
    let counts = summary.tally.counts;
    assert_eq!((counts.staged, counts.updated, counts.deleted, counts.rejected, counts.skipped), (203, 98, 1, 5, 99));
    database.execute("UPDATE stage SET n = '7' WHERE id = 7 AND seq = '2'").await;
    let summary = retry(&database).await;
    let counts = summary.tally.counts;
    assert_eq!((counts.staged, counts.updated, counts.rejected), (203, 99, 4), "{:?}", summary.error);
    assert_eq!(database.value("SELECT n FROM target WHERE id = 7").await, "7");
}

#[tokio::test]
async fn what_no_row_alone_is_to_blame_for_is_not_set_aside() {
    let database = Database::with(
        "CREATE TABLE target (id int PRIMARY KEY, n int); CREATE TABLE stage (id int, n text); CREATE INDEX ON stage (id);
         INSERT INTO stage SELECT g, g FROM generate_series(1, 100) g; INSERT INTO stage VALUES (7, '8'); UPDATE stage SET n = 'x' WHERE id = 5;",
    )
    .await;
    let summary = database.run(&spec(r#", "max_rejects": 10, "chunks": {"by": "key", "rows": 100}"#)).await;
    assert_eq!((summary.status, summary.error_class.as_deref()), (Status::Failed, Some("DuplicateKeys")));
    assert_eq!(database.value("SELECT count(*) FROM stagemill.reject").await, "0");
}
