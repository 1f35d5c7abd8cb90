//! Deleting old runs.

use crate::support::{Db, JOB};

/// A run of a hundred days ago that was not complete, then one that was, and one of today.
fn with_old_runs() -> Db {
    let db = Db::with_rows(100);
    let numbers = JOB.replace("\"stage.note\"", "\"CAST(CAST(stage.note AS integer) AS text)\"");
    db.file("job.json", &numbers);
    db.sql("UPDATE stage SET note = '1'; UPDATE stage SET note = 'x' WHERE id = 100");
    db.fails(&["run", "job.json"], 1, &["INCOMPLETE"]);
    db.sql("UPDATE stage SET note = '1' WHERE id = 100");
    db.ok(&["run", "job.json"]);
    db.sql("UPDATE stagemill.run SET started_at = started_at - interval '100 days', planned_at = planned_at - interval '100 days', ended_at = ended_at - interval '100 days'");
    db
}

#[test]
fn old_runs_go_with_their_chunks_and_what_stays_is_said() {
    let db = with_old_runs();
    db.ok(&["run", "job.json"]);
    let all = "SELECT string_agg(run_id::text, ' ' ORDER BY run_id) FROM stagemill.run";
    assert!(db.ok(&["prune", "--older-than", "101d"]).contains("no run older than 101d to delete"));
    let dry = db.ok(&["prune", "--older-than", "90d", "--dry-run"]);
    assert!(dry.contains("would delete 2 runs with 20 chunks, from 20"), "{dry}");
    assert_eq!(db.sql(all), "1 2 3");
    assert!(db.ok(&["prune", "--older-than", "90d", "--job", "other"]).contains("no run of job other older than 90d"));
    let done = db.ok(&["prune", "--older-than", "90d"]);
    assert!(done.contains("deleted 2 runs with 20 chunks, from 20"), "{done}");
    assert_eq!(db.sql(all), "3");
    assert_eq!(db.sql("SELECT count(*) || ' ' || count(DISTINCT run_id) FROM stagemill.chunk"), "10 1");
}

#[test]
fn the_newest_run_and_the_last_complete_one_stay() {
    let db = with_old_runs();
    db.sql("UPDATE stage SET note = 'x' WHERE id = 100");
    db.fails(&["run", "job.json"], 1, &["INCOMPLETE"]);
    let json = db.json(&["prune", "--older-than", "0s", "--json"]);
    assert_eq!((&json["runs"], &json["chunks"], &json["dry_run"]), (&1.into(), &10.into(), &false.into()));
    assert_eq!(
        json["kept"],
        serde_json::json!([{"run": 2, "job": "increment", "status": "COMPLETE"}, {"run": 3, "job": "increment", "status": "INCOMPLETE"}])
    );
    let again = db.ok(&["prune", "--older-than", "0s"]);
    for fragment in [
        "no run older than 0s to delete",
        "kept: run 3 of job increment, INCOMPLETE, the newest of its job: `stagemill status 3`",
        "kept: the last complete run of 1 job",
    ] {
        assert!(again.contains(fragment), "{again}");
    }
    db.sql("UPDATE stage SET note = '1' WHERE note <> '1'");
    assert!(db.ok(&["resume", "3"]).contains("10 of 10 applied"));
}

#[test]
fn an_age_that_is_none_is_a_bad_argument() {
    let db = Db::empty();
    db.fails(&["prune", "--older-than", "soon"], 2, &["--older-than <AGE>", "give an age such as 12h, 90d, 4w"]);
    db.fails(&["prune"], 2, &["--older-than <AGE>"]);
    db.fails(&["prune", "--older-than", "1d"], 4, &["stagemill init"]);
    assert!(db.ok(&["prune", "--help"]).contains("What stays: open runs"));
    assert!(db.ok(&["completions", "fish"]).contains("-l older-than"));
}
