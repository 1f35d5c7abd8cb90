//! The server as its users see it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use crate::account::Account;
use crate::postmaster::{Postmaster, StartFailure, read_log};
use crate::watcher::Watcher;
use crate::{Builder, Error, Shutdown, cluster, find, port, url};

/// The superuser.
pub(crate) const USER: &str = "scratch";

/// How often to look for another port when somebody took the one we found.
const PORT_ATTEMPTS: usize = 5;

/// A PostgreSQL server that lives as long as this value, or as its process: dropping it, ending the process, and
/// killing the process all stop the server and remove its data.
#[derive(Debug)]
pub struct ScratchPostgres {
    bin_dir: PathBuf,
    version: String,
    account: Account,
    folder: PathBuf,
    port: u16,
    password: Option<String>,
    environment: Vec<(String, String)>,
    postmaster: Option<Postmaster>,
    watcher: Watcher,
}

/// The one server of this process, started when first asked for: what tests share.
///
/// A static is never dropped, and this server goes away all the same: its watcher waits for the end of a pipe which the
/// system closes when the process ends, in whatever way. As it is shared, nobody can stop or restart it.
pub fn shared() -> Result<&'static ScratchPostgres, &'static Error> {
    static SERVER: OnceLock<Result<ScratchPostgres, Error>> = OnceLock::new();
    SERVER.get_or_init(|| ScratchPostgres::builder().start()).as_ref()
}

impl ScratchPostgres {
    /// A server with the usual options; [`Builder::start`] starts it.
    pub fn builder() -> Builder {
        Builder::default()
    }

    pub(crate) fn start(options: &Builder) -> Result<Self, Error> {
        let bin_dir = find::bin_dir(options.bin_dir.as_deref())?;
        let account = Account::choose()?;
        let version = version(&bin_dir, &account)?;
        let folder = cluster::folder(&account)?;
        let mut watcher = Watcher::start(folder.path())?;
        // From here on it is the watcher that removes the folder.
        let folder = folder.keep();
        cluster::initialise(&folder, &bin_dir, &account, options, &mut watcher)?;
        let (postmaster, port) = start_on_free_port(&folder, &bin_dir, &account, &options.environment, &mut watcher)?;
        Ok(Self {
            bin_dir,
            version,
            account,
            folder,
            port,
            password: options.password.clone(),
            environment: options.environment.clone(),
            postmaster: Some(postmaster),
            watcher,
        })
    }

    /// The port on 127.0.0.1, which is also the one in the socket's name.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The folder of the Unix socket: the server's own, gone with it.
    pub fn socket_dir(&self) -> &Path {
        &self.folder
    }

    /// The superuser's name.
    pub fn user(&self) -> &str {
        USER
    }

    /// Where a client finds a database over TCP: `postgres://user[:password]@127.0.0.1:port/database`.
    pub fn url(&self, database: &str) -> String {
        url::tcp(USER, self.password.as_deref(), self.port, database)
    }

    /// Where a client finds a database through the socket, as libpq's `host='/folder' port=... user=... dbname=...`.
    pub fn socket_url(&self, database: &str) -> String {
        url::socket(USER, &self.folder, self.port, database)
    }

    /// The folder of the server's programs; `psql` and `pg_dump` are usually there too.
    pub fn bin_dir(&self) -> &Path {
        &self.bin_dir
    }

    /// The server's version, such as `16.4`.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// What the server logged so far.
    pub fn log(&self) -> String {
        read_log(&self.folder, 0)
    }

    /// The server's process number, unless it is stopped.
    pub fn pid(&self) -> Option<u32> {
        self.postmaster.as_ref().map(Postmaster::pid)
    }

    /// Stops the server and keeps its data and its port, for [`start_again`](Self::start_again). Does nothing to a
    /// stopped one.
    pub fn stop(&mut self, shutdown: Shutdown) -> Result<(), Error> {
        if let Some(postmaster) = &mut self.postmaster {
            postmaster.stop(shutdown)?;
        }
        self.postmaster = None;
        Ok(())
    }

    /// Starts a stopped server again, with its data, on the same port.
    pub fn start_again(&mut self) -> Result<(), Error> {
        if let Some(pid) = self.pid() {
            return Err(Error::AlreadyRunning { pid });
        }
        let command = Postmaster::command(&self.folder, &self.bin_dir, &self.account, self.port, &self.environment);
        self.postmaster = Some(Postmaster::start(command, &self.folder, &mut self.watcher)?);
        Ok(())
    }

    /// Stops the server and starts it again.
    pub fn restart(&mut self, shutdown: Shutdown) -> Result<(), Error> {
        self.stop(shutdown)?;
        self.start_again()
    }
}

impl Drop for ScratchPostgres {
    fn drop(&mut self) {
        self.watcher.finish();
        // All that is left to do is to wait for the child, unless somebody killed the watcher.
        if let Some(postmaster) = &mut self.postmaster {
            let _ = postmaster.stop(Shutdown::Fast);
        }
        if self.folder.exists() {
            let _ = fs::remove_dir_all(&self.folder);
        }
    }
}

fn start_on_free_port(
    folder: &Path,
    bin_dir: &Path,
    account: &Account,
    environment: &[(String, String)],
    watcher: &mut Watcher,
) -> Result<(Postmaster, u16), Error> {
    let mut last = Error::NotReady { reason: "found no free port".to_owned(), log: String::new() };
    for port in (0..PORT_ATTEMPTS).filter_map(|_| port::free()) {
        match Postmaster::start(Postmaster::command(folder, bin_dir, account, port, environment), folder, watcher) {
            Ok(postmaster) => return Ok((postmaster, port)),
            Err(StartFailure::PortTaken(error)) => last = error,
            Err(StartFailure::Other(error)) => return Err(error),
        }
    }
    Err(last)
}

/// Asks for the version as the server's user, which also shows whether that user may run the program.
fn version(bin_dir: &Path, account: &Account) -> Result<String, Error> {
    let program = bin_dir.join("postgres");
    let output = account.command(&program, Path::new("/")).arg("--version").output().map_err(|error| {
        match (error.kind(), account.other_name()) {
            (io::ErrorKind::PermissionDenied, Some(user)) => {
                Error::NotExecutable { program: program.clone(), user: user.to_owned() }
            }
            _ => Error::io("run", &program)(error),
        }
    })?;
    // "postgres (PostgreSQL) 16.4 (Debian ...)"
    let text = String::from_utf8_lossy(&output.stdout);
    Ok(text.split_whitespace().nth(2).unwrap_or_default().to_owned())
}
