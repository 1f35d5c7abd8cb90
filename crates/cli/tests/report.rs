//! `stagemill report`: what the page says, and that a browser shows it as it should be.

use std::{
    path::Path,
    process::{Command, Stdio},
};

use crate::support::{Db, JOB};

#[test]
fn a_report_is_one_file_that_is_named_and_never_overwritten_unasked() {
    let db = Db::with_rows(100);
    db.ok(&["run", "job.json"]);
    assert_eq!(db.ok(&["report", "1"]).trim(), "increment_run_1.html");
    let page = std::fs::read_to_string(db.folder.path().join("increment_run_1.html")).unwrap();
    for fragment in
        ["increment &middot; run 1", "COMPLETE", "100 staged = 100 updated", "How long chunks took", "worker 1"]
    {
        assert!(page.contains(fragment), "{fragment}: {page}");
    }
    for network in ["http:", "https:", "<script", "@import", "url("] {
        assert!(!page.contains(network), "{network}");
    }
    db.fails(&["report", "1"], 2, &["increment_run_1.html is there already", "--force"]);
    db.fails(&["report", "1", "-o", "increment_run_1.html"], 2, &["is there already"]);
    db.ok(&["report", "1", "-o", "increment_run_1.html", "--force"]);
    db.fails(&["report", "1", "-o", "no/such/folder.html"], 2, &["cannot write the report", "-o FILE"]);
    assert!(db.ok(&["report", "1", "-o", "-"]).starts_with("<!DOCTYPE html>"));
    db.fails(&["report", "2"], 2, &["there is no run 2", "stagemill status"]);
    let facts = db.json(&["report", "1", "--json"]);
    assert_eq!((&facts["run"]["status"], facts["chunks"].as_array().unwrap().len()), (&"COMPLETE".into(), 10));
    assert_eq!((facts["advice"].as_array().unwrap().len(), &facts["chunks"][0]["state"]), (0, &"PROCESSED".into()));
}

#[test]
fn failures_are_told_with_sqlstate_and_advice_and_without_values() {
    let db = Db::with_rows(100);
    db.file("job.json", &JOB.replace("\"stage.note\"", "\"CAST(CAST(stage.note AS integer) AS text)\""));
    db.sql("UPDATE stage SET note = '1'; UPDATE stage SET note = 'secret-4711' WHERE id = 100");
    db.fails(&["run", "job.json"], 1, &["INCOMPLETE"]);
    let page = db.ok(&["report", "1", "-o", "-"]);
    for fragment in [
        "1 of 10 chunks not applied",
        "BadData (SQLSTATE 22P02)",
        "quarantine",
        "stagemill resume 1",
        "class=\"failed\"",
    ] {
        assert!(page.contains(fragment), "{fragment}: {page}");
    }
    assert!(!page.contains("4711") && !db.ok(&["report", "1", "--json"]).contains("4711"));
}

#[test]
fn a_run_under_way_that_is_held_back_says_so() {
    let db = Db::with_rows(40);
    db.slow(0.05);
    let run = db.start(&["run", "job.json"]);
    db.wait_until("EXISTS (SELECT FROM stagemill.chunk WHERE state = 'PROCESSED')");
    db.ok(&["pause", "1", "--reason", "<payroll> & co"]);
    let page = db.ok(&["report", "1", "-o", "-"]);
    for fragment in ["RUNNING", "applied so far", "held back for", "&#60;payroll&#62; &#38; co", "class=\"hold\""] {
        assert!(page.contains(fragment), "{fragment}: {page}");
    }
    db.ok(&["stop", "1"]);
    crate::support::wait(run);
    assert!(db.ok(&["report", "1", "-o", "-"]).contains("STOPPED"));
}

#[test]
fn a_hundred_thousand_chunks_are_a_small_page() {
    let db = Db::with_rows(10);
    db.ok(&["run", "job.json"]);
    db.sql(
        "INSERT INTO stagemill.chunk (run_id, chunk_id, root_id, state, kind, attempt, attempt_limit, worker, assigned_at, ended_at,
                staged, inserted, updated, deleted, unchanged, skipped, rejected, handed)
         SELECT 1, n, n, 'PROCESSED', 'keys', 1, 10, 'host:1:2/' || n % 100, t, t + interval '0.5 s', 10, 0, 10, 0, 0, 0, 0, 0
         FROM (SELECT n, r.started_at + make_interval(secs => n / 100 * 0.7) AS t
               FROM generate_series(10, 100000) n, stagemill.run r) x",
    );
    let page = db.ok(&["report", "1", "-o", "-"]);
    assert!(page.len() < 500_000 && page.contains("53 more workers have no lane"), "{} bytes", page.len());
}

/// Opens a page in Chromium, in a frame of this width, and returns what a script finds there.
fn browse(folder: &Path, page: &str, width: u32, dark: bool) -> serde_json::Value {
    let frame = format!("frame_{width}_{dark}.html");
    std::fs::write(
        folder.join(&frame),
        format!(
            "<body><iframe src='{page}' style='border: 0; width: {width}px; height: 3000px'></iframe><pre id=seen></pre><script>
             onload = () => {{
                 const page = document.querySelector('iframe').contentDocument, root = page.documentElement;
                 const lanes = [...page.querySelectorAll('.lanes svg rect')].map(rect => rect.getBoundingClientRect());
                 document.getElementById('seen').textContent = JSON.stringify({{
                     width: root.clientWidth, scrolls: root.scrollWidth, text: page.body.innerText.length, rects: lanes.length,
                     outside: lanes.filter(rect => rect.left < 0 || rect.right > root.clientWidth + 1).length,
                     background: getComputedStyle(page.body).backgroundColor }});
             }};
             </script></body>"
        ),
    )
    .unwrap();
    let chromium = std::env::var("STAGEMILL_CHROMIUM").unwrap_or_else(|_| "chromium".to_owned());
    let output = Command::new(chromium)
        .args([
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--allow-file-access-from-files",
            "--enable-logging=stderr",
        ])
        .args(["--window-size=1400,3100", "--virtual-time-budget=5000", "--dump-dom"])
        .arg(format!("--blink-settings=preferredColorScheme={}", u8::from(!dark)))
        .arg(format!("--user-data-dir={}", folder.join(format!("profile_{width}_{dark}")).display()))
        .arg(format!("file://{}", folder.join(&frame).display()))
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|error| panic!("this test needs Chromium: scripts/install-chromium: {error}"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!said.contains("CONSOLE"), "{said}");
    let dom = String::from_utf8_lossy(&output.stdout);
    let seen = dom.split("<pre id=\"seen\">").nth(1).and_then(|rest| rest.split("</pre>").next());
    serde_json::from_str(seen.unwrap_or_default()).unwrap_or_else(|error| panic!("{error}: {dom} {said}"))
}

#[test]
fn a_browser_shows_it_at_each_width_light_and_dark_without_errors() {
    let db = Db::with_rows(400);
    db.file("job.json", &JOB.replace("\"stage.note\"", "\"CAST(CAST(stage.note AS integer) AS text)\""));
    db.sql("UPDATE stage SET note = '1'; UPDATE stage SET note = 'x' WHERE id = 100");
    db.fails(&["run", "job.json"], 1, &["INCOMPLETE"]);
    db.ok(&["report", "1", "-o", "report.html"]);
    let mut backgrounds = Vec::new();
    for (width, dark) in [(1280, false), (390, false), (1280, true), (390, true)] {
        let seen = browse(db.folder.path(), "report.html", width, dark);
        assert_eq!((&seen["width"], &seen["scrolls"]), (&width.into(), &width.into()), "{seen}");
        assert!(seen["rects"].as_u64() >= Some(40) && seen["text"].as_u64() > Some(500), "{seen}");
        assert_eq!(seen["outside"], 0, "{seen}");
        backgrounds.push(seen["background"].to_string());
    }
    assert!(backgrounds[0] == backgrounds[1] && backgrounds[2] == backgrounds[3], "{backgrounds:?}");
    assert_ne!(backgrounds[0], backgrounds[2]);
}

#[test]
fn a_run_without_chunks_and_with_a_job_of_another_version_has_a_page() {
    let db = Db::with_rows(10);
    db.sql(
        "INSERT INTO stagemill.run (job, owner, spec, mapping, stage_table, target_table, parallelism, round_limit)
         VALUES ('later', 'elsewhere', '{\"unheard\": \"<of>\"}', '{}', 'a', 'b', 1, 1)",
    );
    let page = db.ok(&["report", "1", "-o", "-"]);
    for fragment in ["PLANNING", "It is being planned.", "&#60;of&#62;", "No chunk is applied yet."] {
        assert!(page.contains(fragment), "{fragment}: {page}");
    }
}

#[test]
fn the_ends_of_a_watermarks_window_are_values_and_in_no_report() {
    let db = Db::with_rows(10);
    db.file("job.json", &JOB.replacen('{', r#"{ "watermark": { "column": "id" },"#, 1));
    db.sql("UPDATE stage SET id = 47114711 WHERE id = 20");
    db.ok(&["run", "job.json"]);
    assert_eq!(db.json(&["status", "1", "--json"])["window_high"], "47114711");
    assert!(!db.ok(&["report", "1", "-o", "-"]).contains("47114711"));
    assert!(!db.ok(&["report", "1", "--json"]).contains("47114711"));
}
