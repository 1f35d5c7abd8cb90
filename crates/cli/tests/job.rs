//! The job table.

use crate::support::{Db, JOB};

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

#[test]
fn what_a_file_would_change_in_the_job_table_is_shown_before_it_is_put() {
    let db = Db::with_rows(20);
    db.fails(&["job", "diff", "job.json"], 2, &["there is no job \"increment\""]);
    db.ok(&["job", "put", "job.json"]);
    assert!(db.ok(&["job", "diff", "job.json"]).contains("job.json is the job increment of the job table"));
    // Defaults that are written out, and the order of fields, make no difference.
    db.file("same.json", &JOB.replacen('{', r#"{ "retry": { "rounds": 4 }, "#, 1));
    assert_eq!(db.json(&["job", "diff", "same.json", "--json"])["equal"], true);
    db.file("other.json", &JOB.replace("\"rows\": 10", "\"rows\": 20").replace("increment", "other"));
    let diff =
        db.fails(&["job", "diff", "other.json", "increment"], 1, &["--- job table: increment", "+++ other.json"]);
    for line in ["@@ -1,", "-    \"rows\": 10", "+    \"rows\": 20", "-  \"name\": \"increment\""] {
        assert!(diff.out.contains(line), "{line}: {diff:?}");
    }
    assert!(!diff.out.contains('\u{1b}'), "{diff:?}");
    let json = db.run(&["job", "diff", "other.json", "increment", "--json"]);
    let json: serde_json::Value = serde_json::from_str(&json.out).unwrap();
    assert_eq!(json["differences"][0], serde_json::json!({"field": "chunks.rows", "stored": 10, "given": 20}));
    db.ok(&["job", "put", "other.json"]);
    db.fails(&["job", "diff", "other", "increment"], 1, &["+++ other"]);
    db.fails(&["job", "diff", "increment"], 2, &["is no file", "a second name"]);
}
