//! Whom the server runs as: PostgreSQL refuses to run as root.

use std::env;
use std::ffi::OsStr;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use nix::unistd::{User, chown, geteuid};

use crate::Error;

/// The users to become when we are root, the best first.
const ORDINARY_USERS: [&str; 2] = ["postgres", "nobody"];

/// Our own user, or the one to become because we are root.
#[derive(Debug)]
pub(crate) struct Account {
    other: Option<User>,
}

impl Account {
    pub(crate) fn choose() -> Result<Self, Error> {
        if !geteuid().is_root() {
            return Ok(Self { other: None });
        }
        let other = ORDINARY_USERS
            .iter()
            .filter_map(|name| User::from_name(name).ok().flatten())
            .find(|user| !user.uid.is_root())
            .ok_or(Error::NoOrdinaryUser)?;
        Ok(Self { other: Some(other) })
    }

    /// The other user's name, when it is not our own.
    pub(crate) fn other_name(&self) -> Option<&str> {
        self.other.as_ref().map(|user| user.name.as_str())
    }

    /// A command run as this user in `folder`, which is the only one it is sure to be allowed to enter.
    pub(crate) fn command(&self, program: &Path, folder: &Path) -> Command {
        let mut command = Command::new(program);
        command.current_dir(folder).stdin(Stdio::null());
        if let Some(user) = &self.other {
            // This also drops root's supplementary groups.
            command.uid(user.uid.as_raw()).gid(user.gid.as_raw());
        }
        // Settings meant for the caller's own server and client, and languages in which we could not read the log.
        for (name, _) in env::vars_os().filter(|(name, _)| is_postgres_variable(name)) {
            command.env_remove(name);
        }
        command.env_remove("LANGUAGE").env("LC_ALL", "C");
        command
    }

    /// Gives a file or folder of ours to this user.
    pub(crate) fn give(&self, path: &Path) -> Result<(), Error> {
        let Some(user) = &self.other else { return Ok(()) };
        chown(path, Some(user.uid), Some(user.gid))
            .map_err(|errno| Error::io("change the owner of", path)(io::Error::from(errno)))
    }

    /// Whether this user can get into a folder: the folders above it may be closed to it.
    pub(crate) fn can_enter(&self, folder: &Path) -> bool {
        if self.other.is_none() {
            return true;
        }
        let mut command = self.command(Path::new("/bin/sh"), Path::new("/"));
        let status = command.args(["-c", r#"cd "$1""#, "sh"]).arg(folder).stderr(Stdio::null()).status();
        status.is_ok_and(|status| status.success())
    }
}

fn is_postgres_variable(name: &OsStr) -> bool {
    name.as_encoded_bytes().starts_with(b"PG")
}
