//! What is printed without a server.

use std::{io::Read, process::Stdio};

use crate::support::{Db, JOBS, wait};

fn nowhere() -> Db {
    Db { url: "postgres://nobody@127.0.0.1:1/nowhere".into(), folder: tempfile::tempdir().unwrap() }
}

#[test]
fn the_schema_in_the_repository_is_the_one_printed() {
    let checked_in = std::fs::read_to_string(format!("{JOBS}/job.schema.json")).unwrap();
    assert_eq!(nowhere().ok(&["schema"]), checked_in, "stagemill schema > jobs/job.schema.json");
}

#[test]
fn completions_are_printed_for_each_shell() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        assert!(nowhere().ok(&["completions", shell]).contains("stagemill"), "{shell}");
    }
}

#[test]
fn help_teaches_and_bare_or_wrong_words_are_bad_arguments() {
    let db = nowhere();
    let help = db.ok(&["--help"]);
    assert!(help.contains("Examples:") && help.contains("Exit codes:"), "{help}");
    assert!(db.ok(&["run", "--help"]).contains("second\nCtrl-C ends at once"));
    db.fails(&[], 2, &["Usage: stagemill"]);
    db.fails(&["rnu"], 2, &["rnu"]);
    db.fails(&["status", "one"], 2, &["one"]);
}

#[test]
fn a_reader_that_has_seen_enough_is_no_error() {
    let mut child =
        nowhere().command(&["completions", "bash"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let mut said = String::new();
    child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    let ended = wait(child);
    assert_eq!((ended.code, said.as_str()), (Some(0), ""));
}

#[test]
fn no_colours_go_where_there_is_no_terminal() {
    let ended = nowhere().run(&["run", "nowhere.json"]);
    assert!(ended.err.starts_with("error: ") && !ended.err.contains('\u{1b}'), "{ended:?}");
}
