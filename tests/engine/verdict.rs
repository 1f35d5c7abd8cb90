//! The verdict at the end of a run: whether the stage is still what was planned.

use stagemill_engine::{job::Job, outcome::Status, resume};

use crate::database::{Database, job};

fn spec(rest: &str) -> Job {
    job(&format!(
        r#"{{"name": "v", "stage": {{"table": "stage", "where": "stage.n < 1000"}}, "target": {{"table": "target", "key": ["id"]}}, "operation": "upsert",
            "chunks": {{"by": "key", "rows": 50}}{rest}}}"#
    ))
}

const TABLES: &str = "
    CREATE TABLE target (id int PRIMARY KEY, n int CHECK (n <> 13));
    CREATE TABLE stage (id int PRIMARY KEY, n int) PARTITION BY RANGE (id);
    CREATE TABLE low PARTITION OF stage FOR VALUES FROM (0) TO (100); CREATE TABLE high PARTITION OF stage FOR VALUES FROM (100) TO (10000);
    INSERT INTO stage SELECT g, 1 FROM generate_series(1, 200) g;";

#[tokio::test]
async fn rows_that_came_or_changed_under_the_run_make_it_source_changed_with_their_number() {
    for (change, verify, expected, new, difference) in [
        ("SELECT 1", "new_rows", Status::Complete, Some(0), None),
        ("SELECT 1", "count", Status::Complete, Some(0), Some(200)),
        (
            "INSERT INTO stage SELECT g, 1 FROM generate_series(300, 302) g",
            "new_rows",
            Status::SourceChanged,
            Some(3),
            None,
        ),
        ("UPDATE stage SET n = 2 WHERE id IN (3, 150)", "new_rows", Status::SourceChanged, Some(2), None),
        // Not of this job.
        ("INSERT INTO stage VALUES (300, 5000)", "count", Status::Complete, Some(0), Some(200)),
        ("DELETE FROM stage WHERE id = 5", "new_rows", Status::Complete, Some(0), None),
        ("INSERT INTO stage VALUES (300, 1)", "off", Status::Complete, None, None),
    ] {
        let database = Database::with(TABLES).await;
        let answer = database.planned(&spec(&format!(r#", "verify": "{verify}""#)), "me").await;
        database.execute(change).await;
        let summary = database.drive(answer).await;
        assert_eq!(
            (summary.status, summary.new_rows, summary.recounted),
            (expected, new, difference),
            "{change} {verify}"
        );
        assert_eq!(summary.tally.processed, summary.tally.chunks);
        if expected == Status::SourceChanged {
            let error = summary.error.unwrap();
            assert!(error.contains(&format!("{} rows came or were changed", new.unwrap())), "{error}");
        }
    }
}

#[tokio::test]
async fn a_row_that_was_deleted_after_it_was_taken_is_missed_by_the_count() {
    let database = Database::with(TABLES).await;
    database
        .execute(
            "CREATE FUNCTION lose() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN DELETE FROM stage WHERE id = 1; RETURN NULL; END $$;
             CREATE TRIGGER lose AFTER INSERT ON target FOR EACH ROW WHEN (NEW.id = 200) EXECUTE FUNCTION lose()",
        )
        .await;
    let summary = database.run(&spec(r#", "verify": "count", "parallelism": 1"#)).await;
    assert_eq!((summary.status, summary.recounted), (Status::SourceChanged, Some(199)));
    assert!(summary.error.unwrap().contains("1 row that was taken is gone"));
}

#[tokio::test]
async fn a_transaction_that_was_open_while_the_run_was_planned_is_new() {
    let database = Database::with(TABLES).await;
    let writer = database.another_connection().await;
    writer.batch("BEGIN; INSERT INTO stage VALUES (300, 1)").await.unwrap();
    database.execute("INSERT INTO stage VALUES (301, 1)").await;
    let answer = database.planned(&spec(""), "me").await;
    writer.batch("COMMIT").await.unwrap();
    let summary = database.drive(answer).await;
    assert_eq!((summary.status, summary.new_rows), (Status::SourceChanged, Some(1)), "301 was there, 300 was not");
}

#[tokio::test]
async fn a_stage_that_was_emptied_or_rewritten_under_key_ranges_is_not_what_was_planned() {
    for change in [
        "TRUNCATE low",
        "VACUUM FULL low",
        "ALTER TABLE stage DETACH PARTITION low",
        "CREATE TABLE far (LIKE stage INCLUDING ALL); ALTER TABLE stage ATTACH PARTITION far FOR VALUES FROM (10000) TO (20000)",
    ] {
        let database = Database::with(TABLES).await;
        let answer = database.planned(&spec(""), "me").await;
        for statement in change.split("; ") {
            database.execute(statement).await;
        }
        let summary = database.drive(answer).await;
        assert_eq!(
            (summary.status, summary.tally.processed),
            (Status::SourceChanged, summary.tally.chunks),
            "{change}"
        );
        assert!(summary.error.unwrap().contains("was rewritten or replaced under the run"), "{change}");
    }
}

#[tokio::test]
async fn vacuum_and_freeze_change_nothing() {
    let database = Database::with(TABLES).await;
    let answer = database.planned(&spec(""), "me").await;
    database.execute("VACUUM FREEZE stage").await;
    assert_eq!(database.drive(answer).await.new_rows, Some(0));
}

#[tokio::test]
async fn rows_mended_before_a_resume_are_no_change_and_those_of_chunks_that_were_applied_are() {
    for (id, expected) in [(120, Status::Complete), (10, Status::SourceChanged)] {
        let database = Database::with(TABLES).await;
        database.execute("UPDATE stage SET n = 13 WHERE id = 120").await;
        assert_eq!(database.run(&spec("")).await.status, Status::Incomplete);
        database.execute(&format!("UPDATE stage SET n = 3 WHERE id IN (120, {id})")).await;
        let answer = resume::run(&database.connection, 1, "again", false).await.unwrap();
        let summary = database.drive(answer).await;
        assert_eq!(
            (summary.status, summary.tally.processed),
            (expected, summary.tally.chunks),
            "{id} {:?}",
            summary.error
        );
    }
}

#[tokio::test]
async fn a_stage_that_is_gone_at_the_end_is_said_so() {
    let database = Database::with(TABLES).await;
    database
        .execute(
            "CREATE FUNCTION drop_it() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN ALTER TABLE stage RENAME TO gone; RETURN NULL; END $$;
             CREATE TRIGGER drop_it AFTER INSERT ON target FOR EACH ROW WHEN (NEW.id = 200) EXECUTE FUNCTION drop_it()",
        )
        .await;
    let summary = database.run(&spec(r#", "parallelism": 1"#)).await;
    assert_eq!((summary.status, summary.error_class.as_deref()), (Status::SourceChanged, Some("SourceChanged")));
    assert!(summary.error.unwrap().contains("was rewritten or replaced under the run"));
}

#[tokio::test]
async fn a_look_at_the_stage_that_is_broken_off_is_no_verdict_on_it_and_resume_looks_again() {
    let database = Database::with(&format!(
        "{TABLES} CREATE TABLE pause (seconds float8); INSERT INTO pause VALUES (0);
         CREATE FUNCTION slow() RETURNS bool LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep((SELECT seconds FROM pause)); RETURN true; END $$;
         CREATE FUNCTION from_now_on() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN UPDATE pause SET seconds = 60; RETURN NULL; END $$;
         CREATE TRIGGER from_now_on AFTER INSERT ON target FOR EACH ROW WHEN (NEW.id = 200) EXECUTE FUNCTION from_now_on()"
    ))
    .await;
    let mut spec = spec(r#", "parallelism": 1, "verify": "count""#);
    spec.stage.filter = Some("slow()".into());
    let answer = database.planned(&spec, "me").await;
    let other = database.another_connection().await;
    let (summary, ()) = tokio::join!(database.drive(answer), async {
        let cancel = "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'PgSleep'";
        for _ in 0..1_000 {
            if other.query_opt(cancel, &[]).await.unwrap().is_some() {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        panic!("nothing was slow");
    });
    assert_eq!((summary.status, summary.tally.processed), (Status::Incomplete, summary.tally.chunks));
    let error = summary.error.unwrap();
    assert!(
        error.contains("every row is applied") && error.contains("`stagemill resume 1` tries that again"),
        "{error}"
    );
    database.execute("UPDATE pause SET seconds = 0; DROP TRIGGER from_now_on ON target").await;
    let answer = resume::run(&database.connection, 1, "again", false).await.unwrap();
    assert_eq!(database.drive(answer).await.status, Status::Complete);
}
