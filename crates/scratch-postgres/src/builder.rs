//! What a server may be asked for before it starts.

use std::path::PathBuf;

use crate::{Error, ScratchPostgres};

/// Options of a server to start; see [`ScratchPostgres::builder`].
#[derive(Debug, Clone, Default)]
#[must_use = "a builder does nothing until `start`"]
pub struct Builder {
    pub(crate) bin_dir: Option<PathBuf>,
    pub(crate) settings: Vec<(String, String)>,
    pub(crate) password: Option<String>,
    pub(crate) tls: Option<(String, String)>,
    pub(crate) environment: Vec<(String, String)>,
}

impl Builder {
    /// The folder that holds `initdb` and `postgres`. Without it: the one `SCRATCH_POSTGRES_BIN` names, else the newest
    /// of `/usr/lib/postgresql/*/bin`, else `pg_config --bindir`, else the `PATH`, else Homebrew's.
    pub fn bin_dir(mut self, folder: impl Into<PathBuf>) -> Self {
        self.bin_dir = Some(folder.into());
        self
    }

    /// A line of `postgresql.conf`; the last one of a name counts. The port and the socket's folder cannot be set.
    pub fn setting(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.settings.push((name.into(), value.into()));
        self
    }

    /// The superuser's password: asked for (SCRAM) over TCP, not on the socket, whose folder only this user can enter.
    pub fn password(mut self, password: impl Into<String>) -> Self {
        self.password = Some(password.into());
        self
    }

    /// Has the server accept TLS, with a certificate and its key as PEM texts. Plain connections stay possible.
    pub fn tls(mut self, certificate: impl Into<String>, key: impl Into<String>) -> Self {
        self.tls = Some((certificate.into(), key.into()));
        self
    }

    /// A variable of the server's environment, such as `LD_PRELOAD`.
    pub fn environment(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.environment.push((name.into(), value.into()));
        self
    }

    /// Starts the server, and waits until it accepts connections.
    pub fn start(self) -> Result<ScratchPostgres, Error> {
        ScratchPostgres::start(&self)
    }
}
