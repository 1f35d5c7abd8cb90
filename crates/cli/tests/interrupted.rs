//! Ctrl-C: once lets what is in flight finish, twice ends at once; neither loses or repeats a row.

use std::{
    process::Child,
    thread,
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;

use crate::support::{Db, JOB, send, wait};

const ONE_PROCESSED: &str = "EXISTS (SELECT FROM stagemill.chunk WHERE state = 'PROCESSED')";

#[test]
fn an_interrupted_run_is_completed_by_resume() {
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        let db = Db::with_rows(60);
        db.slow(0.03);
        let run = db.start(&["run", "job.json"]);
        db.wait_until(ONE_PROCESSED);
        send(&run, signal);
        let run = wait(run);
        assert_eq!(run.code, Some(130), "{run:?}");
        assert!(run.out.contains("INTERRUPTED") && run.err.contains("stopping: what is in flight finishes"), "{run:?}");
        assert!(run.err.contains("stagemill resume 1    goes on with the rest"), "{run:?}");
        assert_eq!(db.sql("SELECT status FROM stagemill.run"), "INTERRUPTED");
        assert_eq!(db.sql("SELECT count(*) FROM stagemill.chunk WHERE state = 'ASSIGNED'"), "0");
        assert!(!db.applied_once());
        assert!(db.ok(&["status", "1"]).contains("nobody is working on it"));
        db.fails(&["run", "job.json"], 5, &["INTERRUPTED", "stagemill resume 1"]);
        assert!(db.ok(&["resume", "1"]).contains("COMPLETE"));
        assert!(db.applied_once());
    }
}

#[test]
fn an_interrupt_while_the_last_chunks_finish_leaves_nothing_to_resume() {
    let db = Db::with_rows(20);
    db.slow(0.1);
    let run = db.start(&["run", "job.json"]);
    db.wait_until("count(*) = 2 FROM stagemill.chunk WHERE state = 'ASSIGNED'");
    send(&run, Signal::SIGINT);
    let run = wait(run);
    assert_eq!(run.code, Some(0), "{run:?}");
    assert!(run.out.contains("COMPLETE") && db.applied_once(), "{run:?}");
}

#[test]
fn a_second_interrupt_ends_at_once_and_the_server_rolls_back() {
    let db = Db::with_rows(40);
    db.slow(0.5);
    let run = db.start(&["run", "job.json"]);
    db.wait_until("count(*) = 2 FROM stagemill.chunk WHERE state = 'ASSIGNED'");
    let start = Instant::now();
    send(&run, Signal::SIGINT);
    thread::sleep(Duration::from_millis(300));
    send(&run, Signal::SIGINT);
    let run = wait(run);
    assert_eq!(run.code, Some(130), "{run:?}");
    assert!(start.elapsed() < Duration::from_secs(2), "a chunk takes 5 s");
    assert!(db.untouched());
    db.sql("DROP TRIGGER slow ON target");
    assert!(db.ok(&["resume", "1"]).contains("COMPLETE"));
    assert!(db.applied_once());
}

#[test]
fn a_run_interrupted_while_it_is_planned_leaves_nothing_open() {
    let db = Db::with_rows(40);
    let run = planning(&db);
    send(&run, Signal::SIGINT);
    let run = wait(run);
    assert_eq!(run.code, Some(130), "{run:?}");
    assert!(run.err.contains("nothing was applied, start it again"), "{run:?}");
    assert_eq!(db.sql("SELECT status FROM stagemill.run"), "FAILED");
    assert!(db.untouched());
}

#[test]
fn a_second_interrupt_ends_a_planning_at_once_that_can_not_be_closed() {
    let db = Db::with_rows(40);
    let run = planning(&db);
    thread::scope(|scope| {
        scope.spawn(|| db.sql("BEGIN; LOCK TABLE stagemill.run; SELECT pg_sleep(5)"));
        let lock = "EXISTS (SELECT FROM pg_locks WHERE relation = 'stagemill.run'::regclass AND granted = ";
        db.wait_until(&format!("{lock} true AND mode = 'AccessExclusiveLock')"));
        send(&run, Signal::SIGINT);
        db.wait_until(&format!("{lock} false)"));
        let start = Instant::now();
        send(&run, Signal::SIGINT);
        let run = wait(run);
        assert_eq!(run.code, Some(130), "{run:?}");
        assert!(run.err.contains("ended at once"), "{run:?}");
        assert!(start.elapsed() < Duration::from_secs(2), "the lock is held for 5 s");
    });
    db.wait_until("NOT EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database() AND application_name LIKE 'stagemill%')");
    db.fails(&["run", "job.json"], 5, &["status PLANNING", "which is gone", "stagemill run job.json --abandon"]);
    db.sql("CREATE OR REPLACE FUNCTION dawdle(id bigint) RETURNS boolean LANGUAGE sql AS 'SELECT true'");
    assert!(db.ok(&["run", "job.json", "--abandon"]).contains("COMPLETE"));
    assert!(db.applied_once());
}

/// A run whose planning takes long.
fn planning(db: &Db) -> Child {
    db.sql("CREATE FUNCTION dawdle(id bigint) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(0.5); RETURN true; END $$");
    db.file("job.json", &JOB.replace("\"public.stage\" }", "\"public.stage\", \"where\": \"dawdle(stage.id)\" }"));
    let run = db.start(&["run", "job.json"]);
    db.wait_until("EXISTS (SELECT FROM stagemill.run WHERE status = 'PLANNING')");
    run
}
