//! `stage_rows`: what is taken leaves the stage, and nothing else does.

use std::time::Duration;

use stagemill_engine::{job::Job, ledger::summary::Summary, outcome::Status, resume};

use crate::database::{Database, job};

fn spec(stage_rows: &str, rest: &str) -> Job {
    job(&format!(
        r#"{{"name": "e", "stage": {{"table": "stage"}}, "target": {{"table": "target", "key": ["id"]}}, "operation": "upsert",
            "columns": {{"id": "stage.id", "n": "stage.n"}}, "stage_rows": "{stage_rows}", "parallelism": 3{rest}}}"#
    ))
}

const TABLES: &str = "
    CREATE TABLE target (id int PRIMARY KEY, n int CHECK (n <> 13)); INSERT INTO target SELECT g, 0 FROM generate_series(1, 200) g;
    CREATE TABLE stage (id int PRIMARY KEY, n int); INSERT INTO stage SELECT g, 1 FROM generate_series(1, 1000) g;";

fn by(by: &str) -> String {
    format!(r#", "chunks": {{"by": "{by}", "rows": 100}}"#)
}

#[tokio::test]
async fn delete_takes_each_chunks_rows_in_the_transaction_that_applies_them() {
    for by in [by("key"), by("ctid")] {
        let database = Database::with(TABLES).await;
        database.execute("UPDATE stage SET n = 13 WHERE id = 450").await;
        let summary = database.run(&spec("delete", &by)).await;
        assert_eq!((summary.status, summary.tally.failed), (Status::Incomplete, 1));
        let lost = "SELECT count(*) FROM generate_series(1, 1000) g WHERE (EXISTS (SELECT FROM stage WHERE id = g)) = (EXISTS (SELECT FROM target WHERE id = g AND n = 1))";
        assert_eq!(database.value(lost).await, "0", "each row is in the stage or applied, and never both");
        database.execute("UPDATE stage SET n = 1 WHERE id = 450").await;
        let answer = resume::run(&database.connection, summary.run, "again", false).await.unwrap();
        let summary = database.drive(answer).await;
        assert_eq!((summary.status, summary.tally.counts.staged), (Status::Complete, 1_000), "{:?}", summary.error);
        assert_eq!(database.value("SELECT count(*) FROM stage").await, "0");
        assert_eq!(database.value("SELECT count(*) FROM target WHERE n = 1").await, "1000");
    }
}

#[tokio::test]
async fn rows_outside_where_stay() {
    let database = Database::with(TABLES).await;
    let mut spec = spec("delete", &by("key"));
    spec.stage.filter = Some("stage.id % 2 = 0".into());
    assert_eq!(database.run(&spec).await.status, Status::Complete);
    assert_eq!(
        database.value("SELECT count(*) FILTER (WHERE id % 2 = 1) || ' of ' || count(*) FROM stage").await,
        "500 of 500"
    );
}

/// Runs a job while another session inserts and updates staged rows all the time; returns how it ended and whether the writer got through.
async fn under_fire(database: &Database, spec: &Job) -> Summary {
    database.execute("CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(0.05); RETURN NULL; END $$;
                      CREATE TRIGGER slow AFTER UPDATE ON target FOR EACH STATEMENT EXECUTE FUNCTION slow()").await;
    let writer = database.another_connection().await;
    let answer = database.planned(spec, "me").await;
    let (summary, ()) = tokio::join!(database.drive(answer), async {
        for n in 0..60 {
            // New rows, newer values for some that were taken and some that were not, each noted.
            let sql = format!("BEGIN; INSERT INTO stage VALUES ({0}, 5); INSERT INTO arrived VALUES ({0}, 5);
                 WITH u AS (UPDATE stage SET n = n + 100 WHERE id IN ({1}, {2}) RETURNING id, n) INSERT INTO arrived SELECT * FROM u; COMMIT", 2000 + n, 1 + n * 16, 1000 - n * 7);
            writer.batch(&sql).await.unwrap();
            tokio::time::sleep(Duration::from_millis(4)).await;
        }
    });
    summary
}

#[tokio::test]
async fn rows_that_arrive_or_change_during_a_run_are_applied_or_survive_it() {
    for by in [by("key"), by("ctid")] {
        let database = Database::with(&format!("{TABLES} CREATE TABLE arrived (id int, n int);")).await;
        let summary = under_fire(&database, &spec("delete", &by)).await;
        assert_eq!(summary.status, Status::Complete, "{:?}", summary.error);
        // What was written last is in the stage, or is what was applied last.
        let lost = "SELECT count(*) FROM (SELECT id, max(n) AS n FROM arrived GROUP BY id) a
            WHERE NOT EXISTS (SELECT FROM stage s WHERE s.id = a.id AND s.n = a.n) AND NOT EXISTS (SELECT FROM target t WHERE t.id = a.id AND t.n = a.n)";
        assert_eq!(database.value(lost).await, "0");
        let left = database.value("SELECT count(*) FROM stage").await;
        let rest = database.run(&spec("delete", &by)).await;
        assert_eq!((rest.status, rest.tally.counts.staged.to_string()), (Status::Complete, left));
        assert_eq!(database.value("SELECT count(*) FROM target").await, "1060");
    }
}

#[tokio::test]
async fn truncate_empties_a_stage_of_which_everything_was_taken() {
    let database = Database::with(TABLES).await;
    let summary = database.run(&spec("truncate", "")).await;
    assert_eq!((summary.status, summary.new_rows), (Status::Complete, Some(0)));
    assert_eq!(database.value("SELECT count(*) || ' ' || pg_relation_size('stage') FROM stage").await, "0 0");
}

#[tokio::test]
async fn truncate_never_removes_a_row_that_the_run_did_not_take() {
    // An update leaves the count as it was.
    for change in [
        "UPDATE stage SET n = 7 WHERE id = 5",
        "INSERT INTO stage VALUES (5000, 1)",
        "DELETE FROM stage WHERE id = 1; INSERT INTO stage VALUES (1, 9)",
    ] {
        let database = Database::with(TABLES).await;
        let answer = database.planned(&spec("truncate", ""), "me").await;
        database.execute(change).await;
        let summary = database.drive(answer).await;
        assert_eq!((summary.status, summary.new_rows), (Status::SourceChanged, Some(1)), "{change}");
        assert_ne!(database.value("SELECT count(*) FROM stage").await, "0");
    }
}

#[tokio::test]
async fn truncate_after_a_retry_of_rejects_removes_no_row_that_changed_meanwhile() {
    for (change, expected, left) in
        [("", Status::Complete, "0"), ("UPDATE stage SET n = 7 WHERE id = 5", Status::SourceChanged, "1000")]
    {
        let database = Database::with(TABLES).await;
        database.execute("UPDATE stage SET n = 13 WHERE id = 450").await;
        let spec = spec("truncate", r#", "on_bad_row": "quarantine", "max_rejects": 1"#);
        assert_eq!(database.run(&spec).await.status, Status::CompleteWithRejects);
        database.execute(&format!("UPDATE stage SET n = 1 WHERE id = 450; {change}")).await;
        let answer = resume::rejects(&database.connection, 1, "again").await.unwrap();
        let summary = database.drive(answer).await;
        assert_eq!((summary.status, summary.tally.counts.rejected), (expected, 0), "{:?}", summary.error);
        assert_eq!(database.value("SELECT count(*) FROM stage").await, left);
    }
}

#[tokio::test]
async fn truncate_waits_for_rows_outside_where_to_go_and_resume_tries_again() {
    let database = Database::with(TABLES).await;
    let mut spec = spec("truncate", "");
    spec.stage.filter = Some("stage.id <= 900".into());
    let summary = database.run(&spec).await;
    assert_eq!(summary.status, Status::Incomplete);
    let error = summary.error.unwrap();
    assert!(error.contains("was not truncated: it holds 1000 rows, of which the run took 900"), "{error}");
    database.execute("DELETE FROM stage WHERE id > 900").await;
    let answer = resume::run(&database.connection, 1, "again", false).await.unwrap();
    assert_eq!(database.drive(answer).await.status, Status::Complete);
    assert_eq!(database.value("SELECT count(*) FROM stage").await, "0");
}

#[tokio::test]
async fn a_stage_that_somebody_reads_is_not_truncated_under_them_and_the_run_says_so() {
    let database = Database::with(TABLES).await;
    let reader = database.another_connection().await;
    reader.batch("BEGIN; SELECT count(*) FROM stage").await.unwrap();
    let summary = database.run(&spec("truncate", r#", "verify": "off""#)).await;
    assert_eq!(summary.status, Status::Incomplete);
    assert!(summary.error.as_ref().unwrap().contains("lock timeout"), "{summary:?}");
    assert_eq!(database.value("SELECT count(*) FROM target WHERE n = 1").await, "1000");
    reader.batch("COMMIT").await.unwrap();
    let answer = resume::run(&database.connection, 1, "again", false).await.unwrap();
    assert_eq!(database.drive(answer).await.status, Status::Complete);
    assert_eq!(database.value("SELECT count(*) FROM stage").await, "0");
}

#[tokio::test]
async fn delete_wants_all_rows_of_a_key_in_one_chunk_where_their_order_matters() {
    let database = Database::with(&TABLES.replace("stage (id int PRIMARY KEY", "stage (id int")).await;
    let planned = async |spec: &Job| database.plan(spec, "me").await.map(|_| ()).map_err(|refused| refused.to_string());
    for by in ["ctid", "auto"] {
        let refused = planned(&spec("delete", &self::by(by))).await.unwrap_err();
        assert!(refused.contains("two rows of one key") && refused.contains("unique index"), "{by}: {refused}");
    }
    let mut deletes = spec("delete", &by("ctid"));
    deletes.operation = stagemill_engine::job::Operation::Delete;
    deletes.columns = None;
    assert_eq!(planned(&deletes).await, Ok(()), "whichever of two comes last, the target's row is gone");
    database.execute("UPDATE stagemill.run SET status = 'FAILED', ended_at = now()").await;
    database.execute("CREATE UNIQUE INDEX ON stage (id)").await;
    assert_eq!(planned(&spec("delete", &by("ctid"))).await, Ok(()));
}
