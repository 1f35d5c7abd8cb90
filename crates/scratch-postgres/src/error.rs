//! What can go wrong, and what to do about it.

use std::io;
use std::path::{Path, PathBuf};

/// Why there is no server.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No PostgreSQL server programs on this machine.
    #[error(
        "no PostgreSQL server found; looked in {}. Install one (Debian, Ubuntu: `apt-get install postgresql`; \
         macOS: `brew install postgresql@16`), or name the folder that holds `initdb` and `postgres` in \
         SCRATCH_POSTGRES_BIN",
        .looked_in.join(", ")
    )]
    NotFound {
        /// The places searched, in order.
        looked_in: Vec<String>,
    },
    /// The folder the caller named holds no PostgreSQL server.
    #[error("{} ({given_by}) holds no executable `{missing}`: name the folder that holds `initdb` and `postgres`", .folder.display())]
    WrongFolder {
        /// The folder as given.
        folder: PathBuf,
        /// Who gave it: the builder, or the environment variable.
        given_by: &'static str,
        /// The program that is not there.
        missing: &'static str,
    },
    /// PostgreSQL refuses to run as root, and there is nobody else to run it as.
    #[error(
        "PostgreSQL does not run as root, and there is no user `postgres` or `nobody` to run it as: add one, or run as an ordinary user"
    )]
    NoOrdinaryUser,
    /// The user the server has to run as may not execute its programs.
    #[error(
        "{} cannot be executed by user `{user}`, as whom the server runs because PostgreSQL does not run as root: \
         open that path to everybody (chmod a+rx), or run as an ordinary user",
        .program.display()
    )]
    NotExecutable {
        /// The program.
        program: PathBuf,
        /// The user the server would run as.
        user: String,
    },
    /// No temporary folder will do.
    #[error(
        "no temporary folder for the server; tried {}. It needs a path of less than {} bytes (the limit of a Unix \
         socket) which the user the server runs as may enter: set TMPDIR to such a folder",
        .tried.join(", "), crate::cluster::FOLDER_LIMIT
    )]
    NoFolder {
        /// The folders tried, each with what was wrong with it.
        tried: Vec<String>,
    },
    /// A setting whose name cannot stand in `postgresql.conf`.
    #[error("`{name}` is not the name of a PostgreSQL setting: letters, digits, `_` and `.` only")]
    BadSetting {
        /// The name as given.
        name: String,
    },
    /// A password `initdb` would not take as it is.
    #[error("the password must not be empty, nor hold a line break or a NUL")]
    BadPassword,
    /// `initdb` failed.
    #[error("initdb failed:\n{output}")]
    Initdb {
        /// What it printed.
        output: String,
    },
    /// The server did not come up.
    #[error("the PostgreSQL server {reason}; the end of its log:\n{log}")]
    NotReady {
        /// What happened instead.
        reason: String,
        /// The last lines of the server's log.
        log: String,
    },
    /// The server survived every signal.
    #[error("the PostgreSQL server (process {pid}) does not end")]
    NotStopped {
        /// Its process number.
        pid: u32,
    },
    /// [`ScratchPostgres::start_again`](crate::ScratchPostgres::start_again) on a running server.
    #[error("the PostgreSQL server is running (process {pid}): stop it first")]
    AlreadyRunning {
        /// Its process number.
        pid: u32,
    },
    /// The system refused something.
    #[error("cannot {action} {}: {source}", .path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file, folder or program.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
}

impl Error {
    /// For `map_err`: says what was being done to what.
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { action, path, source }
    }
}
