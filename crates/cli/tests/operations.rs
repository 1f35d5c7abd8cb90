//! How jobs with own statements and ranges, changes, a watermark or slow chunks are shown.

use crate::support::{Db, JOB};

const OWN: &str = r#"{
    "name": "own", "stage": {"table": "stage"}, "target": {"table": "target"}, "operation": "sql",
    "chunks": {"by": "sql", "column": "id", "query": "SELECT g, g + 49 FROM generate_series(1, 150, 50) AS g"}, "parallelism": 2,
    "sql": ["UPDATE target AS t SET n = t.n + stage.n FROM stage AS stage WHERE t.id = stage.id AND {chunk}",
            "UPDATE target SET note = 'seen' WHERE id BETWEEN {start_id} AND {end_id}"]
}"#;

#[test]
fn own_statements_and_ranges_are_planned_and_what_they_did_and_left_out_is_shown() {
    let db = Db::with_rows(100);
    db.file("own.json", OWN);
    let plan = db.ok(&["plan", "own.json"]);
    for fragment in [
        "own: sql public.stage to public.target",
        "sql: ranges of id, by the job's own query",
        "25 staged rows lie in no range of chunks.query",
        "3, up to 25 rows in those below",
        "UPDATE target SET note = 'seen' WHERE id BETWEEN CAST('51' AS bigint) AND CAST('100' AS bigint)",
        "Nothing was written",
    ] {
        assert!(plan.contains(fragment), "{fragment}: {plan}");
    }
    assert!(db.untouched());
    let json = db.json(&["plan", "own.json", "--json"]);
    assert_eq!((&json["by"], &json["rows_outside"], &json["chunks"]), (&"sql".into(), &25.into(), &3.into()));
    let run = db.ok(&["run", "own.json", "--quiet"]);
    for said in [&run, &db.ok(&["status", "1"])] {
        for fragment in [
            "75 staged = 75 handed to the job's statements",
            "75, 150 rows, in their order",
            "25 staged rows in no range of chunks.query: not applied",
        ] {
            assert!(said.contains(fragment), "{fragment}: {said}");
        }
    }
    assert_eq!(db.json(&["status", "1", "--json"])["statement_rows"], serde_json::json!([75, 150]));
    assert!(db.ok(&["chunks", "1"]).contains("51 to 100"));
    assert_eq!(db.sql("SELECT count(*) || ' ' || max(id) FROM target WHERE n = 107"), "75 150");
}

const CHANGES: &str = r#"{
    "name": "changes", "stage": {"table": "stage"}, "target": {"table": "target", "key": ["id"]}, "operation": "changes",
    "columns": {"id": "stage.id", "n": "stage.n"}, "changes": {"operation": "op", "order": "seq"}, "watermark": {"column": "seq"},
    "skip_unchanged": true, "chunks": {"rows": 20}, "parallelism": 2
}"#;

#[test]
fn a_window_is_shown_and_rows_by_what_became_of_them() {
    let db = Db::with_rows(100);
    db.sql("ALTER TABLE stage ADD op text DEFAULT 'U', ADD seq int; UPDATE stage SET seq = id, op = CASE WHEN id > 190 THEN 'D' ELSE 'U' END; UPDATE stage SET n = 100 WHERE id <= 20");
    db.file("changes.json", CHANGES);
    let plan = db.ok(&["plan", "changes.json"]);
    assert!(plan.contains("key: ranges of id, so that all changes of a key lie in one chunk"), "{plan}");
    let run = db.ok(&["run", "changes.json", "--quiet"]);
    for said in [&run, &db.ok(&["status", "1"])] {
        for fragment in ["100 staged = 85 updated + 5 deleted + 10 unchanged", "up to 200"] {
            assert!(said.contains(fragment), "{fragment}: {said}");
        }
    }
    db.sql("INSERT INTO stage VALUES (1, 5, '', 'U', 201)");
    db.ok(&["run", "changes.json", "--quiet"]);
    let status = db.ok(&["status", "2"]);
    assert!(status.contains("above 200, up to 201") && status.contains("1 staged = 1 updated"), "{status}");
    let json = db.json(&["status", "2", "--json"]);
    assert_eq!((&json["window_low"], &json["window_high"]), (&"200".into(), &"201".into()));
    db.file(
        "few.json",
        &CHANGES
            .replace("\"chunks\"", "\"max_deletes\": 0, \"chunks\"")
            .replace("\"changes\", \"stage\"", "\"few\", \"stage\""),
    );
    db.fails(&["plan", "few.json"], 1, &["could delete 5 rows, max_deletes allows 0"]);
    db.fails(&["run", "few.json"], 1, &["could delete 5 rows, max_deletes allows 0", "nothing was applied"]);
    assert_eq!(
        db.sql("SELECT status || ' ' || error_class FROM stagemill.run WHERE run_id = 3"),
        "FAILED LimitExceeded"
    );
}

#[test]
fn a_stage_that_changed_under_the_run_is_a_failure_with_magnitudes_and_what_to_do() {
    let db = Db::with_rows(100);
    db.sql(
        "CREATE FUNCTION load() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO stage VALUES (1001, 1, ''), (1003, 1, ''); RETURN NULL; END $$;
         CREATE TRIGGER load AFTER UPDATE ON target FOR EACH ROW WHEN (NEW.id = 100) EXECUTE FUNCTION load()",
    );
    db.fails(
        &["run", "job.json"],
        1,
        &["SOURCE_CHANGED", "2 rows came or were changed", "start job increment again", "10 of 10 applied"],
    );
    assert!(db.ok(&["status", "1"]).contains("start job increment again"));
}

#[test]
fn the_parts_of_a_chunk_that_was_split_are_listed_in_its_place() {
    let db = Db::with_rows(40);
    db.slow(0.08);
    let job = JOB
        .replace("\"rows\": 10", "\"rows\": 40")
        .replace("\"parallelism\": 2", "\"parallelism\": 1, \"session\": {\"statement_timeout\": \"2s\"}");
    db.file("job.json", &job);
    let run = db.run(&["run", "job.json"]);
    assert_eq!(run.code, Some(0), "{run:?}");
    assert!(db.applied_once());
    let chunks = db.ok(&["chunks", "1"]);
    assert!(chunks.contains("SPLIT") && chunks.contains("TimedOut 57014") && chunks.contains("PROCESSED"), "{chunks}");
    assert!(db.ok(&["chunks", "1", "--open"]).contains("every one of its"));
    let json = db.json(&["chunks", "1", "--json"]);
    assert_eq!(
        json.as_array().unwrap().iter().filter(|chunk| chunk["state"] == "SPLIT").count(),
        db.sql("SELECT count(*) FROM stagemill.chunk WHERE state = 'SPLIT'").parse::<usize>().unwrap()
    );
}
