//! The server process: started, waited for, and stopped.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::account::Account;
use crate::watcher::Watcher;
use crate::{Error, cluster};

const READY_WITHIN: Duration = Duration::from_secs(60);
const STOPPED_WITHIN: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(5);
const TAIL_LINES: usize = 20;

/// The line of `postmaster.pid` that holds the server's state.
const STATUS_LINE: usize = 7;

/// How to stop a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shutdown {
    /// Ends every session, writes everything out, and ends. The next start finds a clean folder.
    Fast,
    /// Ends at once, as in a crash: the next start has to recover.
    Immediate,
}

/// A running server.
#[derive(Debug)]
pub(crate) struct Postmaster {
    child: Child,
}

/// Why a start failed, so that the caller can choose another port.
pub(crate) enum StartFailure {
    PortTaken(Error),
    Other(Error),
}

impl From<Error> for StartFailure {
    fn from(error: Error) -> Self {
        Self::Other(error)
    }
}

impl From<StartFailure> for Error {
    fn from(failure: StartFailure) -> Self {
        match failure {
            StartFailure::PortTaken(error) | StartFailure::Other(error) => error,
        }
    }
}

impl Postmaster {
    /// What starts the server of a folder.
    pub(crate) fn command(
        folder: &Path,
        bin_dir: &Path,
        account: &Account,
        port: u16,
        environment: &[(String, String)],
    ) -> Command {
        let mut command = account.command(&bin_dir.join("postgres"), folder);
        // The port and the socket's folder stand here, not in the settings: nothing there can lose the server for us.
        // The watcher knows the server by `-D`.
        command.arg("-D").arg(cluster::data(folder)).arg("-k").arg(folder).arg("-p").arg(port.to_string());
        command.envs(environment.iter().map(|(name, value)| (name, value)));
        command
    }

    /// Starts a folder's server, and waits until it answers.
    pub(crate) fn start(mut command: Command, folder: &Path, watcher: &mut Watcher) -> Result<Self, StartFailure> {
        let (log, log_start) = open_log(&log_path(folder))?;
        let log_too = log.try_clone().map_err(Error::io("open", &log_path(folder)))?;
        // A Ctrl-C meant for the owner must not stop it.
        command.stdout(log).stderr(log_too).process_group(0);
        let program = PathBuf::from(command.get_program());
        let child = command.spawn().map_err(Error::io("run", &program))?;
        watcher.tell(child.id());
        let mut postmaster = Self { child };
        let Err(reason) = postmaster.wait_until_ready(folder) else { return Ok(postmaster) };
        // What matters is why it is not ready.
        let _ = postmaster.stop(Shutdown::Immediate);
        let log = read_log(folder, log_start);
        let port_taken = log.contains("could not create any TCP/IP sockets");
        let error = Error::NotReady { reason, log: tail(&log) };
        Err(if port_taken { StartFailure::PortTaken(error) } else { StartFailure::Other(error) })
    }

    fn wait_until_ready(&mut self, folder: &Path) -> Result<(), String> {
        let deadline = Instant::now() + READY_WITHIN;
        let pid_file = cluster::data(folder).join("postmaster.pid");
        while Instant::now() < deadline {
            match self.child.try_wait() {
                Ok(None) if is_ready(&pid_file, self.pid()) => return Ok(()),
                Ok(None) => thread::sleep(POLL),
                Ok(Some(status)) => return Err(format!("ended ({status})")),
                Err(error) => return Err(format!("cannot be waited for ({error})")),
            }
        }
        Err(format!("was not ready within {} seconds", READY_WITHIN.as_secs()))
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Stops the server, the harder the longer it takes.
    pub(crate) fn stop(&mut self, shutdown: Shutdown) -> Result<(), Error> {
        let signals: &[Signal] = match shutdown {
            Shutdown::Fast => &[Signal::SIGINT, Signal::SIGQUIT, Signal::SIGKILL],
            Shutdown::Immediate => &[Signal::SIGQUIT, Signal::SIGKILL],
        };
        for signal in signals {
            self.signal(*signal);
            if wait_bounded(&mut self.child, Instant::now() + STOPPED_WITHIN).is_ok_and(|status| status.is_some()) {
                return Ok(());
            }
        }
        Err(Error::NotStopped { pid: self.pid() })
    }

    /// Sends a signal, unless the process was waited for already and its number may be another's.
    fn signal(&mut self, signal: Signal) {
        if let (Ok(None), Ok(pid)) = (self.child.try_wait(), i32::try_from(self.child.id())) {
            // It cannot have gone: until it is waited for, its number stays its own.
            let _ = kill(Pid::from_raw(pid), signal);
        }
    }
}

/// Waits for a child, but not for ever. `None`: it is still running.
pub(crate) fn wait_bounded(child: &mut Child, deadline: Instant) -> io::Result<Option<ExitStatus>> {
    loop {
        let status = child.try_wait()?;
        if status.is_some() || Instant::now() >= deadline {
            return Ok(status);
        }
        thread::sleep(POLL);
    }
}

/// Whether the file is this server's, and says that connections are accepted.
fn is_ready(pid_file: &Path, pid: u32) -> bool {
    let Ok(text) = fs::read_to_string(pid_file) else { return false };
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    lines.first().is_some_and(|line| *line == pid.to_string()) && lines.get(STATUS_LINE) == Some(&"ready")
}

/// Opens the log to add to it, and says where this start's part of it begins.
fn open_log(path: &Path) -> Result<(File, u64), Error> {
    let log = OpenOptions::new().create(true).append(true).open(path).map_err(Error::io("open", path))?;
    let length = log.metadata().map_err(Error::io("read", path))?.len();
    Ok((log, length))
}

fn log_path(folder: &Path) -> PathBuf {
    folder.join("server.log")
}

/// The server's log from some byte on; what cannot be read is left out.
pub(crate) fn read_log(folder: &Path, start: u64) -> String {
    let mut bytes = Vec::new();
    let read = File::open(log_path(folder)).and_then(|mut file| {
        file.seek(SeekFrom::Start(start))?;
        file.read_to_end(&mut bytes)
    });
    if let Err(error) = read {
        return format!("(no log: {error})");
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn tail(log: &str) -> String {
    let lines: Vec<&str> = log.lines().collect();
    lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n")
}
