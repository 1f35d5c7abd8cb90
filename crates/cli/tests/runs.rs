//! Runs that go well, runs that don't, and runs that are in each other's way.

use nix::sys::signal::Signal;

use crate::support::{Db, JOB, send, wait};

#[test]
fn a_run_applies_every_row_and_the_log_table_says_so() {
    let db = Db::with_rows(500);
    assert!(db.ok(&["check", "job.json"]).contains("it can run"));
    let plan = db.ok(&["plan", "job.json"]);
    for fragment in [
        "key: ranges of id",
        "50, up to 10 rows",
        "UPDATE \"public\".\"target\"",
        "Update on target  (cost=",
        "Nothing was written",
    ] {
        assert!(plan.contains(fragment), "{plan}");
    }
    assert!(db.untouched());
    let run = db.run(&["run", "job.json"]);
    assert_eq!(run.code, Some(0), "{run:?}");
    for fragment in ["COMPLETE", "500 staged = 500 updated", "50 of 50 applied; 0 retries, 2 sessions", "increment_"] {
        assert!(run.out.contains(fragment), "{run:?}");
    }
    assert!(db.applied_once());
    assert!(db.ok(&["status"]).contains("COMPLETE"));
    assert!(db.ok(&["status", "1"]).contains("500 staged = 500 updated"));
    assert!(db.ok(&["chunks", "1", "--open"]).contains("every one of its 50 chunks was applied"));
    assert!(db.ok(&["chunks", "1"]).contains("keys above (20) up to (40)"));
    db.fails(&["resume", "1"], 2, &["run 1 is complete: there is nothing to resume"]);
    let log = db.log();
    for line in log.lines() {
        serde_json::from_str::<serde_json::Value>(line).unwrap();
    }
    assert!(
        log.contains("ended COMPLETE: 50 of 50 chunks applied, 500 rows") && log.contains("\"staged_rows\":500"),
        "{log}"
    );
}

#[test]
fn programs_read_json() {
    let db = Db::with_rows(100);
    let init = db.json(&["init", "--json"]);
    assert!(init["version"].as_u64() > Some(0) && init["version"] == init["found_version"], "{init}");
    let summary = db.json(&["run", "job.json", "--quiet", "--json"]);
    assert_eq!((&summary["status"], &summary["counts"]["updated"]), (&"COMPLETE".into(), &100.into()));
    assert!(summary["log"].as_str().unwrap().starts_with("increment_"), "{summary}");
    assert_eq!(db.json(&["status", "1", "--json"])["percent"], 100);
    assert_eq!(db.json(&["status", "--json", "--job", "increment", "--limit", "5"]).as_array().unwrap().len(), 1);
    assert_eq!(db.json(&["status", "--json", "--job", "other"]).as_array().unwrap().len(), 0);
    assert_eq!(db.json(&["chunks", "1", "--json"]).as_array().unwrap().len(), 10);
    assert_eq!(db.json(&["check", "job.json", "--json"])["ok"], true);
    let plan = db.json(&["plan", "job.json", "--json", "--rows", "50"]);
    assert_eq!(
        (&plan["by"], &plan["chunks"], &plan["first_chunks"][0]["rows"]),
        (&"key".into(), &2.into(), &50.into())
    );
    assert!(plan["sql"].as_str().unwrap().starts_with("WITH \"stagemill staged\" AS MATERIALIZED"));
    assert!(plan["explain"].as_str().unwrap().contains("(cost="), "{plan}");
}

#[test]
fn a_job_of_the_job_table_runs_by_its_name() {
    let db = Db::with_rows(100);
    assert!(db.ok(&["job", "list"]).contains("empty"));
    assert!(db.ok(&["job", "put", "job.json"]).contains("job increment is stored"));
    assert!(db.ok(&["job", "list"]).contains("increment"));
    assert_eq!(db.json(&["job", "list", "--json"])[0]["name"], "increment");
    assert_eq!(db.json(&["job", "show", "increment"])["parallelism"], 2);
    db.ok(&["check", "increment"]);
    assert!(db.ok(&["run", "increment", "--parallelism", "3", "--rows", "7"]).contains("3 sessions"));
    assert_eq!(db.sql("SELECT max(staged) FROM stagemill.chunk"), "7");
    assert!(db.applied_once());
}

#[test]
fn a_chunk_that_fails_is_named_and_resume_applies_it_once_mended() {
    let db = Db::with_rows(100);
    let job = JOB.replace("\"stage.note\"", "\"CAST(CAST(stage.note AS integer) AS text)\"");
    db.file("job.json", &job);
    db.sql("UPDATE stage SET note = '1'; UPDATE stage SET note = 'secret-4711' WHERE id = 100");
    let run = db.fails(
        &["run", "job.json"],
        1,
        &["INCOMPLETE", "9 of 10 applied, 1 failed", "stagemill chunks 1 --open", "stagemill resume 1"],
    );
    assert!(run.err.contains("chunk 5 failed: a text is not valid for its type (SQLSTATE 22P02) [BadData]"), "{run:?}");
    let open = db.ok(&["chunks", "1", "--open"]);
    assert!(open.contains("PROCESSED_WITH_ERROR") && open.contains("22P02") && !open.contains("4711"), "{open}");
    assert!(db.ok(&["chunks", "1", "--open", "--detail"]).contains("secret-4711"));
    let log = db.log();
    assert!(
        log.contains("\"class\":\"BadData\"")
            && log.contains("\"sqlstate\":\"22P02\"")
            && log.contains("ended INCOMPLETE"),
        "{log}"
    );
    for said in [&run.out, &run.err, &log, &db.ok(&["status", "1"]), &db.ok(&["chunks", "1", "--json"])] {
        assert!(!said.contains("4711"), "{said}");
    }
    db.fails(&["resume", "1"], 1, &["INCOMPLETE"]);
    db.sql("UPDATE stage SET note = '2' WHERE id = 100");
    assert!(db.ok(&["resume", "1"]).contains("10 of 10 applied"));
    assert!(db.applied_once());
}

#[test]
fn a_second_run_is_turned_away_by_name_while_the_first_one_lives() {
    let db = Db::with_rows(40);
    db.slow(0.05);
    let first = db.start(&["run", "job.json"]);
    db.wait_until("EXISTS (SELECT FROM stagemill.chunk WHERE state = 'ASSIGNED')");
    for args in [&["run", "job.json"][..], &["run", "job.json", "--abandon"]] {
        db.fails(
            args,
            5,
            &["run 1 of job increment is open, so that nothing was started", "through session", "wait for it"],
        );
    }
    // Another job on the same tables is in the way as well.
    db.file("other.json", &JOB.replace("\"increment\"", "\"other\""));
    let json = db.run(&["run", "other.json", "--json"]);
    let json: serde_json::Value = serde_json::from_str(&json.out).unwrap();
    assert_eq!((&json["error"]["exit"], &json["error"]["open_run"]), (&5.into(), &1.into()));
    db.fails(&["run", "other.json"], 5, &["on the same tables (public.stage to public.target)"]);
    let first = wait(first);
    assert_eq!(first.code, Some(0), "{first:?}");
    assert!(db.applied_once());
}

#[test]
fn a_run_whose_process_was_killed_is_resumed_or_abandoned() {
    let db = Db::with_rows(40);
    db.slow(0.05);
    for _ in 0..2 {
        let run = db.start(&["run", "job.json"]);
        db.wait_until("EXISTS (SELECT FROM stagemill.run r JOIN stagemill.chunk c USING (run_id) WHERE r.ended_at IS NULL AND c.state = 'PROCESSED')");
        send(&run, Signal::SIGKILL);
        assert_eq!(wait(run).code, None);
        // The server notices within half a second.
        db.wait_until("NOT EXISTS (SELECT FROM pg_stat_activity WHERE application_name LIKE 'stagemill:%' AND datname = current_database())");
        let id = db.sql("SELECT max(run_id) FROM stagemill.run");
        let resume = format!("stagemill resume {id}");
        db.fails(
            &["run", "job.json"],
            5,
            &["which is gone", &resume, "stagemill run job.json --abandon", "is applied again"],
        );
        assert!(db.ok(&["status", &id]).contains("nobody is working on it"));
        if id == "1" {
            db.ok(&["resume", "1"]);
            assert!(db.applied_once());
        } else {
            db.sql("ALTER TABLE target DISABLE TRIGGER slow; UPDATE target SET n = 100");
            db.ok(&["run", "job.json", "--abandon"]);
            assert_eq!(db.sql("SELECT status FROM stagemill.run WHERE run_id = 2"), "ABANDONED");
            assert!(db.applied_once());
        }
    }
    db.fails(&["resume", "2"], 2, &["run 2 can't be resumed: run 3"]);
}

#[test]
fn what_a_trigger_says_of_a_row_is_not_in_the_log() {
    let db = Db::with_rows(20);
    db.sql(
        "CREATE FUNCTION tell() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE NOTICE 'planted %', NEW.note; RETURN NEW; END $$;
         CREATE TRIGGER tell BEFORE UPDATE ON target FOR EACH ROW EXECUTE FUNCTION tell()",
    );
    let run = db.run(&["run", "job.json"]);
    assert_eq!(run.code, Some(0), "{run:?}");
    assert!(!format!("{run:?} {}", db.log()).contains("planted"), "{}", db.log());
}
