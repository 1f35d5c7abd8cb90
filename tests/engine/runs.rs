//! Runs from their start to the log table: the run lock, rounds, failures, resuming.

use stagemill_engine::{
    answer::Step,
    failure::Class,
    ledger::{
        self,
        run::rerun::{self, Request as Asked},
    },
    outcome::Status,
    plan::{self, DeadRun, Start, Started},
    record, resume,
};

use crate::database::{Database, job};

const TABLES: &str = "
    CREATE TABLE target (id int PRIMARY KEY, n int, CHECK (n <> 13));
    CREATE TABLE stage (id int PRIMARY KEY, n text); INSERT INTO stage SELECT g, g FROM generate_series(1, 300) g WHERE g <> 13;";

fn upsert(rest: &str) -> stagemill_engine::job::Job {
    job(&format!(
        r#"{{"name": "upsert", "stage": {{"table": "stage"}}, "target": {{"table": "target", "key": ["id"]}}, "operation": "upsert",
            "columns": {{"id": "stage.id", "n": "stage.n::int"}}, "chunks": {{"rows": 50}}, "parallelism": 2{rest}}}"#
    ))
}

/// The run's owner was last heard of an hour ago.
async fn silent_for_an_hour(database: &Database) {
    database
        .execute(
            "UPDATE stagemill.run SET started_at = now() - interval '1 hour', planned_at = now() - interval '1 hour';
             UPDATE stagemill.round SET opened_at = now() - interval '1 hour'",
        )
        .await;
}

#[tokio::test]
async fn an_owner_that_asks_again_gets_the_same_answer() {
    let database = Database::with(TABLES).await;
    let first = database.planned(&upsert(""), "me").await;
    assert_eq!((first.status, first.items.len()), (Step::Round, 6));
    assert_eq!(database.planned(&upsert(""), "me").await, first);
    assert_eq!(database.value("SELECT count(*) FROM stagemill.run").await, "1");
    assert_eq!(database.value("SELECT count(*) FROM target").await, "0", "the planner never writes to the target");
    database.drive(first).await;
    assert_eq!(database.planned(&upsert(""), "me").await.status, Step::Complete);
}

#[tokio::test]
async fn a_planner_that_died_while_planning_is_gone_on_with() {
    let database = Database::with(TABLES).await;
    let answer = database.planned(&upsert(""), "me").await;
    database.execute("DELETE FROM stagemill.round; UPDATE stagemill.run SET status = 'PLANNING', round = 0, planned_at = NULL; DELETE FROM stagemill.chunk WHERE chunk_id > 2").await;
    assert_eq!(database.planned(&upsert(""), "me").await, answer);
    assert_eq!(database.drive(answer).await.status, Status::Complete);
}

#[tokio::test]
async fn a_timeout_that_a_role_has_for_its_queries_does_not_end_the_writing_of_the_plan() {
    let database = Database::with(TABLES).await;
    database
        .execute(
            "CREATE FUNCTION dawdle() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(0.8); RETURN NULL; END $$;
             CREATE TRIGGER dawdle BEFORE INSERT ON stagemill.chunk FOR EACH STATEMENT EXECUTE FUNCTION dawdle();
             SET statement_timeout = '500ms'",
        )
        .await;
    database.planned(&upsert(""), "me").await;
}

#[tokio::test]
async fn a_second_start_is_turned_away_by_name_and_touches_nothing() {
    let database = Database::with(TABLES).await;
    database.planned(&upsert(""), "me").await;
    let before = database.value("SELECT md5(string_agg(c::text, '')) FROM stagemill.chunk c").await;
    for other in [upsert(""), stagemill_engine::job::Job { name: "another-name".into(), ..upsert("") }] {
        match database.plan(&other, "other").await.unwrap() {
            Started::Taken(open) => assert_eq!((open.id, open.owner.as_str(), open.is_alive()), (1, "me", true)),
            started => panic!("{started:?}"),
        }
    }
    assert_eq!(database.value("SELECT md5(string_agg(c::text, '')) FROM stagemill.chunk c").await, before);
    let shared = stagemill_engine::job::Job { name: "sharing".into(), share_tables: true, ..upsert("") };
    assert!(matches!(database.plan(&shared, "third").await.unwrap(), Started::Run(_)));
}

#[tokio::test]
async fn two_starts_in_the_same_moment_make_one_run() {
    let database = Database::with(TABLES).await;
    let connections = [database.another_connection().await, database.another_connection().await];
    let spec = upsert("");
    let request = |owner| Start { owner, trigger_id: None, followed_by: &[], job: &spec, dead: DeadRun::Abandon };
    let (a, b) = (request("a"), request("b"));
    let (a, b) = tokio::join!(plan::start(&connections[0], &a), plan::start(&connections[1], &b));
    let started = [a.unwrap(), b.unwrap()].iter().filter(|started| matches!(started, Started::Run(_))).count();
    assert_eq!((started, database.value("SELECT count(*) FROM stagemill.run").await.as_str()), (1, "1"));
}

#[tokio::test]
async fn the_same_trigger_again_is_a_duplicate_even_when_its_run_has_ended() {
    let database = Database::with(TABLES).await;
    let spec = upsert("");
    let request =
        |owner| Start { owner, trigger_id: Some("event-1"), followed_by: &[], job: &spec, dead: DeadRun::Keep };
    let Started::Run(answer) = plan::start(&database.connection, &request("a")).await.unwrap() else { panic!() };
    database.drive(answer).await;
    let Started::Run(again) = plan::start(&database.connection, &request("b")).await.unwrap() else { panic!() };
    assert_eq!((again.run, again.status), (1, Step::Duplicate));
}

#[tokio::test]
async fn a_run_whose_owner_died_is_closed_as_abandoned_and_its_place_taken() {
    let database = Database::with(TABLES).await;
    database.planned(&upsert(""), "dead").await;
    silent_for_an_hour(&database).await;
    let spec = upsert("");
    let start = |dead| Start { owner: "me", trigger_id: None, followed_by: &[], job: &spec, dead };
    assert!(
        matches!(plan::start(&database.connection, &start(DeadRun::Keep)).await.unwrap(), Started::Taken(open) if !open.is_alive())
    );
    let Started::Run(answer) = plan::start(&database.connection, &start(DeadRun::Abandon)).await.unwrap() else {
        panic!()
    };
    assert_eq!(answer.run, 2);
    assert_eq!(
        database.value("SELECT string_agg(status, ' ' ORDER BY run_id) FROM stagemill.run").await,
        "ABANDONED RUNNING"
    );
}

#[tokio::test]
async fn an_owner_that_comes_back_in_time_is_not_abandoned() {
    let database = Database::with(TABLES).await;
    database.planned(&upsert(""), "slow").await;
    silent_for_an_hour(&database).await;
    let dead = ledger::run::open_run(&database.connection, 1).await.unwrap();
    ledger::chunk::claim(&database.connection, 1, (1, 1), "slow", None).await.unwrap();
    assert_eq!(plan::abandon(&database.connection, &dead).await.unwrap_err().class, Class::Contention);
    assert_eq!(database.value("SELECT status FROM stagemill.run").await, "RUNNING");
}

#[tokio::test]
async fn one_bad_row_fails_its_chunk_and_no_other_and_resume_does_the_rest() {
    let database = Database::with(TABLES).await;
    database.execute("UPDATE stage SET n = 'planted-4711' WHERE id = 120").await;
    let summary = database.run(&upsert("")).await;
    assert_eq!(
        (summary.status, summary.sqlstate.as_deref(), summary.error_class.as_deref()),
        (Status::Incomplete, Some("22P02"), Some("Incomplete"))
    );
    assert_eq!((summary.tally.failed, summary.tally.processed), (1, 5));
    let error = summary.error.unwrap();
    assert!(error.contains("BadData") && error.contains("stagemill resume 1") && !error.contains("4711"), "{error}");
    assert_eq!(
        database.value("SELECT count(*) FROM stagemill.chunk WHERE detail LIKE '%planted-4711%'").await,
        "1",
        "the server's words are in the ledger"
    );
    assert_eq!(database.value("SELECT count(*) FROM target").await, "249");

    database.execute("UPDATE stage SET n = '120' WHERE id = 120").await;
    let answer = resume::run(&database.connection, 1, "me again", false).await.unwrap();
    assert_eq!(answer.items.len(), 1);
    let summary = database.drive(answer).await;
    assert_eq!((summary.status, summary.error, summary.tally.counts.inserted), (Status::Complete, None, 299));
    assert_eq!(resume::run(&database.connection, 1, "and again", false).await.unwrap_err().class, Class::BadJob);
}

#[tokio::test]
async fn a_child_staged_before_its_parent_is_applied_in_the_next_round() {
    let database = Database::with(
        "CREATE TABLE target (id int PRIMARY KEY, parent int REFERENCES target);
         CREATE TABLE stage (id int PRIMARY KEY, parent int); INSERT INTO stage SELECT g, nullif(201 - g, g) FROM generate_series(1, 200) g;
         UPDATE stage SET parent = NULL WHERE id > 100;",
    )
    .await;
    let text = r#"{"name": "tree", "stage": {"table": "stage"}, "target": {"table": "target", "key": ["id"]}, "operation": "insert", "chunks": {"rows": 50}, "parallelism": 1}"#;
    let summary = database.run(&job(text)).await;
    assert_eq!((summary.status, summary.round, summary.tally.counts.inserted), (Status::Complete, 2, 200));
}

#[tokio::test]
async fn a_row_that_breaks_a_constraint_is_tried_once_more_and_then_fails() {
    let database = Database::with(TABLES).await;
    database.execute("INSERT INTO stage VALUES (13, '13')").await;
    let summary = database.run(&upsert("")).await;
    assert_eq!((summary.status, summary.round, summary.sqlstate.as_deref()), (Status::Incomplete, 2, Some("23514")));
    assert_eq!(database.value("SELECT attempt FROM stagemill.chunk WHERE state = 'PROCESSED_WITH_ERROR'").await, "2");
}

#[tokio::test]
async fn duplicate_staged_keys_stop_the_run_whatever_it_is_cut_along() {
    let tables = "CREATE TABLE target (id int PRIMARY KEY, n int); INSERT INTO target SELECT g, 0 FROM generate_series(1, 300) g;
                  CREATE TABLE stage (id int, n int); CREATE INDEX ON stage (id);
                  INSERT INTO stage SELECT g, 1 FROM generate_series(1, 300) g; INSERT INTO stage VALUES (7, 10);";
    for by in ["key", "ctid"] {
        let database = Database::with(tables).await;
        let text = format!(
            r#"{{"name": "d", "stage": {{"table": "stage"}}, "target": {{"table": "target", "key": ["id"]}}, "operation": "update",
                "columns": {{"id": "stage.id", "n": "target.n + stage.n"}}, "chunks": {{"by": "{by}", "rows": 50}}}}"#
        );
        let failure = match database.plan(&job(&text), "me").await {
            Err(failure) => failure.to_string(),
            Ok(Started::Run(answer)) => database.drive(answer).await.error.unwrap(),
            Ok(taken) => panic!("{taken:?}"),
        };
        assert!(
            failure.contains("1 target key(s) are staged more than once") && failure.contains("HAVING count(*) > 1"),
            "{failure}"
        );
        assert_eq!(
            database.value("SELECT status || ' ' || error_class FROM stagemill.run").await,
            "FAILED DuplicateKeys"
        );
        assert_eq!(database.value("SELECT count(*) FROM target WHERE id = 7 AND n <> 0").await, "0");
    }
}

#[tokio::test]
async fn a_stage_without_rows_succeeds_with_zero() {
    for by in ["ctid", "key"] {
        let database = Database::with(
            "CREATE TABLE target (id int PRIMARY KEY, n text); CREATE TABLE stage (id int PRIMARY KEY, n text);",
        )
        .await;
        let text = format!(
            r#"{{"name": "e", "stage": {{"table": "stage"}}, "target": {{"table": "target", "key": ["id"]}}, "operation": "upsert", "chunks": {{"by": "{by}"}}}}"#
        );
        let summary = database.run(&job(&text)).await;
        assert_eq!((summary.status, summary.tally.counts.staged, summary.tally.chunks), (Status::Complete, 0, 0));
    }
}

#[tokio::test]
async fn a_recorder_called_twice_changes_nothing_the_second_time() {
    let database = Database::with(TABLES).await;
    let answer = database.planned(&upsert(""), "me").await;
    let next = record::round(&database.connection, answer.run, 1).await.unwrap();
    assert_eq!((next.answer.round, next.answer.items.len(), next.closed.is_none()), (2, 6, true));
    let again = record::round(&database.connection, answer.run, 1).await.unwrap();
    assert_eq!(again.answer, next.answer);
    database.drive(next.answer).await;
    let ended = database.value("SELECT ended_at FROM stagemill.run").await;
    let late = record::round(&database.connection, answer.run, 2).await.unwrap();
    assert_eq!((late.answer.status, late.closed.is_none()), (Step::Complete, true));
    assert_eq!(database.value("SELECT ended_at FROM stagemill.run").await, ended);
}

#[tokio::test]
async fn a_round_that_the_ledger_does_not_know_is_never_recorded_as_done() {
    let database = Database::with(TABLES).await;
    database.planned(&upsert(""), "me").await;
    assert_eq!(record::round(&database.connection, 1, 2).await.unwrap_err().class, Class::RunClosed);
    // As after a crash that took the plan back.
    database.execute("DELETE FROM stagemill.round; DELETE FROM stagemill.chunk; UPDATE stagemill.run SET status = 'PLANNING', round = 0, planned_at = NULL").await;
    let lost = record::round(&database.connection, 1, 1).await.unwrap_err();
    assert!(lost.message().contains("the server lost what it had committed"), "{lost}");
    assert_eq!(database.value("SELECT status FROM stagemill.run").await, "PLANNING");
}

#[tokio::test]
async fn rounds_are_bounded_and_what_is_left_is_said() {
    let database = Database::with(TABLES).await;
    let answer = database.planned(&upsert(r#", "retry": {"rounds": 2}"#), "me").await;
    record::round(&database.connection, answer.run, 1).await.unwrap();
    let closed = record::round(&database.connection, answer.run, 2).await.unwrap();
    assert_eq!((closed.answer.status, closed.answer.error.as_deref()), (Step::Failed, Some("Stagemill.Incomplete")));
    assert!(closed.answer.cause.unwrap().starts_with("6 of 6 chunks not applied"));
}

#[tokio::test]
async fn an_older_run_is_not_resumed_over_a_newer_one() {
    let database = Database::with(TABLES).await;
    database.execute("UPDATE stage SET n = 'x' WHERE id = 1").await;
    database.run(&upsert("")).await;
    database.run(&upsert("")).await;
    let refused = resume::run(&database.connection, 1, "me", false).await.unwrap_err();
    assert!(refused.message().contains("run 2"), "{refused}");
}

#[tokio::test]
async fn oracle_shaped_views_and_the_job_table() {
    let database = Database::with(TABLES).await;
    ledger::job::put(&database.connection, &upsert("")).await.unwrap();
    let stored = ledger::job::get(&database.connection, "upsert").await.unwrap();
    assert_eq!(stored, upsert(""));
    assert_eq!(ledger::job::get(&database.connection, "nope").await.unwrap_err().class, Class::BadJob);
    database.run(&stored).await;
    let task = "SELECT task_name || ' ' || status || ' ' || parallel_level FROM stagemill.dba_parallel_execute_tasks";
    assert_eq!(database.value(task).await, "upsert#1 FINISHED 2");
    let chunks =
        "SELECT count(*) || ' ' || min(start_id) || ' ' || min(status) FROM stagemill.dba_parallel_execute_chunks";
    assert_eq!(database.value(chunks).await, "6 101 PROCESSED");
}

#[tokio::test]
async fn the_chunks_that_are_being_applied_are_seen_with_their_sessions() {
    let database = Database::with(TABLES).await;
    let slow = "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(0.4); RETURN NULL; END $$;
                CREATE TRIGGER slow AFTER INSERT ON target FOR EACH STATEMENT EXECUTE FUNCTION slow();";
    database.execute(slow).await;
    let answer = database.planned(&upsert(""), "me").await;
    let seen = "SELECT concat_ws(' ', count(*), max(opname), max(target), min(sofar), max(totalwork), max(units), bool_and(time_remaining BETWEEN 0 AND 5),
                       bool_and(wait_event = 'PgSleep'), bool_and(start_time < last_update_time AND chunk_seconds = 0), count(DISTINCT sid), max(attempt))
                FROM stagemill.session_longops WHERE wait_event = 'PgSleep' AND sofar > 0 HAVING count(*) = 2";
    let (summary, ()) = tokio::join!(database.drive(answer), async {
        let mut found = "NULL".to_owned();
        for _ in 0..100 {
            found = database.value(seen).await;
            if found != "NULL" {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        let sofar = found.split(' ').nth(3).unwrap_or_default().to_owned();
        assert_eq!(found, format!("2 upsert \"public\".\"target\" {sofar} 6 chunks t t t 2 1"));
    });
    assert_eq!(summary.status, Status::Complete);
    assert_eq!(database.value("SELECT count(*) FROM stagemill.session_longops").await, "0");
}

#[tokio::test]
async fn migrations_by_two_at_once_make_one_ledger_and_a_newer_one_is_refused() {
    let database = Database::empty().await;
    let missing = ledger::schema::require(&database.connection).await.unwrap_err();
    assert!(missing.message().contains("stagemill init"), "{missing}");
    let (a, b) = (database.another_connection().await, database.another_connection().await);
    let (a, b) = tokio::join!(ledger::schema::migrate(&a), ledger::schema::migrate(&b));
    assert_eq!([a.unwrap(), b.unwrap()].iter().sum::<i32>(), ledger::schema::VERSION);
    database.execute("INSERT INTO stagemill.migration (version) VALUES (999)").await;
    let newer = ledger::schema::require(&database.connection).await.unwrap_err();
    assert_eq!((newer.class, newer.message().contains("999")), (Class::Ledger, true));
}

#[tokio::test(flavor = "multi_thread")]
async fn one_more_run_is_asked_of_an_execution_that_will_do_the_same_and_of_nobody_else() {
    const EXECUTION: &str = "arn:aws:states:eu-central-1:123456789012:execution:apply:one";
    let database = Database::with(TABLES).await;
    let connection = &database.connection;
    let asked = async |owner: &str, followed_by: &[&str]| {
        let mut open = ledger::run::open_run(connection, 1).await.unwrap();
        owner.clone_into(&mut open.owner);
        let followed_by: Vec<String> = followed_by.iter().map(|&job| job.to_owned()).collect();
        rerun::request(connection, &open, Some("event"), &followed_by).await.unwrap()
    };
    let planned = database.planned(&upsert(""), EXECUTION).await;
    assert_eq!(asked("host:1:2", &[]).await, Asked::Refused, "a command line makes no other");
    assert_eq!(asked(EXECUTION, &["other"]).await, Asked::Refused, "no other job follows");
    database.execute("UPDATE stagemill.run SET followed_by = '{other,third}'").await;
    assert_eq!(asked(EXECUTION, &["third"]).await, Asked::Refused, "others follow in between");

    let closing = database.another_connection().await;
    closing.batch("BEGIN; SELECT FROM stagemill.run FOR UPDATE").await.unwrap();
    assert_eq!(asked(EXECUTION, &[]).await, Asked::Refused, "nobody knows how it will end");
    closing.batch("ROLLBACK").await.unwrap();

    assert_eq!(asked(EXECUTION, &["other"]).await, Asked::Taken);
    database.execute(&format!("UPDATE stagemill.run SET owner = '{EXECUTION}#5'")).await;
    assert_eq!(asked(&format!("{EXECUTION}#5"), &[]).await, Asked::Refused, "it has made enough");
    database.execute(&format!("UPDATE stagemill.run SET owner = '{EXECUTION}'")).await;
    database.drive(planned).await;
    assert_eq!(asked(EXECUTION, &[]).await, Asked::Ended);
    assert!(ledger::run::load(connection, 1).await.unwrap().has_rerun());
}
