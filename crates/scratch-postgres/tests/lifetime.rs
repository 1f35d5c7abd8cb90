//! A server goes away with its owner, however that ends.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a panic is how a test fails")]

mod support;

use std::env;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use scratch_postgres::{ScratchPostgres, shared};
use support::{exists, is_gone, psql, wait_for};

/// Where the owner process writes its server's pid and folder, and whether it then ends by itself.
const REPORT: &str = "SCRATCH_TEST_REPORT";
const OWNER_ENDS: &str = "SCRATCH_TEST_OWNER_ENDS";

#[test]
fn server_is_gone_when_dropped() {
    let server = ScratchPostgres::builder().start().unwrap();
    let (pid, folder) = (server.pid().unwrap(), server.socket_dir().to_owned());
    assert!(exists(pid) && folder.exists());
    drop(server);
    assert!(is_gone(pid, &folder), "process {pid} or {} is left", folder.display());
}

#[test]
fn open_sessions_do_not_hold_up_the_drop() {
    let server = ScratchPostgres::builder().start().unwrap();
    let (pid, folder) = (server.pid().unwrap(), server.socket_dir().to_owned());
    let mut client = Command::new(server.bin_dir().join("psql"))
        .args(["-X", "-c", "select pg_sleep(60)", &server.url("postgres")])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let sleeping = "select count(*) from pg_stat_activity where wait_event = 'PgSleep'";
    assert!(wait_for(20, || psql(&server, &server.url("postgres"), sleeping).is_ok_and(|count| count == "1")));
    drop(server);
    assert!(is_gone(pid, &folder));
    assert!(!client.wait().unwrap().success());
}

#[test]
fn stopped_server_leaves_no_folder() {
    let mut server = ScratchPostgres::builder().start().unwrap();
    let folder = server.socket_dir().to_owned();
    server.stop(scratch_postgres::Shutdown::Immediate).unwrap();
    drop(server);
    assert!(!folder.exists());
}

#[test]
fn server_is_gone_when_its_owner_is_killed() {
    let temp = temp();
    let mut owner = start_owner(temp.path(), false);
    let (pid, folder) = report(temp.path());
    owner.kill().unwrap();
    assert_eq!(owner.wait().unwrap().signal(), Some(9));
    assert!(wait_for(30, || is_gone(pid, &folder)), "process {pid} or {} is left", folder.display());
}

#[test]
fn server_is_gone_when_its_owners_process_group_is_ended() {
    let temp = temp();
    let mut owner = start_owner(temp.path(), false);
    let (pid, folder) = report(temp.path());
    // To the whole group, as a terminal's Ctrl-C: neither the server nor its watcher is in there. Not SIGINT, which a
    // shell's background jobs ignore.
    killpg(Pid::from_raw(i32::try_from(owner.id()).unwrap()), Signal::SIGTERM).unwrap();
    assert_eq!(owner.wait().unwrap().signal(), Some(15));
    assert!(wait_for(30, || is_gone(pid, &folder)), "process {pid} or {} is left", folder.display());
}

#[test]
fn shared_server_is_gone_when_its_process_ends() {
    let temp = temp();
    let mut owner = start_owner(temp.path(), true);
    let (pid, folder) = report(temp.path());
    assert!(owner.wait().unwrap().success());
    assert!(wait_for(30, || is_gone(pid, &folder)), "process {pid} or {} is left", folder.display());
}

#[test]
#[cfg(target_os = "linux")]
fn drop_does_without_a_killed_watcher() {
    let server = ScratchPostgres::builder().start().unwrap();
    let (pid, folder) = (server.pid().unwrap(), server.socket_dir().to_owned());
    let is_watcher = |pid: &i32| {
        let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&command).ends_with(&format!("\0scratch-postgres-watcher\0{}\0", folder.display()))
    };
    let processes = fs::read_dir("/proc").unwrap().flatten();
    let watcher = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).find(is_watcher).unwrap();
    nix::sys::signal::kill(Pid::from_raw(watcher), Signal::SIGKILL).unwrap();
    drop(server);
    assert!(is_gone(pid, &folder));
}

/// At every moment of the start: before, during and after `initdb`, and while the server comes up.
#[test]
fn nothing_is_left_of_an_owner_killed_while_it_starts() {
    for delay in (0..=700).step_by(50) {
        let temp = temp();
        let mut owner = start_owner(temp.path(), false);
        thread::sleep(Duration::from_millis(delay));
        owner.kill().unwrap();
        owner.wait().unwrap();
        let left = || fs::read_dir(temp.path()).unwrap().flatten().filter(|entry| entry.path().is_dir()).count();
        assert!(wait_for(30, || left() == 0), "folders left after {delay} ms: {}", left());
        // Nothing comes back either.
        thread::sleep(Duration::from_millis(100));
        assert_eq!(left(), 0, "folders came back after {delay} ms");
    }
}

/// No test of its own: the other tests run it in another process, which owns a server until it is killed.
#[test]
fn owner_process() {
    let Some(path) = env::var_os(REPORT).map(PathBuf::from) else { return };
    let server = shared().unwrap();
    // Renamed, so that nobody reads half of it.
    let unfinished = path.with_extension("tmp");
    fs::write(&unfinished, format!("{}\n{}", server.pid().unwrap(), server.socket_dir().display())).unwrap();
    fs::rename(unfinished, path).unwrap();
    if env::var_os(OWNER_ENDS).is_none() {
        thread::sleep(Duration::from_secs(120));
    }
}

/// A folder for an owner's server, which may run as another user.
fn temp() -> tempfile::TempDir {
    let temp = tempfile::Builder::new().prefix("own-").tempdir().unwrap();
    fs::set_permissions(temp.path(), fs::Permissions::from_mode(0o755)).unwrap();
    temp
}

fn start_owner(temp: &Path, ends: bool) -> Child {
    let mut command = Command::new(env::current_exe().unwrap());
    command.args(["--exact", "owner_process"]).env(REPORT, temp.join("report")).env("TMPDIR", temp);
    if ends {
        command.env(OWNER_ENDS, "1");
    }
    command.process_group(0).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

/// The pid and the folder of the server of an owner, once it has one.
fn report(temp: &Path) -> (u32, PathBuf) {
    let path = temp.join("report");
    assert!(wait_for(60, || path.exists()), "the owner started no server");
    let text = fs::read_to_string(path).unwrap();
    let (pid, folder) = text.split_once('\n').unwrap();
    (pid.parse().unwrap(), PathBuf::from(folder))
}
