//! Commands that act on a run in flight.

use nix::sys::signal::Signal;

use crate::support::{Db, JOB, send, wait};

/// A run that takes a while, in flight.
fn in_flight(db: &Db) -> std::process::Child {
    db.slow(0.01);
    let child = db.start(&["run", "job.json"]);
    db.wait_until("EXISTS (SELECT FROM pg_class WHERE relname = 'chunk') AND (SELECT count(*) > 2 FROM stagemill.chunk WHERE state = 'PROCESSED')");
    child
}

#[test]
fn a_run_is_paused_shown_as_held_back_unpaused_and_made_faster() {
    let db = Db::with_rows(400);
    let child = in_flight(&db);
    let said = db.ok(&["pause", "1", "--for", "30m", "--reason", "payroll"]);
    assert!(said.contains("run 1 is paused for 30 min") && said.contains("stagemill unpause 1"), "{said}");
    db.wait_until("NOT EXISTS (SELECT FROM stagemill.chunk WHERE state = 'ASSIGNED')");
    let status = db.ok(&["status", "1"]);
    assert!(status.contains("held back") && status.contains("paused by scratch: payroll"), "{status}");
    assert_eq!(db.json(&["status", "1", "--json"])["held"], "paused by scratch: payroll");
    // Its driver looks once a second.
    std::thread::sleep(std::time::Duration::from_millis(1_200));
    let unpaused = db.json(&["unpause", "1", "--json"]);
    assert_eq!(unpaused["lifted"][0], "paused by scratch: payroll");
    assert!(db.ok(&["unpause", "1"]).contains("was not paused"));
    assert!(db.ok(&["set-parallelism", "1", "8"]).contains("run 1 may apply 8 chunks at a time"));
    let ended = wait(child);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(ended.err.contains("held back: paused by scratch: payroll"), "{ended:?}");
    assert!(ended.out.contains("8 sessions") && ended.out.contains("held back"), "{ended:?}");
    assert!(db.applied_once());
    for command in [&["pause", "1"][..], &["unpause", "1"], &["stop", "1"], &["set-parallelism", "1", "2"]] {
        db.fails(command, 2, &["run 1 has ended COMPLETE"]);
    }
    db.fails(&["pause", "7"], 2, &["there is no run 7", "stagemill status"]);
    db.fails(&["pause", "1", "--for", "soon"], 2, &["no length of time", "30m"]);
    db.fails(&["set-parallelism", "1", "0"], 2, &["1..=1000"]);
}

#[test]
fn a_run_is_stopped_from_another_terminal_and_resumed() {
    let db = Db::with_rows(400);
    let child = in_flight(&db);
    let said = db.run(&["stop", "1"]);
    assert_eq!(said.code, Some(0), "{said:?}");
    assert!(said.out.contains("STOPPED") && said.err.contains("stagemill resume 1"), "{said:?}");
    let ended = wait(child);
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.out.contains("stopped by scratch"), "{ended:?}");
    assert_eq!(db.sql("SELECT count(*) FROM pg_stat_activity WHERE application_name ~ '^stagemill:1:[0-9]+:[0-9]+$' AND datname = current_database()"), "0");
    db.sql("DROP TRIGGER slow ON target");
    db.ok(&["resume", "1", "--quiet"]);
    assert!(db.applied_once());
}

#[test]
fn a_run_whose_owner_was_killed_is_closed_by_stop() {
    let db = Db::with_rows(400);
    let child = in_flight(&db);
    send(&child, Signal::SIGKILL);
    wait(child);
    let stopped = db.json(&["stop", "1", "--json"]);
    assert_eq!(stopped["status"], "STOPPED", "{stopped}");
    db.sql("DROP TRIGGER slow ON target");
    db.ok(&["resume", "1", "--quiet"]);
    assert!(db.applied_once());
}

#[test]
fn auto_limits_and_deadlines_are_read_and_refused_with_a_reason() {
    let db = Db::with_rows(100);
    let with = |fields: &str| db.file("job.json", &JOB.replace("\"parallelism\": 2", fields));
    with("\"parallelism\": \"auto\", \"deadline_minutes\": 10, \"limits\": {\"waiting_locks\": 1000}");
    let run = db.ok(&["run", "job.json", "--quiet"]);
    assert!(run.contains("(auto, up to 64)") && run.contains("met, "), "{run}");
    assert!(db.applied_once());
    assert!(db.ok(&["run", "job.json", "--quiet", "--parallelism", "3"]).contains("3 sessions"));
    db.fails(&["run", "job.json", "--parallelism", "many"], 2, &["neither a number nor `auto`"]);
    for (fields, said) in [
        ("\"parallelism\": \"fast\"", "expected a number, \"auto\", or {\"auto\": the most to try}"),
        ("\"parallelism\": {\"auto\": 2000}", "parallelism is 2000"),
        ("\"deadline_minutes\": 0", "deadline_minutes is 0"),
        ("\"limits\": {\"load\": 3}", "unknown field `load`"),
        ("\"limits\": {\"abort_after_minutes\": 3}", "goes with a limit"),
        ("\"limits\": {\"sql\": \" \"}", "limits.sql is an empty expression"),
        ("\"limits\": {\"sql\": \"SELECT 1\"}", "one boolean"),
    ] {
        with(fields);
        db.fails(&["run", "job.json"], 2, &[said]);
    }
}
