//! What the tests share: a client, and looking for what a server leaves behind.

// Each test file uses a part of this.
#![allow(dead_code)]

use std::fs;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::kill;
use nix::unistd::Pid;
use scratch_postgres::ScratchPostgres;

/// Runs SQL with `psql`; what it prints, or its complaint.
pub(crate) fn psql(server: &ScratchPostgres, connection: &str, sql: &str) -> Result<String, String> {
    let output = Command::new(server.bin_dir().join("psql"))
        // No password prompt, no start-up file, bare values.
        .args(["-w", "-X", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-c", sql, connection])
        // No certificate, password or service of the caller's.
        .env("HOME", "/nonexistent")
        .output()
        .map_err(|error| error.to_string())?;
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    } else {
        Err(String::from_utf8_lossy(&output.stderr).into_owned())
    }
}

/// Whether a process exists. A zombie does not count: a container's first process may never wait for its orphans.
pub(crate) fn exists(pid: u32) -> bool {
    if Path::new("/proc/self").exists() {
        return fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|command| !command.is_empty());
    }
    i32::try_from(pid).is_ok_and(|pid| kill(Pid::from_raw(pid), None).is_ok())
}

/// Waits until something holds, for at most `seconds`.
pub(crate) fn wait_for(seconds: u64, mut holds: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + Duration::from_secs(seconds);
    while Instant::now() < deadline {
        if holds() {
            return true;
        }
        thread::sleep(Duration::from_millis(10));
    }
    holds()
}

/// Whether a server's process and folder are both gone.
pub(crate) fn is_gone(pid: u32, folder: &Path) -> bool {
    !exists(pid) && !folder.exists()
}
