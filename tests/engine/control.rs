//! Runs that are paused, stopped, made faster or slower, or held back by their limits, while they go.

use std::time::Duration;

use stagemill_engine::{
    apply::{self, Left, Stop, Worker},
    chunk::Item,
    failure::{Class, Failure},
    gate::{self, Tended},
    job::Job,
    ledger::{self, hold, pace},
    outcome::Status,
};

use crate::database::{Database, job};

/// 200 staged increments, 4 ms each.
const INCREMENTS: &str = "
    CREATE TABLE target (id int PRIMARY KEY, n int NOT NULL DEFAULT 0); INSERT INTO target SELECT g FROM generate_series(1, 200) g;
    CREATE TABLE stage (id int PRIMARY KEY, n int); INSERT INTO stage SELECT g, g FROM generate_series(1, 200) g;
    CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(0.004); RETURN NEW; END $$;
    CREATE TRIGGER slow BEFORE UPDATE ON target FOR EACH ROW EXECUTE FUNCTION slow();
    CREATE TABLE busy (); ANALYZE;";

const WHOLE: Item = Item { run: 1, round: 1, first: 1, last: 1_000, stalled: 0 };

/// Chunks of 5 rows; `more` are fields of the job.
fn increments(more: &str) -> Job {
    job(&format!(
        r#"{{"name": "increments", "stage": {{"table": "stage"}}, "target": {{"table": "target", "key": ["id"]}}, "operation": "update",
            "columns": {{"id": "stage.id", "n": "target.n + stage.n"}}, "chunks": {{"by": "key", "rows": 5}}{more}}}"#
    ))
}

async fn applied(database: &Database) -> i32 {
    database.value("SELECT count(*) FROM stagemill.chunk WHERE state = 'PROCESSED'").await.parse().unwrap()
}

async fn every_row_once(database: &Database) {
    assert_eq!(database.value("SELECT count(*) FROM target WHERE n <> id").await, "0");
}

/// Waits until a query answers `true`.
async fn until(database: &Database, condition: &str) {
    for _ in 0..1_000 {
        if database.value(&format!("SELECT {condition}")).await == "true" {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("{condition} never held");
}

/// One call of an executor, which knows of no other worker.
async fn executor(database: &Database, item: Item) -> Result<Left, Failure> {
    let connection = database.another_connection().await;
    let run = ledger::run::load(&connection, 1).await.unwrap();
    let worker = Worker { connection: &connection, run: &run, name: "test", rank: None };
    apply::item(worker, &item, &Stop::default(), &|_| {}).await
}

#[tokio::test]
async fn a_paused_run_starts_nothing_until_it_is_unpaused_and_the_ledger_tells_how_long_it_was_held() {
    let database = Database::with(INCREMENTS).await;
    let answer = database.planned(&increments(r#", "parallelism": 2"#), "me").await;
    assert!(hold::set(&database.connection, 1, hold::PEOPLE, "paused by a test", None).await.unwrap());
    let meanwhile = async {
        tokio::time::sleep(Duration::from_millis(700)).await;
        assert_eq!(applied(&database).await, 0);
        let summary = ledger::summary::of_run(&database.connection, 1).await.unwrap();
        assert_eq!(summary.held.as_deref(), Some("paused by a test"));
        assert!(hold::lift(&database.connection, 1, hold::PEOPLE).await.unwrap());
    };
    let (summary, ()) = tokio::join!(database.drive(answer), meanwhile);
    assert_eq!((summary.status, summary.held), (Status::Complete, None));
    assert!(summary.held_seconds >= 0.7, "{}", summary.held_seconds);
    every_row_once(&database).await;
    // What has ended can't be held.
    assert!(!hold::set(&database.connection, 1, hold::PEOPLE, "late", None).await.unwrap());
}

#[tokio::test]
async fn each_owner_lifts_its_own_hold_and_one_that_runs_out_holds_no_longer() {
    let database = Database::with(INCREMENTS).await;
    database.planned(&increments(""), "me").await;
    let (connection, second) = (&database.connection, Some(Duration::from_millis(300)));
    hold::set(connection, 1, hold::PEOPLE, "by a person", None).await.unwrap();
    hold::set(connection, 1, "cpu-alarm", "by an alarm", second).await.unwrap();
    assert!(hold::lift(connection, 1, hold::PEOPLE).await.unwrap());
    assert!(!hold::lift(connection, 1, hold::PEOPLE).await.unwrap());
    let left = hold::in_force(connection, 1).await.unwrap();
    assert_eq!(left.iter().map(|hold| hold.owner.as_str()).collect::<Vec<_>>(), ["cpu-alarm"]);
    let call = executor(&database, WHOLE).await.unwrap();
    assert_eq!((call.chunks.len(), call.held_back), (40, true));
    tokio::time::sleep(Duration::from_millis(350)).await;
    assert_eq!(executor(&database, Item { last: 2, ..WHOLE }).await.unwrap(), Left::default());
    // Set anew after it ran out, it is another one: the time between the two counts for neither.
    hold::set(connection, 1, "cpu-alarm", "by an alarm", second).await.unwrap();
    assert_eq!(database.value("SELECT count(*) FROM stagemill.hold WHERE owner = 'cpu-alarm'").await, "2");
}

#[tokio::test]
async fn an_executor_starts_nothing_while_as_many_chunks_as_may_be_are_in_flight() {
    let database = Database::with(INCREMENTS).await;
    database.planned(&increments(r#", "parallelism": 8"#), "me").await;
    assert_eq!(pace::fix(&database.connection, 1, 2, "a test").await.unwrap(), Some(8));
    // Two that are at work: nothing tells them from workers but their locks.
    let (one, two) = (database.another_connection().await, database.another_connection().await);
    let lock = format!("BEGIN; {}", ledger::chunk::lock_run(1));
    one.batch(&lock).await.unwrap();
    two.batch(&lock).await.unwrap();
    let call = executor(&database, Item { first: 3, last: 9, ..WHOLE }).await.unwrap();
    assert_eq!(call, Left { chunks: (3..=9).collect(), held_back: true });
    assert_eq!(database.value("SELECT max(attempt) FROM stagemill.chunk").await, "0");
    // One that died is not counted.
    drop(two);
    until(&database, "(SELECT count(*) FROM pg_locks WHERE locktype = 'advisory') < 2").await;
    assert_eq!(executor(&database, Item { first: 3, last: 9, ..WHOLE }).await.unwrap(), Left::default());
}

#[tokio::test]
async fn a_run_goes_faster_and_slower_while_it_goes() {
    let database = Database::with(INCREMENTS).await;
    database.execute("UPDATE stage SET n = n; ALTER TABLE target ADD at_once int").await;
    // Each chunk notes how many were in flight with it.
    let noted = r#", "parallelism": 1"#;
    let answer = database.planned(&increments(noted), "me").await;
    let in_flight = "(SELECT count(*) FROM pg_stat_activity WHERE application_name ~ '^stagemill:1:[0-9]+:[0-9]+$' AND datname = current_database())";
    let meanwhile = async {
        until(&database, &format!("{in_flight} = 1")).await;
        pace::fix(&database.connection, 1, 6, "a test").await.unwrap();
        until(&database, &format!("{in_flight} = 6")).await;
        pace::fix(&database.connection, 1, 2, "a test").await.unwrap();
        until(&database, &format!("{in_flight} <= 2")).await;
        let rest = database.value("SELECT count(*) FROM stagemill.chunk WHERE state <> 'PROCESSED'").await;
        assert_ne!(rest, "0", "the run was over before it was made slower");
    };
    // Slow enough to be watched.
    database.execute("CREATE OR REPLACE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(0.03); RETURN NEW; END $$").await;
    let (summary, ()) = tokio::join!(database.drive(answer), meanwhile);
    assert_eq!((summary.status, summary.parallelism, summary.allowed), (Status::Complete, 2, 2));
    every_row_once(&database).await;
    assert_eq!(
        database.value("SELECT string_agg(allowed || ' ' || reason, ', ' ORDER BY since) FROM stagemill.pace").await,
        "6 a test, 2 a test"
    );
}

#[tokio::test]
async fn a_stopped_run_finishes_what_is_in_flight_is_closed_and_resumes() {
    let database = Database::with(INCREMENTS).await;
    let answer = database.planned(&increments(r#", "parallelism": 2"#), "me").await;
    let why = Failure::new(Class::Stopped, "stopped by a test");
    let meanwhile = async {
        until(&database, "(SELECT count(*) FROM stagemill.chunk WHERE state = 'PROCESSED') > 2").await;
        assert!(ledger::run::stop(&database.connection, 1, &why).await.unwrap());
    };
    let (summary, ()) = tokio::join!(database.drive(answer), meanwhile);
    assert_eq!((summary.status, summary.error.as_deref()), (Status::Stopped, Some("stopped by a test")));
    assert!((3..40).contains(&summary.tally.processed), "{:?}", summary.tally);
    let in_flight = "SELECT count(*) FROM pg_stat_activity WHERE application_name ~ '^stagemill:1:[0-9]+:[0-9]+$' AND datname = current_database()";
    assert_eq!(database.value(in_flight).await, "0");
    assert!(!ledger::run::stop(&database.connection, 1, &why).await.unwrap(), "it has ended");
    let answer = stagemill_engine::resume::run(&database.connection, 1, "you", false).await.unwrap();
    assert_eq!(database.drive(answer).await.status, Status::Complete);
    every_row_once(&database).await;
}

const LIMITED: &str = r#", "parallelism": 4, "limits": {"sql": "SELECT EXISTS (SELECT FROM busy)"}"#;

#[tokio::test]
async fn a_limit_holds_the_run_back_while_it_is_exceeded_and_then_it_goes_on_slower() {
    let database = Database::with(INCREMENTS).await;
    database.execute("INSERT INTO busy DEFAULT VALUES").await;
    let answer = database.planned(&increments(LIMITED), "me").await;
    let meanwhile = async {
        until(&database, "EXISTS (SELECT FROM stagemill.hold WHERE reason = 'limits.sql says so')").await;
        let before = applied(&database).await;
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert!(applied(&database).await <= before + 4, "chunks in flight finish, no more");
        database.execute("DELETE FROM busy").await;
    };
    let (summary, ()) = tokio::join!(database.drive(answer), meanwhile);
    assert_eq!((summary.status, summary.allowed), (Status::Complete, 2));
    assert!(summary.held_seconds > 0.2, "{}", summary.held_seconds);
    let paces = database.value("SELECT string_agg(allowed || ' ' || reason, ', ') FROM stagemill.pace").await;
    assert_eq!(paces, "2 slower after a limit held it back");
    every_row_once(&database).await;
    // A while later it gains speed, step by step, up to where it was.
    let run = ledger::run::load(&database.connection, 1).await.unwrap();
    database.execute("UPDATE stagemill.run SET status = 'RUNNING', ended_at = NULL").await;
    for allowed in ["3", "4"] {
        database
            .execute(
                "UPDATE stagemill.run SET tended_at = NULL, tuning = tuning || '{\"faster_at\": 1, \"limits_at\": 0}'",
            )
            .await;
        gate::tend(&database.connection, &run, gate::EVERY).await.unwrap();
        assert_eq!(database.value("SELECT allowed FROM stagemill.run_status").await, allowed);
    }
}

#[tokio::test]
async fn what_others_do_at_the_server_is_a_limit_and_what_the_run_does_is_none() {
    for (limits, reason) in [
        (r#""active_sessions": 0"#, "1 sessions of others are active (limit 0)"),
        (r#""transaction_age_seconds": 0"#, "a transaction of others has been open for"),
        (r#""waiting_locks": 0"#, "1 sessions of others wait for a lock (limit 0)"),
        (r#""free_connections": 100000"#, "connections are free (limit 100000)"),
        (r#""sql": "SELECT 1 / (SELECT count(*) FROM busy) > 0""#, "limits.sql can't be answered (22012)"),
    ] {
        let server = scratch_postgres::ScratchPostgres::builder().start().unwrap();
        let server = stagemill_engine::pg::Server::new(
            server.url("postgres").parse().unwrap(),
            &stagemill_engine::pg::Trust::System,
        )
        .map(|connect| (server, connect))
        .unwrap();
        exceeded(&server.1, limits, reason).await;
    }
}

/// On a server of its own: what the sessions of other tests do would be others' too.
async fn exceeded(server: &stagemill_engine::pg::Server, limits: &str, reason: &str) {
    let connection = server.connect("test").await.unwrap();
    ledger::schema::migrate(&connection).await.unwrap();
    connection.batch(INCREMENTS).await.unwrap();
    connection.batch("INSERT INTO busy DEFAULT VALUES").await.unwrap();
    let spec = increments(&format!(r#", "limits": {{{limits}}}"#));
    let start = stagemill_engine::plan::Start {
        owner: "me",
        trigger_id: None,
        followed_by: &[],
        job: &spec,
        dead: stagemill_engine::plan::DeadRun::Keep,
    };
    stagemill_engine::plan::start(&connection, &start).await.unwrap();
    let run = ledger::run::load(&connection, 1).await.unwrap();
    // Another session holds a lock, and one more waits for it or just works.
    connection.batch("TRUNCATE busy").await.unwrap();
    let (holder, other) = (server.connect("holder").await.unwrap(), server.connect("other").await.unwrap());
    let waits = limits.contains("waiting_locks");
    if waits || limits.contains("transaction_age") {
        holder.batch("BEGIN; LOCK TABLE busy").await.unwrap();
    }
    let work = if waits { "LOCK TABLE busy" } else { "SELECT pg_sleep(30)" };
    let busy = async {
        let _ = other.batch(&format!("BEGIN; {work}")).await;
    };
    let look = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        gate::tend(&connection, &run, gate::EVERY).await.unwrap();
        hold::in_force(&connection, 1).await.unwrap()
    };
    let holds = tokio::select! {
        () = busy => panic!("the other session was to be busy"),
        holds = look => holds,
    };
    assert!(holds.len() == 1 && holds[0].owner == hold::LIMITS && holds[0].reason.contains(reason), "{holds:?}");
}

#[tokio::test]
async fn a_run_is_ended_by_its_limits_only_where_the_job_asks_for_it() {
    let database = Database::with(INCREMENTS).await;
    database.execute("INSERT INTO busy DEFAULT VALUES").await;
    let asks = LIMITED.replace(r#"FROM busy)""#, r#"FROM busy)", "abort_after_minutes": 5"#);
    database.planned(&increments(&asks), "me").await;
    let run = ledger::run::load(&database.connection, 1).await.unwrap();
    let nothing = Tended { at_risk: None, tuning: false };
    assert_eq!(gate::tend(&database.connection, &run, gate::EVERY).await, Ok(Some(nothing)));
    for (held_for, ended) in [(299, false), (301, true)] {
        let back = format!(
            "UPDATE stagemill.run SET tended_at = NULL, tuning = jsonb_set(tuning || '{{\"limits_at\": 0}}', '{{held_since}}',
                                                                       to_jsonb(EXTRACT(epoch FROM now()) - {held_for}))"
        );
        database.execute(&back).await;
        let tended = gate::tend(&database.connection, &run, gate::EVERY).await;
        assert_eq!(tended.map_err(|failure| failure.class).err(), ended.then_some(Class::Stopped));
    }
    let why = "STOPPED held back for 5 min by its limits (limits.sql says so), after which its job asks for an end";
    assert_eq!(database.value("SELECT halted || ' ' || error FROM stagemill.run").await, why);
}

#[tokio::test]
async fn a_run_that_is_driven_while_its_limits_end_it_is_closed_and_a_resume_is_held_by_nothing() {
    let database = Database::with(INCREMENTS).await;
    database.execute("INSERT INTO busy DEFAULT VALUES").await;
    let asks = LIMITED.replace(r#"FROM busy)""#, r#"FROM busy)", "abort_after_minutes": 5"#);
    let answer = database.planned(&increments(&asks), "me").await;
    hold::set(&database.connection, 1, hold::PEOPLE, "paused too", None).await.unwrap();
    let meanwhile = async {
        until(&database, "EXISTS (SELECT FROM stagemill.hold WHERE owner = 'limits')").await;
        let long_ago =
            "UPDATE stagemill.run SET tuning = tuning || '{\"held_since\": 1}' WHERE halted IS NULL RETURNING 1";
        // Whoever looks after it may write its own memory over this.
        for _ in 0..20 {
            if database.connection.query_opt(long_ago, &[]).await.unwrap().is_none() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    };
    let (summary, ()) = tokio::join!(database.drive(answer), meanwhile);
    assert_eq!((summary.status, summary.tally.processed), (Status::Stopped, 0));
    assert_eq!(database.value("SELECT count(*) FROM stagemill.hold WHERE ended_at IS NULL").await, "0");
    database.execute("DELETE FROM busy").await;
    let answer = stagemill_engine::resume::run(&database.connection, 1, "you", false).await.unwrap();
    assert_eq!(database.drive(answer).await.status, Status::Complete);
    every_row_once(&database).await;
}

#[tokio::test]
async fn a_deadline_at_risk_is_told_once_and_before_it_is_missed() {
    let database = Database::with(INCREMENTS).await;
    database.planned(&increments(r#", "deadline_minutes": 30"#), "me").await;
    let run = ledger::run::load(&database.connection, 1).await.unwrap();
    let tend = async || {
        database.execute("UPDATE stagemill.run SET tended_at = NULL, tuning = NULL").await;
        gate::tend(&database.connection, &run, gate::EVERY).await.unwrap().unwrap().at_risk
    };
    assert_eq!(tend().await, None, "nothing is applied yet, so that nothing is known");
    executor(&database, Item { last: 2, ..WHOLE }).await.unwrap();
    assert_eq!(tend().await, None, "there is time enough");
    // 38 chunks are left, and two took 20 minutes: another six hours.
    database.execute("UPDATE stagemill.round SET opened_at = now() - interval '20 minutes'").await;
    let at_risk = tend().await.unwrap();
    assert!((20_000.0..22_000.0).contains(&at_risk.late_seconds), "{at_risk:?}");
    assert_eq!(tend().await, None, "it was told");
    let summary = ledger::summary::of_run(&database.connection, 1).await.unwrap();
    assert!(summary.late_seconds.is_some_and(|late| late > 20_000.0) && summary.deadline_met.is_none(), "{summary:?}");
    database.execute("UPDATE stagemill.run SET deadline_at = now() - interval '1 minute'").await;
    let summary = ledger::summary::of_run(&database.connection, 1).await.unwrap();
    assert_eq!(summary.deadline_met, Some(false));
}

#[tokio::test]
async fn a_run_that_finds_its_parallelism_itself_applies_every_row_once() {
    let database = Database::with(INCREMENTS).await;
    let summary = database.run(&increments(r#", "parallelism": {"auto": 16}"#)).await;
    assert_eq!((summary.status, summary.parallelism, summary.auto), (Status::Complete, 16, true));
    every_row_once(&database).await;
}

#[tokio::test]
async fn what_auto_counted_before_a_hold_says_nothing_after_it() {
    let database = Database::with(INCREMENTS).await;
    let limits = r#", "parallelism": "auto", "limits": {"sql": "SELECT EXISTS (SELECT FROM busy)"}"#;
    database.planned(&increments(limits), "me").await;
    let counted = r#"{"held_since": 1, "tuner": {"looks": 7, "active": 9, "window": [1, 100, 20]}}"#;
    database.execute(&format!("UPDATE stagemill.run SET tuning = '{counted}'")).await;
    let run = ledger::run::load(&database.connection, 1).await.unwrap();
    gate::tend(&database.connection, &run, gate::EVERY).await.unwrap();
    let left = "SELECT concat_ws(' ', tuning -> 'held_since', tuning #> '{tuner,looks}', tuning #> '{tuner,window}') FROM stagemill.run";
    assert_eq!(database.value(left).await, "null 0 null");
}

#[tokio::test]
async fn check_names_a_limit_that_would_never_hold_or_always() {
    let database = Database::with(INCREMENTS).await;
    let findings = async |limits: &str| {
        let job = increments(&format!(r#", "limits": {{{limits}}}"#));
        let checked = stagemill_engine::check::job(&database.connection, &job).await.unwrap();
        checked.findings.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
    };
    let text = findings(r#""sql": "SELECT count(*) FROM busy""#).await;
    assert!(text.contains("limits.sql") && text.contains("one boolean"), "{text}");
    let text = findings(r#""sql": "SELECT nonsense""#).await;
    assert!(text.contains("limits.sql") && text.contains("42703"), "{text}");
    database.execute("CREATE FUNCTION aurora_replica_status() RETURNS TABLE (replica_lag_in_msec float8) LANGUAGE plpgsql AS $$ BEGIN RAISE 'not for you'; END $$").await;
    let text = findings(r#""replica_lag_seconds": 4"#).await;
    assert!(text.contains("limits can't be measured") && text.contains("P0001"), "{text}");
    database.execute("DROP FUNCTION aurora_replica_status; CREATE SEQUENCE written").await;
    let text = findings(r#""sql": "SELECT nextval('written') > 0""#).await;
    assert!(text.contains("limits.sql") && text.contains("25006"), "{text}");
    assert!(!findings(r#""active_sessions": 4"#).await.contains("limits"));
    let role = format!("limited_{}", std::process::id());
    database.execute(&format!("CREATE ROLE {role}; GRANT SELECT ON stage TO {role}; GRANT SELECT, UPDATE ON target TO {role}; SET ROLE {role}")).await;
    for limit in
        ["active_sessions", "waiting_locks", "transaction_age_seconds", "free_connections", "replica_lag_seconds"]
    {
        let text = findings(&format!(r#""{limit}": 4"#)).await;
        assert!(text.contains(&format!("GRANT pg_read_all_stats TO \"{role}\"")), "{limit}: {text}");
    }
    database.execute("RESET ROLE").await;
}

#[tokio::test]
async fn a_run_that_limits_had_slowed_down_is_resumed_at_its_full_pace() {
    let database = Database::with(INCREMENTS).await;
    database.planned(&increments(LIMITED), "me").await;
    hold::set(&database.connection, 1, hold::LIMITS, "busy", Some(Duration::from_secs(60))).await.unwrap();
    database.execute("UPDATE stagemill.run SET allowed = 1, tuning = '{\"held_since\": 1}'").await;
    ledger::run::interrupt(&database.connection, 1, "me").await.unwrap();
    let answer = stagemill_engine::resume::run(&database.connection, 1, "you", false).await.unwrap();
    assert_eq!(database.value("SELECT allowed FROM stagemill.run").await, "NULL");
    assert_eq!(database.value("SELECT count(*) FROM stagemill.hold WHERE ended_at IS NULL").await, "0");
    assert_eq!(database.drive(answer).await.status, Status::Complete);
    every_row_once(&database).await;
}

#[tokio::test]
async fn a_stop_that_meets_the_opening_of_a_round_is_not_lost() {
    let database = Database::with(INCREMENTS).await;
    database.planned(&increments(""), "me").await;
    let recorder = database.another_connection().await;
    recorder.batch("BEGIN; UPDATE stagemill.run SET round = round + 1").await.unwrap();
    let why = Failure::new(Class::Stopped, "somebody asked");
    let opened = async {
        until(
            &database,
            "EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock')",
        )
        .await;
        recorder.batch("COMMIT").await.unwrap();
    };
    let stopper = database.another_connection().await;
    let (stopped, ()) = tokio::join!(ledger::run::stop(&stopper, 1, &why), opened);
    assert_eq!(stopped, Ok(true));
    assert_eq!(database.value("SELECT halted || ' ' || round FROM stagemill.run").await, "STOPPED 2");
}
