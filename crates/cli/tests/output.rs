//! What is printed without a server.

use std::{
    fs::File,
    io::Read,
    process::{Command, Stdio},
};

use nix::pty::{Winsize, openpty};

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
fn the_manual_has_a_page_for_each_command_with_its_examples_line_by_line() {
    let db = nowhere();
    let page = db.ok(&["man"]);
    assert!(page.contains(".SH EXAMPLES\n.nf\n") && page.contains("stagemill\\-job(1)"), "{page}");
    let folder = db.folder.path().join("man1");
    std::fs::create_dir(&folder).unwrap();
    db.ok(&["man", "man1"]);
    for name in ["stagemill.1", "stagemill-run.1", "stagemill-set-parallelism.1", "stagemill-job-diff.1"] {
        assert!(std::fs::read_to_string(folder.join(name)).unwrap().contains(".SH NAME"), "{name}");
    }
    db.fails(&["man", "nowhere/man1"], 2, &["cannot write the manual to nowhere/man1"]);
}

#[test]
fn make_install_puts_program_manual_and_completions_below_the_prefix_and_uninstall_removes_them() {
    let db = nowhere();
    let root = db.folder.path().join("root");
    let make = |verb: &str| {
        let mut make = Command::new("make");
        make.current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../..")).args([verb, "PREFIX=/usr"]);
        make.arg(format!("DESTDIR={}", root.display())).arg(concat!("PROGRAM=", env!("CARGO_BIN_EXE_stagemill")));
        // Of a `make test` that runs this.
        let output = make.env_remove("MAKEFLAGS").env_remove("MAKELEVEL").output().unwrap();
        assert!(output.status.success(), "{output:?}");
    };
    let files = [
        "bin/stagemill",
        "share/man/man1/stagemill.1",
        "share/man/man1/stagemill-run.1",
        "share/bash-completion/completions/stagemill",
        "share/zsh/site-functions/_stagemill",
        "share/fish/vendor_completions.d/stagemill.fish",
    ];
    make("install");
    for file in files {
        assert!(std::fs::metadata(root.join("usr").join(file)).unwrap().len() > 0, "{file}");
    }
    make("uninstall");
    for file in files {
        assert!(!root.join("usr").join(file).exists(), "{file}");
    }
}

#[test]
fn every_exit_code_stands_in_the_readme_and_in_the_help() {
    let package = env!("CARGO_MANIFEST_DIR");
    let read = |file: &str| std::fs::read_to_string(format!("{package}/{file}")).unwrap();
    let (source, readme, help) = (read("src/exit.rs"), read("../../README.md"), nowhere().ok(&["--help"]));
    let declared = source.split("enum Exit {").nth(1).unwrap().split('}').next().unwrap();
    let mut codes: Vec<&str> =
        declared.lines().filter_map(|line| line.split_once(" = ")?.1.strip_suffix(',')).collect();
    let table = readme.split("| exit code | meaning |").nth(1).unwrap();
    let mut rows: Vec<&str> = table
        .lines()
        .skip(2)
        .take_while(|line| line.starts_with('|'))
        .filter_map(|line| line.split('|').nth(1).map(str::trim))
        .collect();
    codes.sort_unstable();
    rows.sort_unstable();
    assert_eq!(codes, rows);
    let listed = help.split("Exit codes:").nth(1).unwrap();
    for code in codes {
        assert!(listed.split_whitespace().any(|word| word == code), "{code}: {listed}");
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

/// What a command writes to a terminal of so many columns.
fn on_a_terminal(db: &Db, args: &[&str], columns: u16, no_color: bool) -> String {
    let size = Winsize { ws_row: 24, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    let terminal = openpty(Some(&size), None).unwrap();
    let mut command = db.command(args);
    if no_color {
        command.env("NO_COLOR", "1");
    }
    let ended = command.stdout(terminal.slave).status().unwrap();
    assert!(ended.success());
    // It holds the slave, and there would be no end of the text.
    drop(command);
    let (mut text, mut master) = (Vec::new(), File::from(terminal.master));
    // Linux says EIO when the other side is closed; what was written is there.
    let _ = master.read_to_end(&mut text);
    String::from_utf8(text).unwrap()
}

#[test]
fn a_terminal_gets_colours_unless_people_ask_for_none() {
    let db = Db::with_rows(10);
    db.ok(&["run", "job.json"]);
    let coloured = on_a_terminal(&db, &["status"], 120, false);
    assert!(coloured.contains('\u{1b}') && coloured.contains("COMPLETE"), "{coloured:?}");
    for columns in [120, 0] {
        let plain = on_a_terminal(&db, &["status"], columns, true);
        assert!(!plain.contains('\u{1b}') && plain.contains("COMPLETE"), "{plain:?}");
    }
}
