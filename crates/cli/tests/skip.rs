//! Chunks that a person passes over.

use crate::support::{Db, JOB};

/// Run 1 has two chunks, 4 and 5, that can't be applied.
fn with_two_bad_chunks() -> Db {
    let db = Db::with_rows(100);
    db.file("job.json", &JOB.replace("\"stage.note\"", "\"CAST(CAST(stage.note AS integer) AS text)\""));
    db.sql("UPDATE stage SET note = '1'; UPDATE stage SET note = 'secret-4711' WHERE id IN (80, 100)");
    db.fails(&["run", "job.json"], 1, &["INCOMPLETE", "8 of 10 applied, 2 failed"]);
    db
}

#[test]
fn a_run_is_completed_without_the_chunks_that_are_skipped_and_the_counts_add_up() {
    let db = with_two_bad_chunks();
    let said = db.ok(&["skip", "1", "5"]);
    for fragment in ["chunk 5 is skipped, 10 rows of the stage", "stagemill resume 1    goes on with the 1 chunk left"]
    {
        assert!(said.contains(fragment), "{said}");
    }
    assert!(db.ok(&["chunks", "1"]).contains("skipped by hand; it had failed with BadData: "));
    let json = db.json(&["skip", "1", "4", "--json"]);
    assert_eq!(json, serde_json::json!({"run": 1, "skipped": [{"chunk": 4, "rows": 10}], "left": 0}));
    assert_eq!(db.sql("SELECT status || ' ' || chunks_processed FROM stagemill.run"), "INCOMPLETE 8");
    let resumed = db.ok(&["resume", "1"]);
    for fragment in ["COMPLETE", "100 staged = 80 updated + 20 skipped", "10 of 10 applied"] {
        assert!(resumed.contains(fragment), "{resumed}");
    }
    let by = "SELECT string_agg(worker, ' ' ORDER BY chunk_id) FROM stagemill.chunk WHERE skipped > 0";
    let role = db.sql("SELECT SESSION_USER");
    assert_eq!(db.sql(by), format!("by hand: {role} by hand: {role}"));
    assert_eq!(db.sql("SELECT count(*) FROM target WHERE n = 107"), "80");
    assert_eq!(db.sql("SELECT count(*) FROM stagemill.chunk c WHERE c::text LIKE '%4711%'"), "0");
}

#[test]
fn only_chunks_that_were_not_applied_of_a_run_that_can_be_resumed_are_skipped() {
    let db = with_two_bad_chunks();
    for chunk in ["1", "11"] {
        db.fails(&["skip", "1", "4", chunk], 2, &["has no chunk", "stagemill chunks 1 --open", "no chunk was skipped"]);
    }
    assert_eq!(db.sql("SELECT count(*) FROM stagemill.chunk WHERE skipped > 0"), "0");
    db.fails(&["skip", "2", "1"], 2, &["there is no run 2"]);
    db.fails(&["skip", "1"], 2, &["<CHUNK>..."]);
    // Only what was bad: other rows are of chunks that were applied.
    db.sql("UPDATE stage SET note = '1' WHERE note <> '1'");
    db.ok(&["resume", "1"]);
    db.fails(&["skip", "1", "4"], 2, &["run 1 is complete"]);
}
