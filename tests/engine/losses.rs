//! Ways in which a run could lose a row, apply one twice, or say what is not so.

use std::time::{Duration, Instant};

use stagemill_engine::{
    apply::{self, Stop, Worker},
    failure::Class,
    job::Job,
    ledger::{self, summary::Summary},
    local::{Driver, Ended},
    outcome::Status,
    pg::{Server, Trust},
    plan::{self, DeadRun, Start, Started},
    record, resume, skip,
};
use tokio_util::sync::CancellationToken;

use crate::database::{Database, job};

fn spec(operation: &str, columns: &str, rest: &str) -> Job {
    job(&format!(
        r#"{{"name": "h", "stage": {{"table": "stage"}}, "target": {{"table": "target", "key": ["id"]}}, "operation": "{operation}",
            "columns": {columns}, "parallelism": 2{rest}}}"#
    ))
}

const PLAIN: &str = r#"{"id": "stage.id", "n": "stage.n"}"#;
const TABLES: &str = "
    CREATE TABLE target (id int PRIMARY KEY, n int CHECK (n <> 13));
    CREATE TABLE stage (id int PRIMARY KEY, n int); INSERT INTO stage SELECT g, 1 FROM generate_series(1, 200) g;";

async fn retry(database: &Database) -> Summary {
    let answer = resume::rejects(&database.connection, 1, "retry").await.unwrap();
    database.drive(answer).await
}

#[tokio::test]
async fn a_chunks_statement_timeout_says_nothing_about_the_counts_at_the_end() {
    let database = Database::with(TABLES).await;
    database.execute("CREATE FUNCTION slow(n int) RETURNS boolean LANGUAGE plpgsql COST 1 AS $$ BEGIN PERFORM pg_sleep(0.01); RETURN true; END $$").await;
    let mut spec = spec(
        "upsert",
        PLAIN,
        r#", "verify": "count", "chunks": {"by": "sql", "query": "SELECT g, g + 49 FROM generate_series(1, 151, 50) g"}, "session": {"statement_timeout": "1500ms"}"#,
    );
    spec.stage.filter = Some("slow(stage.n)".into());
    let summary = database.run(&spec).await;
    assert_eq!(summary.status, Status::Complete, "{:?}", summary.error);
}

#[tokio::test]
async fn a_stage_is_not_truncated_when_a_row_that_was_taken_has_become_one_that_is_not() {
    let database = Database::with(TABLES).await;
    let mut spec = spec("upsert", PLAIN, r#", "stage_rows": "truncate""#);
    spec.stage.filter = Some("stage.n < 1000".into());
    let answer = database.planned(&spec, "me").await;
    // After the last chunk, and before the end.
    database.execute("CREATE FUNCTION late() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN UPDATE stage SET n = 5000 WHERE id = 3; RETURN NULL; END $$;
        CREATE TRIGGER late AFTER INSERT ON target FOR EACH ROW WHEN (NEW.id = 200) EXECUTE FUNCTION late()").await;
    let summary = database.drive(answer).await;
    assert_eq!(database.value("SELECT n FROM stage WHERE id = 3").await, "5000");
    assert!(summary.error.unwrap().contains("1 of its rows are not of this run"));
}

#[tokio::test]
async fn a_stage_is_not_truncated_when_a_policy_hides_rows_of_it() {
    let database = Database::with(TABLES).await;
    let role = format!("seer_{}", database.value("SELECT current_database()").await);
    database.execute(&format!(
        "CREATE ROLE {role} LOGIN; GRANT USAGE ON SCHEMA stagemill TO {role}; GRANT ALL ON ALL TABLES IN SCHEMA stagemill TO {role};
         GRANT ALL ON stage, target TO {role}; ALTER TABLE stage ENABLE ROW LEVEL SECURITY; CREATE POLICY p ON stage TO {role} USING (id <= 150)"
    )).await;
    let url = database.url();
    let mut config: tokio_postgres::Config = url.parse().unwrap();
    config.user(&role);
    let server = Server::new(config, &Trust::System).unwrap();
    let connection = server.connect("test").await.unwrap();
    let spec = spec("upsert", PLAIN, r#", "stage_rows": "truncate""#);
    let start = Start { owner: "me", trigger_id: None, followed_by: &[], job: &spec, dead: DeadRun::Keep };
    let Started::Run(answer) = plan::start(&connection, &start).await.unwrap() else { panic!() };
    let driver = Driver { server: &server, worker: "me", stop: CancellationToken::new(), report: &|_| {} };
    let Ended::Closed(summary) = driver.run(answer).await.unwrap() else { panic!() };
    assert_eq!(summary.status, Status::Incomplete);
    assert!(summary.error.unwrap().contains("row-level security"));
    assert_eq!(database.value("SELECT count(*) FROM stage WHERE id > 150").await, "50");
}

#[tokio::test]
async fn a_stage_is_not_truncated_when_rows_of_it_were_skipped_by_hand() {
    let database = Database::with(TABLES).await;
    database.execute("UPDATE stage SET n = 13 WHERE id = 120").await;
    let spec = spec("upsert", PLAIN, r#", "stage_rows": "truncate", "chunks": {"by": "key", "rows": 50}"#);
    let summary = database.run(&spec).await;
    assert_eq!(summary.status, Status::Incomplete);
    let failed: i32 = database
        .value("SELECT chunk_id FROM stagemill.chunk WHERE state = 'PROCESSED_WITH_ERROR'")
        .await
        .parse()
        .unwrap();
    skip::chunks(&database.connection, 1, &[failed]).await.unwrap();
    let answer = resume::run(&database.connection, 1, "again", false).await.unwrap();
    let error = database.drive(answer).await.error.unwrap();
    assert!(error.contains("it holds 50 rows of chunk") && error.contains("skipped by hand"), "{error}");
    assert_eq!(
        database
            .value("SELECT count(*) FROM stage WHERE NOT EXISTS (SELECT FROM target t WHERE t.id = stage.id)")
            .await,
        "50"
    );
}

#[tokio::test]
async fn a_change_of_a_subtransaction_that_was_open_at_planning_is_seen() {
    for rows in ["keep", "truncate"] {
        let database = Database::with(TABLES).await;
        let writer = database.another_connection().await;
        writer.batch("BEGIN; SAVEPOINT a; UPDATE stage SET n = 7 WHERE id = 5; RELEASE a").await.unwrap();
        // A newer one that has ended, of which a row is staged: both lie between the snapshot's bounds.
        database.execute("INSERT INTO stage VALUES (300, 1)").await;
        let answer = database.planned(&spec("upsert", PLAIN, &format!(r#", "stage_rows": "{rows}""#)), "me").await;
        let connection = database.another_connection().await;
        let run = ledger::run::load(&connection, 1).await.unwrap();
        for item in &answer.items {
            let worker = Worker { connection: &connection, run: &run, name: "me", rank: None };
            assert_eq!(apply::item(worker, item, &Stop::default(), &|_| {}).await.unwrap().chunks, Vec::<i32>::new());
        }
        writer.batch("COMMIT").await.unwrap();
        let closed = record::round(&connection, 1, 1).await.unwrap().closed.unwrap();
        assert_eq!((closed.status, closed.new_rows), (Status::SourceChanged, Some(1)), "{rows}");
        assert_eq!(database.value("SELECT n FROM stage WHERE id = 5").await, "7", "nobody took it");
    }
}

#[tokio::test]
async fn a_run_of_many_chunks_is_resumed_in_time() {
    let database = Database::with("CREATE TABLE target (id int PRIMARY KEY, n int); CREATE TABLE stage (id int PRIMARY KEY, n int); INSERT INTO stage SELECT g, 1 FROM generate_series(1, 200000) g;").await;
    let spec = spec("upsert", PLAIN, r#", "chunks": {"by": "key", "rows": 50}"#);
    database.planned(&spec, "me").await;
    let started = Instant::now();
    let answer = resume::run(&database.connection, 1, "again", true).await.unwrap();
    let _ = answer;
    assert!(started.elapsed() < Duration::from_secs(5));
}

#[tokio::test]
async fn own_ranges_of_a_statement_that_names_their_ends_are_not_split() {
    let database = Database::with(
        "CREATE TABLE target (id int PRIMARY KEY, n int NOT NULL DEFAULT 0); INSERT INTO target SELECT g FROM generate_series(1, 40) g;
         CREATE TABLE stage (id int PRIMARY KEY); INSERT INTO stage VALUES (1), (40);
         CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(0.04); RETURN NEW; END $$;
         CREATE TRIGGER slow BEFORE UPDATE ON target FOR EACH ROW EXECUTE FUNCTION slow();",
    ).await;
    let spec = job(r#"{"name": "s", "stage": {"table": "stage"}, "target": {"table": "target"}, "operation": "sql",
        "sql": ["UPDATE target SET n = n + 1 WHERE id BETWEEN {start_id} AND {end_id}"],
        "chunks": {"by": "sql", "column": "id", "query": "SELECT 1, 40"}, "session": {"statement_timeout": "1100ms"}, "retry": {"attempts": 2, "rounds": 2}}"#);
    let summary = database.run(&spec).await;
    assert!(!summary.status.is_success() || database.value("SELECT count(*) FROM target WHERE n = 1").await == "40");
}

#[tokio::test]
async fn own_ranges_are_compared_in_the_columns_collation() {
    let tables = r#"CREATE TABLE target (id text COLLATE "en-x-icu" PRIMARY KEY, n int); INSERT INTO target VALUES ('b', 0), ('B', 0);
         CREATE TABLE stage (id text COLLATE "en-x-icu" PRIMARY KEY, n int); INSERT INTO stage VALUES ('b', 1), ('B', 1), ('a', 1);"#;
    let columns = r#"{"id": "stage.id", "n": {"insert": "1", "update": "target.n + stage.n"}}"#;
    let database = Database::with(tables).await;
    let overlapping = spec("upsert", columns, r#", "chunks": {"by": "sql", "query": "VALUES ('A', 'Z'), ('a', 'z')"}"#);
    let planned = database.plan(&overlapping, "me").await;
    if let Ok(Started::Run(answer)) = planned {
        database.drive(answer).await;
    }
    assert_eq!(database.value("SELECT count(*) FROM target WHERE n > 1").await, "0", "applied twice");
    let database = Database::with(tables).await;
    let fine = spec("upsert", columns, r#", "chunks": {"by": "sql", "query": "VALUES ('a', 'A'), ('b', 'B')"}"#);
    let summary = database.run(&fine).await;
    assert_eq!((summary.status, summary.outside), (Status::Complete, 0), "{:?}", summary.error);
}

#[tokio::test]
async fn a_watermark_that_nothing_can_exceed_is_refused() {
    for (column, poison, next) in [
        ("loaded timestamptz", "'infinity'", "now()"),
        ("loaded text", "'NaN'", "'7'"),
        ("loaded numeric", "'NaN'", "7"),
        ("loaded date", "'infinity'", "'2026-11-24'"),
    ] {
        let database = Database::with(&format!("CREATE TABLE target (id int PRIMARY KEY, n int); CREATE TABLE stage (id int PRIMARY KEY, n int, {column}); INSERT INTO stage VALUES (1, 1, {poison})")).await;
        let spec = spec("upsert", PLAIN, r#", "watermark": {"column": "loaded"}"#);
        match database.plan(&spec, "one").await {
            Ok(Started::Run(answer)) => {
                database.drive(answer).await;
                database.execute(&format!("INSERT INTO stage VALUES (2, 2, {next})")).await;
                database.run(&spec).await;
                assert_eq!(database.value("SELECT count(*) FROM target WHERE id = 2").await, "1", "{column}");
            }
            other => println!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn an_overlap_does_not_look_ahead() {
    let database = Database::with(TABLES).await;
    let spec = spec("upsert", PLAIN, r#", "watermark": {"column": "id", "overlap": "-5"}"#);
    let planned = database.plan(&spec, "one").await;
    if let Ok(Started::Run(answer)) = planned {
        database.drive(answer).await;
        database.execute("INSERT INTO stage SELECT g, 1 FROM generate_series(201, 210) g").await;
        match database.plan(&spec, "two").await {
            Ok(Started::Run(answer)) => println!("{:?}", database.drive(answer).await.status),
            other => {
                println!("{other:?}");
                return;
            }
        }
        assert_eq!(database.value("SELECT count(*) FROM target").await, "210");
    }
}

#[tokio::test]
async fn a_mended_change_is_applied_although_another_of_its_key_is_no_change() {
    for keep in ["keep", "delete"] {
        let database = Database::with(
            "CREATE TABLE target (id int PRIMARY KEY, n int);
             CREATE TABLE stage (id int, n text, op text, seq text); CREATE INDEX ON stage (id);
             INSERT INTO stage SELECT g, g, 'I', '2' FROM generate_series(1, 20) g;
             UPDATE stage SET n = 'x' WHERE id = 7; INSERT INTO stage VALUES (7, '5', '?', '1');",
        )
        .await;
        let spec = spec(
            "changes",
            r#"{"id": "stage.id", "n": "stage.n::int"}"#,
            &format!(
                r#", "on_bad_row": "quarantine", "max_rejects": 10, "changes": {{"operation": "op", "order": "seq"}}, "stage_rows": "{keep}", "retry": {{"attempts": 2, "rounds": 2}}"#
            ),
        );
        let summary = database.run(&spec).await;
        assert_eq!(
            (summary.status, summary.tally.counts.rejected),
            (Status::CompleteWithRejects, 2),
            "{:?}",
            summary.error
        );
        database.execute("UPDATE stage SET n = '7' WHERE id = 7 AND seq = '2'").await;
        let summary = retry(&database).await;
        assert_eq!(
            (summary.status, summary.tally.counts.rejected),
            (Status::CompleteWithRejects, 1),
            "{:?}",
            summary.error
        );
        assert_eq!(database.value("SELECT n FROM target WHERE id = 7").await, "7");
    }
}

#[tokio::test]
async fn rejects_are_not_tried_again_by_two_at_once() {
    let database = Database::with(TABLES).await;
    database.execute("UPDATE stage SET n = 13 WHERE id = 7").await;
    database.run(&spec("upsert", PLAIN, r#", "on_bad_row": "quarantine", "max_rejects": 10"#)).await;
    let (first, second) = (database.another_connection().await, database.another_connection().await);
    let blocker = database.another_connection().await;
    blocker.batch("BEGIN; SELECT FROM stagemill.run FOR UPDATE").await.unwrap();
    let (one, two, ()) = tokio::join!(resume::rejects(&first, 1, "one"), resume::rejects(&second, 1, "two"), async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        blocker.batch("COMMIT").await.unwrap();
    });
    assert!(one.is_ok() != two.is_ok());
    let refused = one.err().or(two.err()).unwrap();
    assert_eq!(refused.class, Class::AlreadyRunning);
}

#[tokio::test]
async fn a_row_that_is_no_jsonb_is_set_aside_too() {
    let database = Database::with(
        r#"CREATE TABLE target (id int PRIMARY KEY, n int); CREATE TABLE stage (id int PRIMARY KEY, n text, doc json);
           INSERT INTO stage SELECT g, g, '{}' FROM generate_series(1, 20) g; UPDATE stage SET n = 'x', doc = '{"a": "\u0000"}' WHERE id = 7"#,
    ).await;
    let summary = database
        .run(&spec(
            "upsert",
            r#"{"id": "stage.id", "n": "stage.n::int"}"#,
            r#", "on_bad_row": "quarantine", "max_rejects": 10"#,
        ))
        .await;
    assert_eq!(
        (summary.status, summary.tally.counts.rejected),
        (Status::CompleteWithRejects, 1),
        "{:?}",
        summary.error
    );
}

#[tokio::test]
async fn whatever_code_a_trigger_raises_its_row_is_set_aside() {
    for code in
        ["P0001", "55000", "42501", "22000", "XX000", "0A000", "57014", "53100", "28000", "21000", "2D000", "ABCDE"]
    {
        let database = Database::with(&format!(
            "{TABLES} CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN IF NEW.id = 7 THEN RAISE EXCEPTION 'not 7' USING ERRCODE = '{code}'; END IF; RETURN NEW; END $$;
             CREATE TRIGGER refuse BEFORE INSERT ON target FOR EACH ROW EXECUTE FUNCTION refuse()"
        )).await;
        let summary = database
            .run(&spec(
                "upsert",
                PLAIN,
                r#", "on_bad_row": "quarantine", "max_rejects": 10, "retry": {"attempts": 2, "rounds": 2}"#,
            ))
            .await;
        assert_eq!(
            (summary.status, summary.tally.counts.rejected),
            (Status::CompleteWithRejects, 1),
            "{code}: {:?}",
            summary.error
        );
    }
}

#[tokio::test]
async fn a_subquery_that_gives_two_rows_is_said_so() {
    let database = Database::with(&format!("{TABLES} CREATE TABLE lookup (id int, x int); INSERT INTO lookup SELECT g, g FROM generate_series(20, 200) g; INSERT INTO lookup VALUES (50, 1)")).await;
    let summary = database
        .run(&spec(
            "upsert",
            r#"{"id": "stage.id", "n": "(SELECT x FROM lookup l WHERE l.id = stage.id)"}"#,
            r#", "on_bad_row": "quarantine", "max_rejects": 10"#,
        ))
        .await;
    assert!(summary.status.is_success() || summary.error.unwrap().contains("subquery"));
}

#[tokio::test]
async fn the_whole_row_as_a_key_is_the_same_while_bad_rows_are_looked_for() {
    let database = Database::with(
        "CREATE TABLE stage (a int PRIMARY KEY, b text); INSERT INTO stage SELECT g, 'x' FROM generate_series(1, 20) g;
         CREATE TABLE target (id text PRIMARY KEY); INSERT INTO target SELECT md5(stage::text) FROM stage;
         CREATE TABLE child (id text REFERENCES target); INSERT INTO child SELECT md5(stage::text) FROM stage WHERE a = 7;",
    ).await;
    let summary = database
        .run(&spec(
            "delete",
            r#"{"id": "md5(stage::text)"}"#,
            r#", "on_bad_row": "quarantine", "max_rejects": 10, "chunks": {"by": "ctid"}"#,
        ))
        .await;
    assert_eq!((summary.tally.counts.deleted, summary.tally.counts.rejected), (19, 1));
    assert_eq!(database.value("SELECT r.target_key[1] = md5(stage::text) FROM stagemill.reject r, stage WHERE stage.a = 7 AND r.retried_in IS NULL").await, "true");
}

#[tokio::test]
async fn rejects_are_found_in_time_without_hash_joins() {
    let database = Database::with("CREATE TABLE target (id int PRIMARY KEY, n int CHECK (n <> 13)); CREATE TABLE stage (id int PRIMARY KEY, n int); INSERT INTO stage SELECT g, CASE WHEN g % 300 = 0 THEN 13 ELSE 1 END FROM generate_series(1, 60000) g;").await;
    let spec = spec(
        "upsert",
        PLAIN,
        r#", "on_bad_row": "quarantine", "max_rejects": 1000, "session": {"enable_hashjoin": "off", "enable_mergejoin": "off"}"#,
    );
    let summary = database.run(&spec).await;
    assert_eq!(summary.tally.counts.rejected, 200);
    database.execute("UPDATE stage SET n = 1 WHERE n = 13").await;
    let started = Instant::now();
    let summary = retry(&database).await;
    assert_eq!(summary.status, Status::Complete);
    assert!(started.elapsed() < Duration::from_secs(4), "{:?}", started.elapsed());
}

#[tokio::test]
async fn a_row_whose_key_is_bad_does_not_keep_others_from_their_second_try() {
    let database = Database::with(
        "CREATE TABLE target (id int PRIMARY KEY, parent int REFERENCES target);
         CREATE TABLE stage (id text, parent int); INSERT INTO stage SELECT g, CASE WHEN g <= 5 THEN 19 END FROM generate_series(1, 20) g;",
    ).await;
    let spec = spec(
        "upsert",
        r#"{"id": "CAST(stage.id AS int)", "parent": "stage.parent"}"#,
        r#", "on_bad_row": "quarantine", "max_rejects": 10, "chunks": {"by": "ctid", "rows": 1000}"#,
    );
    let answer = database.planned(&spec, "me").await;
    database.execute("UPDATE stage SET id = 'bad' WHERE id = '20'").await;
    let summary = database.drive(answer).await;
    assert!(
        matches!(summary.status, Status::CompleteWithRejects | Status::SourceChanged),
        "{:?} {:?}",
        summary.status,
        summary.error
    );
}

#[tokio::test]
async fn a_target_row_that_is_deleted_meanwhile_is_not_unchanged() {
    for (operation, more, extra) in [
        ("upsert", r#", "skip_unchanged": true"#, ""),
        (
            "changes",
            r#", "changes": {"operation": "op", "order": "seq", "guard": "seq"}"#,
            "ALTER TABLE target ADD seq int; ALTER TABLE stage ADD seq int DEFAULT 1, ADD op text DEFAULT 'U'",
        ),
    ] {
        let database = Database::with(&format!("{TABLES} INSERT INTO target SELECT id, 0 FROM stage; {extra}")).await;
        let answer = database
            .planned(&spec(operation, PLAIN, &format!(r#"{more}, "chunks": {{"by": "key", "rows": 1000}}"#)), "me")
            .await;
        let other = database.another_connection().await;
        other.batch("BEGIN; DELETE FROM target WHERE id = 5").await.unwrap();
        tokio::join!(database.drive(answer), async {
            tokio::time::sleep(Duration::from_millis(1000)).await;
            other.batch("COMMIT").await.unwrap();
        });
        assert_eq!(database.value("SELECT count(*) FROM target WHERE n = 1").await, "200", "{operation}");
    }
}

#[tokio::test]
async fn children_before_their_parents_in_a_chunk_with_a_bad_row_are_no_rejects() {
    let database = Database::with(
        "CREATE TABLE target (id int PRIMARY KEY, parent int REFERENCES target, n int CHECK (n <> 13));
         CREATE TABLE stage (id int PRIMARY KEY, parent int, n int); INSERT INTO stage SELECT g, CASE WHEN g <= 50 THEN 101 - g END, g + 100 FROM generate_series(1, 100) g;
         UPDATE stage SET n = 13 WHERE id = 70;",
    ).await;
    let summary = database
        .run(&spec(
            "upsert",
            r#"{"id": "stage.id", "parent": "stage.parent", "n": "stage.n"}"#,
            r#", "on_bad_row": "quarantine", "max_rejects": 2, "chunks": {"by": "key", "rows": 1000}"#,
        ))
        .await;
    assert_eq!((summary.status, summary.tally.counts.rejected), (Status::CompleteWithRejects, 2));
}

#[tokio::test]
async fn two_searches_for_bad_rows_do_not_wait_for_each_other() {
    let database = Database::with(&format!(
        "{TABLES} DELETE FROM stage WHERE id > 100; UPDATE stage SET n = 13 WHERE id IN (50, 100);
         CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(0.06); RETURN NEW; END $$;
         CREATE TRIGGER slow BEFORE INSERT ON target FOR EACH ROW EXECUTE FUNCTION slow()"
    ))
    .await;
    let rest = r#", "on_bad_row": "quarantine", "max_rejects": 10, "chunks": {"by": "key", "rows": 50}, "session": {"lock_timeout": "1100ms"}, "retry": {"attempts": 1, "rounds": 1}"#;
    let summary = database.run(&spec("upsert", PLAIN, rest)).await;
    assert_eq!(
        (summary.status, summary.tally.counts.rejected),
        (Status::CompleteWithRejects, 2),
        "{:?}",
        summary.error
    );
}

#[tokio::test]
async fn a_guard_that_an_update_does_not_write_is_refused() {
    let database = Database::with(&format!(
        "{TABLES} ALTER TABLE target ADD seq int; ALTER TABLE stage ADD seq int, ADD op text DEFAULT 'U'"
    ))
    .await;
    let rules = r#", "changes": {"operation": "op", "order": "seq", "guard": "seq"}"#;
    for branch in ["insert", "update"] {
        let columns = format!(r#"{{"id": "stage.id", "n": "stage.n", "seq": {{"{branch}": "stage.seq"}}}}"#);
        let refused = database.plan(&spec("changes", &columns, rules), "me").await.unwrap_err();
        assert!(refused.message().contains("changes.guard"), "{refused}");
    }
}

#[tokio::test]
async fn both_halves_of_a_chunk_delete_no_more_than_it_was_allowed_to() {
    let database = Database::with(&format!(
        "{TABLES} INSERT INTO target SELECT g, 1 FROM generate_series(1, 200) g; DELETE FROM stage WHERE id > 40;
         CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(0.04); RETURN OLD; END $$;
         CREATE TRIGGER slow BEFORE DELETE ON target FOR EACH ROW EXECUTE FUNCTION slow()"
    ))
    .await;
    let text = r#"{"name": "d", "stage": {"table": "stage"}, "target": {"table": "target", "key": ["id"]}, "operation": "delete", "max_deletes": 40,
        "chunks": {"by": "key", "rows": 100}, "session": {"statement_timeout": "2500ms"}}"#;
    let answer = database.planned(&job(text), "me").await;
    database.execute("INSERT INTO stage SELECT g, 1 FROM generate_series(41, 80) g").await;
    let summary = database.drive(answer).await;
    assert_eq!(summary.status, Status::SourceChanged, "{:?}", summary.error);
    assert!(summary.tally.counts.deleted <= 40, "{:?}", summary.tally.counts);
}

#[tokio::test]
async fn a_stage_whose_trigger_can_keep_rows_is_not_emptied() {
    let database = Database::with(&format!(
        "{TABLES} CREATE FUNCTION stay() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN CASE WHEN OLD.id > 10 THEN OLD END; END $$;
         CREATE TRIGGER stay BEFORE DELETE ON stage FOR EACH ROW EXECUTE FUNCTION stay()"
    ))
    .await;
    let refused = database.plan(&spec("upsert", PLAIN, r#", "stage_rows": "delete""#), "me").await.unwrap_err();
    assert!(refused.message().contains("that the trigger stay keeps"), "{refused}");
}

#[tokio::test]
async fn new_rows_are_counted_once() {
    let database = Database::with(TABLES).await;
    let answer = database.planned(&spec("upsert", PLAIN, ""), "me").await;
    database.execute("INSERT INTO stage VALUES (300, 1)").await;
    assert_eq!(database.drive(answer).await.new_rows, Some(1));
    let answer = resume::run(&database.connection, 1, "again", false).await.unwrap();
    assert_eq!(database.drive(answer).await.new_rows, Some(1));
}
