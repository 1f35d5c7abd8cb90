//! The server that everybody is measured on, and psql to ask it.

use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use scratch_postgres::{Builder, ScratchPostgres};

use crate::machine;

/// A crash may lose everything: what is compared are ways to apply rows, not disks. Autovacuum would strike one and not the other.
const SETTINGS: [(&str, &str); 9] = [
    // A VACUUM right after an asynchronous commit finds rows that are not known to be committed, and no page all-visible.
    ("synchronous_commit", "on"),
    ("wal_level", "minimal"),
    ("max_wal_senders", "0"),
    ("max_wal_size", "16GB"),
    ("checkpoint_timeout", "1h"),
    ("maintenance_work_mem", "512MB"),
    ("work_mem", "64MB"),
    ("autovacuum", "off"),
    ("max_connections", "200"),
];

/// The database that contestants work on: a copy of a template, made anew for each.
pub(crate) const COPY: &str = "copy";

/// A throw-away server.
pub(crate) struct Server {
    postgres: ScratchPostgres,
    psql: PathBuf,
}

impl Server {
    /// Starts one with so large a cache, and with these variables in its environment.
    pub(crate) fn start(cache: &str, environment: &[(&str, &str)]) -> Result<Self> {
        let builder = environment
            .iter()
            .fold(ScratchPostgres::builder(), |builder, (name, value)| builder.environment(*name, *value));
        Self::start_as(builder, cache)
    }

    /// Starts one that accepts TLS too, with a certificate and its key as PEM texts.
    pub(crate) fn start_with_tls(cache: &str, certificate: &str, key: &str) -> Result<Self> {
        Self::start_as(ScratchPostgres::builder().tls(certificate, key), cache)
    }

    fn start_as(builder: Builder, cache: &str) -> Result<Self> {
        let builder = builder.setting("shared_buffers", cache);
        let builder = SETTINGS.iter().fold(builder, |builder, (name, value)| builder.setting(*name, *value));
        let postgres = builder.start()?;
        let psql = postgres.bin_dir().join("psql");
        Ok(Self { postgres, psql })
    }

    /// Where clients find a database: TCP on loopback, for everybody.
    pub(crate) fn url(&self, database: &str) -> String {
        self.postgres.url(database)
    }

    /// The port on 127.0.0.1.
    pub(crate) fn port(&self) -> u16 {
        self.postgres.port()
    }

    /// The superuser's name.
    pub(crate) fn user(&self) -> &str {
        self.postgres.user()
    }

    /// Such as `15.14`.
    pub(crate) fn version(&self) -> &str {
        self.postgres.version()
    }

    /// psql on a database, which stops at the first error.
    pub(crate) fn psql(&self, database: &str) -> Command {
        let mut command = Command::new(&self.psql);
        command.args(["-XAtq", "-v", "ON_ERROR_STOP=1", "-d"]).arg(self.url(database));
        command
    }

    /// Runs statements, each by itself, and gives what they print.
    pub(crate) fn sql(&self, database: &str, sql: &str) -> Result<String> {
        let mut child = self
            .psql(database)
            .args(["-f", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("psql can't be started")?;
        child.stdin.take().context("psql has no input")?.write_all(sql.as_bytes())?;
        let output = child.wait_with_output()?;
        if !output.status.success() {
            bail!("psql: {}", String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(String::from_utf8(output.stdout)?.trim_end().to_owned())
    }

    /// One number.
    pub(crate) fn number(&self, database: &str, sql: &str) -> Result<f64> {
        let text = self.sql(database, sql)?;
        text.parse().with_context(|| format!("{sql} gave {text:?} instead of a number"))
    }

    /// Seconds of a processor that the server used so far for sessions of [`COPY`], which are waited for: they end a little after their clients.
    pub(crate) fn processor_seconds(&self) -> Result<f64> {
        let open = format!(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = '{COPY}' AND backend_type = 'client backend'"
        );
        while self.number("postgres", &open)? > 0.0 {
            thread::sleep(Duration::from_millis(20));
        }
        machine::processor_seconds(self.postgres.pid().context("the server has stopped")?)
    }

    /// Makes [`COPY`] anew from a template, with everything written out.
    pub(crate) fn copy(&self, template: &str) -> Result<()> {
        self.drop_database(COPY)?;
        let strategy = if self.version().starts_with("14") { "" } else { " STRATEGY file_copy" };
        self.sql("postgres", &format!("CREATE DATABASE {COPY} TEMPLATE {template}{strategy};\nCHECKPOINT;"))?;
        Ok(())
    }

    /// Makes a database out of another.
    pub(crate) fn derive(&self, database: &str, template: &str) -> Result<()> {
        self.sql("postgres", &format!("CREATE DATABASE {database} TEMPLATE {template}"))?;
        Ok(())
    }

    /// Drops a database if it is there.
    pub(crate) fn drop_database(&self, database: &str) -> Result<()> {
        self.sql("postgres", &format!("DROP DATABASE IF EXISTS {database} WITH (FORCE)"))?;
        Ok(())
    }

    /// Whether the first write to a page after a checkpoint logs the whole page. Aurora's storage never does.
    pub(crate) fn set_page_images(&self, on: bool) -> Result<()> {
        let value = if on { "on" } else { "off" };
        self.sql("postgres", &format!("ALTER SYSTEM SET full_page_writes = {value};\nSELECT pg_reload_conf();"))?;
        // The checkpointer takes the new value over before it starts the checkpoint.
        self.sql("postgres", "CHECKPOINT")?;
        Ok(())
    }
}
