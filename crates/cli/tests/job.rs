//! The job table.

use crate::support::Db;

#[test]
fn a_job_is_removed_by_name_and_its_runs_stay() {
    let db = Db::with_rows(20);
    db.ok(&["job", "put", "job.json"]);
    db.ok(&["run", "increment"]);
    let removed = db.ok(&["job", "rm", "increment"]);
    assert!(removed.contains("job increment is removed; its runs stay"), "{removed}");
    assert!(db.ok(&["job", "list"]).contains("empty"));
    assert!(db.ok(&["status", "--job", "increment"]).contains("COMPLETE"));
    db.fails(&["job", "rm", "increment"], 2, &["there is no job \"increment\"", "stagemill job list"]);
    db.ok(&["job", "put", "job.json"]);
    assert_eq!(
        db.json(&["job", "rm", "increment", "--json"]),
        serde_json::json!({"job": "increment", "removed": true})
    );
    let completions = db.ok(&["completions", "fish"]);
    assert!(completions.contains("-a \"rm\""), "{completions}");
}
