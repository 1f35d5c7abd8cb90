//! SIGKILL at random moments, many times, then resume: an increment shows every row that was applied twice or not at all.

use std::{
    thread,
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;

use crate::support::{Db, send, wait};

/// Kills in one test; `STAGEMILL_KILLS` for more.
const KILLS: u32 = 25;

#[test]
fn a_run_killed_at_random_moments_and_resumed_applies_every_row_once() {
    let kills: u32 = std::env::var("STAGEMILL_KILLS").ok().and_then(|text| text.parse().ok()).unwrap_or(KILLS);
    // Its seed reproduces a failure, as far as the machine's speed allows.
    let seed =
        std::env::var("STAGEMILL_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or_else(|| fastrand::u64(..));
    let mut dice = fastrand::Rng::with_seed(seed);
    let (mut struck, mut runs) = (0, 0);
    while struck < kills {
        let db = Db::with_rows(2_000);
        db.slow(0.000_5);
        runs += 1;
        struck += kill_until_done(&db, &mut dice);
        assert!(db.applied_once(), "seed {seed}, after {struck} kills");
        assert_eq!(
            db.sql("SELECT status || ' ' || staged || ' ' || chunks_processed FROM stagemill.run WHERE round > 0"),
            "COMPLETE 2000 200",
            "seed {seed}"
        );
    }
    eprintln!("{struck} kills in {runs} runs, seed {seed}");
}

/// Runs a job, killing whoever drives it, until it is complete. Returns the kills that struck before the end.
fn kill_until_done(db: &Db, dice: &mut fastrand::Rng) -> u32 {
    let mut kills = 0;
    loop {
        // Until its plan is written a run has applied nothing, and is started anew; then only `resume` goes on with it.
        let planned = db.sql("SELECT max(run_id) FROM stagemill.run WHERE round > 0");
        let resume = ["resume", &planned, "--quiet"];
        let child = db.start(if planned.is_empty() { &["run", "job.json", "--quiet", "--abandon"] } else { &resume });
        // From the start of the process to the middle of the rest.
        thread::sleep(Duration::from_millis(dice.u64(20..600)));
        send(&child, Signal::SIGKILL);
        let ended = wait(child);
        if ended.code.is_none() {
            kills += 1;
        }
        if db.sql("SELECT count(*) FROM stagemill.run WHERE status = 'COMPLETE'") == "1" {
            return kills;
        }
    }
}

#[test]
fn the_statements_of_a_killed_run_end_soon_and_leave_nothing() {
    let db = Db::with_rows(40);
    db.slow(1.0);
    let run = db.start(&["run", "job.json"]);
    db.wait_until("count(*) = 2 FROM stagemill.chunk WHERE state = 'ASSIGNED'");
    send(&run, Signal::SIGKILL);
    wait(run);
    let killed = Instant::now();
    db.wait_until("NOT EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database() AND application_name LIKE 'stagemill%')");
    assert!(
        killed.elapsed() < Duration::from_secs(2),
        "a chunk takes 10 s, its orphan ran on for {:?}",
        killed.elapsed()
    );
    assert!(db.untouched());
}
