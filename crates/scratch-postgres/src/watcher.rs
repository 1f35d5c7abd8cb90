//! The shell process that cleans up when the owner drops the server, ends, or is killed.

use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::{Duration, Instant};

use crate::Error;
use crate::postmaster::wait_bounded;

/// Waits for the end of its input, then stops what runs in the folder `$1` and removes the folder.
const SCRIPT: &str = include_str!("watcher.sh");

/// More than the script needs when the server has to be killed.
const PATIENCE: Duration = Duration::from_secs(40);

/// Owns the pipe whose closing is the signal to clean up.
#[derive(Debug)]
pub(crate) struct Watcher {
    child: Child,
    // Close-on-exec, as Rust opens every pipe: no other child of ours keeps it open after our death.
    pipe: Option<ChildStdin>,
}

impl Watcher {
    /// Starts it; best while the folder is still empty, so that our death at any later moment leaves nothing behind.
    pub(crate) fn start(folder: &Path) -> Result<Self, Error> {
        let shell = Path::new("/bin/sh");
        let mut child = Command::new(shell)
            .args(["-c", SCRIPT, "scratch-postgres-watcher"])
            .arg(folder)
            // Neither held back by, nor holding, whatever folder, terminal or pipe its owner was started with.
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // A Ctrl-C meant for the owner must not reach it.
            .process_group(0)
            .spawn()
            .map_err(Error::io("start", shell))?;
        let pipe = child.stdin.take();
        Ok(Self { child, pipe })
    }

    /// Tells it which process to stop now.
    pub(crate) fn tell(&mut self, pid: u32) {
        if let Some(pipe) = &mut self.pipe {
            // Fails when somebody killed it; then all is left to `drop`.
            let _ = pipe.write_all(format!("{pid}\n").as_bytes());
        }
    }

    /// Has it clean up, and waits until it has.
    pub(crate) fn finish(&mut self) {
        if self.pipe.take().is_some() {
            let _ = wait_bounded(&mut self.child, Instant::now() + PATIENCE);
        }
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.finish();
    }
}
