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
    let kills = wanted(KILLS);
    let (seed, mut dice) = dice();
    let (mut struck, mut runs) = (0, 0);
    while struck < kills {
        let db = Db::with_rows(2_000);
        db.slow(0.000_5);
        runs += 1;
        struck += kill_until_done(&db, &mut dice, &|| {});
        assert!(db.applied_once(), "seed {seed}, after {struck} kills");
        assert_eq!(
            db.sql("SELECT status || ' ' || staged || ' ' || chunks_processed FROM stagemill.run WHERE round > 0"),
            "COMPLETE 2000 200",
            "seed {seed}"
        );
    }
    eprintln!("{struck} kills in {runs} runs, seed {seed}");
}

fn wanted(kills: u32) -> u32 {
    std::env::var("STAGEMILL_KILLS").ok().and_then(|text| text.parse().ok()).unwrap_or(kills)
}

/// Its seed reproduces a failure, as far as the machine's speed allows.
fn dice() -> (u64, fastrand::Rng) {
    let seed =
        std::env::var("STAGEMILL_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or_else(|| fastrand::u64(..));
    (seed, fastrand::Rng::with_seed(seed))
}

/// Keys with changes that are applied, refused by the guard, superseded or bad.
const CHANGED_KEYS: u32 = 1_000;

/// 1,300 changes of 1,000 keys, which leave the stage as they are applied; each application of a key is noted.
fn with_changes() -> Db {
    let db = Db::empty();
    db.sql(&format!(
        "CREATE TABLE target (id int PRIMARY KEY, n int, last_seq bigint);
         INSERT INTO target SELECT g, 0, CASE WHEN g % 50 = 1 THEN 9 ELSE 0 END FROM generate_series(1, {CHANGED_KEYS} / 2) g;
         CREATE TABLE stage (id int, v text, op text, seq bigint); CREATE INDEX ON stage (id);
         INSERT INTO stage SELECT g, g, CASE WHEN g % 7 = 0 AND g <= {CHANGED_KEYS} / 2 THEN 'D' ELSE 'U' END, 5 FROM generate_series(1, {CHANGED_KEYS}) g ORDER BY md5(g::text);
         INSERT INTO stage SELECT g, -1, 'U', 3 FROM generate_series(1, 300) g WHERE g % 50 <> 10;
         UPDATE stage SET v = 'bad' WHERE id % 50 = 10 AND op = 'U';
         CREATE TABLE staged AS TABLE stage; CREATE TABLE applied (id int);
         CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
             PERFORM pg_sleep(0.0005); INSERT INTO applied VALUES (COALESCE(NEW.id, OLD.id)); RETURN NULL; END $$;
         CREATE TRIGGER note AFTER INSERT OR UPDATE OR DELETE ON target FOR EACH ROW EXECUTE FUNCTION note(); ANALYZE"
    ));
    db.ok(&["init"]);
    db.file(
        "job.json",
        r#"{"name": "changes", "stage": {"table": "stage"}, "target": {"table": "target", "key": ["id"]}, "operation": "changes",
            "columns": {"id": "stage.id", "n": "CAST(stage.v AS int)"}, "changes": {"operation": "op", "order": "seq", "guard": "last_seq"},
            "stage_rows": "delete", "on_bad_row": "quarantine", "max_rejects": 100, "chunks": {"rows": 10}, "parallelism": 2}"#,
    );
    db
}

/// Keys of which some changes have left the stage and others have not, or that left it without being applied once, or were applied and are
/// still there, or are set aside twice or beside being applied. A row that is set aside stays in the stage.
const LOST_OR_TWICE: &str = "
    SELECT count(*) FROM (SELECT id, count(*) AS all_of_it, bool_or(v = 'bad') AS bad FROM staged GROUP BY id) k
    LEFT JOIN (SELECT id, count(*) AS n FROM stage GROUP BY id) s USING (id) LEFT JOIN (SELECT id, count(*) AS n FROM applied GROUP BY id) a USING (id)
    LEFT JOIN (SELECT (staged_row ->> 'id')::int AS id, count(*) AS n FROM stagemill.reject WHERE retried_in IS NULL GROUP BY 1) r USING (id)
    WHERE NOT CASE WHEN bad THEN s.n = 1 AND a.n IS NULL AND COALESCE(r.n, 0) <= 1
                   WHEN s.n IS NULL THEN r.n IS NULL AND COALESCE(a.n, 0) = CASE WHEN id % 50 = 1 AND id <= 500 THEN 0 ELSE 1 END
                   ELSE s.n = all_of_it AND a.n IS NULL AND r.n IS NULL END";

#[test]
fn changes_killed_at_random_moments_are_applied_once_or_in_the_stage_or_set_aside() {
    let kills = wanted(KILLS / 3);
    let (seed, mut dice) = dice();
    let (mut struck, mut runs) = (0, 0);
    while struck < kills {
        let db = with_changes();
        runs += 1;
        let holds = || assert_eq!(db.sql(LOST_OR_TWICE), "0", "seed {seed}, run {runs}");
        struck += kill_until_done(&db, &mut dice, &holds);
        holds();
        let bad = db.sql("SELECT count(*) FROM staged WHERE v = 'bad'");
        assert_eq!(db.sql("SELECT status || ' ' || rejected || ' ' || (staged = (SELECT count(*) FROM staged)) FROM stagemill.run WHERE round > 0"), format!("COMPLETE_WITH_REJECTS {bad} true"), "seed {seed}");
        assert_eq!(db.sql("SELECT count(*) FROM stage WHERE v <> 'bad'"), "0", "seed {seed}");
    }
    eprintln!("{struck} kills in {runs} runs of changes, seed {seed}");
}

/// Runs a job, killing whoever drives it, until it is complete. Returns the kills that struck before the end; `holds` is asked after each.
fn kill_until_done(db: &Db, dice: &mut fastrand::Rng, holds: &dyn Fn()) -> u32 {
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
            holds();
        }
        if db.sql("SELECT count(*) FROM stagemill.run WHERE status LIKE 'COMPLETE%'") == "1" {
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
