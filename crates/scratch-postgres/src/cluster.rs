//! The folder of one server: made, initialised and configured.

use std::env;
use std::fmt::Write as _;
use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::account::Account;
use crate::builder::Builder;
use crate::watcher::Watcher;
use crate::{Error, server};

/// What a socket's path may measure on every system (macOS has 104 bytes, the final NUL included), less
/// `/.s.PGSQL.12345`.
pub(crate) const FOLDER_LIMIT: usize = 103 - 15;

/// Bytewise collation and UTF-8. macOS had no `C.UTF-8` for long.
const LOCALE: &[&str] =
    if cfg!(target_os = "macos") { &["--locale=C", "--lc-ctype=en_US.UTF-8"] } else { &["--locale=C.UTF-8"] };

/// For speed, and for a test's many connections. `Builder::setting` overrides each of them.
const DEFAULTS: [(&str, &str); 6] = [
    ("listen_addresses", "127.0.0.1"),
    ("fsync", "off"),
    ("synchronous_commit", "off"),
    ("full_page_writes", "off"),
    ("max_connections", "200"),
    ("shared_buffers", "128MB"),
];

/// A new folder, closed to everybody else.
pub(crate) fn folder(account: &Account) -> Result<TempDir, Error> {
    let mut tried = Vec::new();
    for parent in [env::temp_dir(), PathBuf::from("/tmp")] {
        match folder_in(&parent, account) {
            Ok(folder) => return Ok(folder),
            Err(reason) => tried.push(format!("{} ({reason})", parent.display())),
        }
    }
    Err(Error::NoFolder { tried })
}

fn folder_in(parent: &Path, account: &Account) -> Result<TempDir, String> {
    // Absolute and free of links: the watcher compares it with the server's command line.
    let parent = fs::canonicalize(parent).map_err(|error| error.to_string())?;
    if !account.can_enter(&parent) {
        return Err(format!("user `{}` cannot enter it", account.other_name().unwrap_or_default()));
    }
    let folder = tempfile::Builder::new().prefix("scratchpg-").tempdir_in(parent).map_err(|error| error.to_string())?;
    if folder.path().as_os_str().as_bytes().len() > FOLDER_LIMIT {
        return Err("its path is too long".to_owned());
    }
    Ok(folder)
}

/// The data folder of a server's folder. The watcher's script has the same name.
pub(crate) fn data(folder: &Path) -> PathBuf {
    folder.join("data")
}

/// Runs `initdb` and writes the settings.
pub(crate) fn initialise(
    folder: &Path,
    bin_dir: &Path,
    account: &Account,
    options: &Builder,
    watcher: &mut Watcher,
) -> Result<(), Error> {
    let settings = settings(folder, options)?;
    // Made here so that initdb never makes the folder above it, not even while the watcher removes that.
    let data = data(folder);
    fs::DirBuilder::new().mode(0o700).create(&data).map_err(Error::io("create", &data))?;
    account.give(&data)?;
    account.give(folder)?;
    run_initdb(folder, bin_dir, account, options.password.as_deref(), watcher)?;
    if let Some((certificate, key)) = &options.tls {
        write_private(&certificate_path(folder), certificate, account)?;
        write_private(&key_path(folder), key, account)?;
    }
    let path = data.join("postgresql.conf");
    let mut file = OpenOptions::new().append(true).open(&path).map_err(Error::io("open", &path))?;
    file.write_all(settings.as_bytes()).map_err(Error::io("write", &path))
}

fn run_initdb(
    folder: &Path,
    bin_dir: &Path,
    account: &Account,
    password: Option<&str>,
    watcher: &mut Watcher,
) -> Result<(), Error> {
    let program = bin_dir.join("initdb");
    let mut command = account.command(&program, folder);
    command.arg("-D").arg(data(folder)).args(["-U", server::USER, "--encoding=UTF8", "--auth-local=trust"]);
    command.args(LOCALE).args(["--no-sync", "--no-instructions"]);
    let password_file = folder.join("password");
    if let Some(password) = password {
        if password.is_empty() || password.contains(['\n', '\r', '\0']) {
            return Err(Error::BadPassword);
        }
        write_private(&password_file, password, account)?;
        command.arg("--auth-host=scram-sha-256").arg("--pwfile").arg(&password_file);
    } else {
        command.arg("--auth-host=trust");
    }
    let log_path = folder.join("initdb.log");
    let log = File::create(&log_path).map_err(Error::io("create", &log_path))?;
    let log_too = log.try_clone().map_err(Error::io("open", &log_path))?;
    // It writes to a file, and a Ctrl-C does not reach it: it is the watcher that ends it when we go.
    let mut child = command.stdout(log).stderr(log_too).process_group(0).spawn().map_err(Error::io("run", &program))?;
    watcher.tell(child.id());
    let status = child.wait().map_err(Error::io("wait for", &program))?;
    if password.is_some() {
        fs::remove_file(&password_file).map_err(Error::io("remove", &password_file))?;
    }
    if status.success() {
        return Ok(());
    }
    let printed = fs::read(&log_path).map_err(Error::io("read", &log_path))?;
    Err(Error::Initdb { output: format!("{}{status}", String::from_utf8_lossy(&printed)) })
}

/// The lines to add to `postgresql.conf`; the last one of a name counts.
fn settings(folder: &Path, options: &Builder) -> Result<String, Error> {
    let mut text = String::from("\n# Settings of a scratch server.\n");
    let mut add = |name: &str, value: &str| {
        // Writing to a String never fails.
        let _ = writeln!(text, "{name} = {}", quote(value));
    };
    DEFAULTS.iter().for_each(|(name, value)| add(name, value));
    if options.tls.is_some() {
        add("ssl", "on");
        add("ssl_cert_file", &certificate_path(folder).to_string_lossy());
        add("ssl_key_file", &key_path(folder).to_string_lossy());
    }
    for (name, value) in &options.settings {
        if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.".contains(&byte)) {
            return Err(Error::BadSetting { name: name.clone() });
        }
        add(name, value);
    }
    Ok(text)
}

/// A value as `postgresql.conf` wants it.
fn quote(value: &str) -> String {
    format!("'{}'", value.replace('\\', r"\\").replace('\'', "''").replace('\n', r"\n").replace('\r', r"\r"))
}

fn certificate_path(folder: &Path) -> PathBuf {
    folder.join("server.crt")
}

fn key_path(folder: &Path) -> PathBuf {
    folder.join("server.key")
}

/// A file only the server may read.
fn write_private(path: &Path, text: &str, account: &Account) -> Result<(), Error> {
    let mut file =
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(Error::io("create", path))?;
    file.write_all(text.as_bytes()).map_err(Error::io("write", path))?;
    account.give(path)
}
