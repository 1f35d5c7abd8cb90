//! Rows that a run sets aside.

use crate::support::{Db, JOB};

/// Run 1 has set the rows 80 and 100 aside, of chunks 4 and 5.
fn with_two_set_aside(rest: &str) -> Db {
    let db = Db::with_rows(100);
    let job = JOB.replace("\"stage.note\"", "\"CAST(CAST(stage.note AS integer) AS text)\"");
    db.file(
        "job.json",
        &job.replace("\"parallelism\": 2", &format!("\"parallelism\": 2, \"on_bad_row\": \"quarantine\"{rest}")),
    );
    db.sql("UPDATE stage SET note = '1'; UPDATE stage SET note = 'secret-4711' WHERE id IN (80, 100)");
    db
}

#[test]
fn a_run_with_rows_set_aside_ends_well_and_their_values_are_shown_where_they_are_asked_for() {
    let db = with_two_set_aside(", \"max_rejects\": \"2%\"");
    let run = db.run(&["run", "job.json"]);
    assert_eq!(run.code, Some(0), "{run:?}");
    for fragment in ["COMPLETE_WITH_REJECTS", "100 staged = 98 updated + 2 set aside", "10 of 10 applied"] {
        assert!(run.out.contains(fragment), "{run:?}");
    }
    assert!(run.err.contains("2 rows set aside") && run.err.contains("stagemill rejects 1 --retry"), "{run:?}");
    let list = db.run(&["rejects", "1"]);
    assert!(list.out.contains("BadData 22P02: a text is not valid for its type"), "{list:?}");
    assert!(
        list.err.contains("stagemill rejects 1 --rows") && list.err.contains("stagemill rejects 1 --retry"),
        "{list:?}"
    );
    let json = db.ok(&["rejects", "1", "--json"]);
    let listed: serde_json::Value = serde_json::from_str(&json).unwrap();
    // The two chunks may end in either order.
    let mut chunks =
        [&listed["rejects"][0]["chunk"], &listed["rejects"][1]["chunk"]].map(|chunk| chunk.as_i64().unwrap());
    chunks.sort_unstable();
    assert_eq!((&listed["rejected"], chunks), (&2.into(), [4, 5]));
    for said in
        [&run.out, &run.err, &list.out, &list.err, &json, &db.log(), &db.ok(&["status", "1"]), &db.ok(&["chunks", "1"])]
    {
        assert!(!said.contains("4711"), "{said}");
    }
    let rows = db.ok(&["rejects", "1", "--rows"]);
    assert_eq!((rows.matches("secret-4711").count(), rows.matches(r#""id":80"#).count()), (4, 1), "{rows}");
    let rows = db.json(&["rejects", "1", "--rows", "--json"]);
    assert_eq!(rows["rejects"][0]["row"]["note"], "secret-4711");
    assert!(rows["rejects"][0]["detail"].as_str().unwrap().contains("secret-4711"));
    assert!(db.ok(&["rejects", "1", "--limit", "1"]).contains("... and 1 more"));
    // Without chunks that failed there is nothing to list, and nothing to resume.
    assert!(db.ok(&["chunks", "1", "--open"]).contains("every one of its 10 chunks was applied"));
    db.fails(
        &["resume", "1"],
        2,
        &["run 1 is complete but for rows that were set aside", "stagemill rejects 1 --retry"],
    );
    db.fails(&["rejects", "1", "--rows", "--retry"], 2, &["cannot be used with"]);
    db.fails(&["rejects", "2"], 2, &["there is no run 2"]);
    db.fails(&["rejects", "2", "--retry"], 2, &["there is no run 2"]);
}

#[test]
fn rows_set_aside_are_applied_once_when_they_are_mended() {
    let db = with_two_set_aside(", \"max_rejects\": 2");
    db.ok(&["run", "job.json", "--quiet"]);
    db.sql("UPDATE stage SET note = '2' WHERE id = 80");
    let retried = db.run(&["rejects", "1", "--retry"]);
    assert_eq!(retried.code, Some(0), "{retried:?}");
    assert!(retried.err.contains("applied 1 of 2 rows that were set aside"), "{retried:?}");
    assert!(retried.out.contains("100 staged = 99 updated + 1 set aside"), "{retried:?}");
    assert!(db.ok(&["chunks", "1"]).contains("set aside"));
    db.sql("UPDATE stage SET note = '2' WHERE id = 100");
    let json = db.json(&["rejects", "1", "--retry", "--json", "--quiet"]);
    assert_eq!((&json["status"], &json["counts"]["updated"]), (&"COMPLETE".into(), &100.into()));
    assert!(db.applied_once());
    assert!(db.ok(&["rejects", "1"]).contains("run 1 has no rows set aside"));
    let log = db.log();
    db.fails(&["rejects", "1", "--retry"], 2, &["run 1 has no rows set aside: there is nothing to try again"]);
    assert_eq!(db.log(), log, "a refusal leaves no log file");
    assert!(!log.contains("4711"), "{log}");
}

#[test]
fn over_the_maximum_the_run_fails_and_resume_goes_on_once_they_are_mended() {
    let db = with_two_set_aside(", \"max_rejects\": 1");
    let run = db.fails(
        &["run", "job.json"],
        1,
        &["FAILED", "LimitExceeded", "more than max_rejects (1) rows", "stagemill resume 1"],
    );
    assert!(!format!("{run:?}").contains("4711"), "{run:?}");
    db.sql("UPDATE stage SET note = '2' WHERE id IN (80, 100)");
    let resumed = db.run(&["resume", "1"]);
    assert!(resumed.code == Some(0) && resumed.out.contains("COMPLETE_WITH_REJECTS"), "{resumed:?}");
    assert!(db.ok(&["rejects", "1", "--retry"]).contains("100 staged = 100 updated"));
    assert!(db.applied_once());
}
