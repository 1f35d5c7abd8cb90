//! A server of its own, which may be crashed, a proxy before it, and the program that runs a job through it.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Stdio,
    sync::{Arc, Mutex},
    time::Duration,
};

use fastrand::Rng;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use scratch_postgres::{ScratchPostgres, Shutdown};
use stagemill_engine::{
    ledger,
    pg::{Connection, Server, Trust},
};
use tempfile::TempDir;
use tokio::process::{Child, Command};

use super::{proxy::Proxy, workload::Workload};

/// Longer than any run here takes by itself: what is not over by then hangs.
const PATIENCE: Duration = Duration::from_secs(90);

pub struct Scene {
    server: Arc<Mutex<ScratchPostgres>>,
    port: u16,
    pub proxy: Proxy,
    folder: TempDir,
    database: String,
    program: PathBuf,
}

/// How the program ended.
#[derive(Debug)]
pub struct Ended {
    pub code: Option<i32>,
    pub said: String,
}

impl Scene {
    pub async fn start() -> Self {
        let server = ScratchPostgres::builder()
            .setting("deadlock_timeout", "200ms")
            .start()
            .unwrap_or_else(|error| panic!("{error}"));
        let port = server.port();
        let admin = Server::new(server.url("postgres").parse().unwrap(), &Trust::System).unwrap();
        // No superuser, so that limits hold for the program.
        admin.connect("faults").await.unwrap().batch("CREATE ROLE etl LOGIN").await.unwrap();
        let proxy = Proxy::start(SocketAddr::from(([127, 0, 0, 1], port))).await;
        let server = Arc::new(Mutex::new(server));
        Self { server, port, proxy, folder: tempfile::tempdir().unwrap(), database: String::new(), program: program() }
    }

    /// A fresh database for one run.
    pub async fn set(&mut self, number: u32, workload: Workload, dice: &mut Rng) {
        self.database = format!("faults_{number}");
        let create = format!("CREATE DATABASE {} OWNER etl", self.database);
        self.direct("postgres").await.batch(&create).await.unwrap();
        let connection = self.connection().await;
        connection.batch("SET ROLE etl").await.unwrap();
        ledger::schema::migrate(&connection).await.unwrap();
        connection.batch(&workload.tables()).await.unwrap_or_else(|error| panic!("{workload:?}: {error}"));
        // A crash must not take the tables back: commits here are acknowledged before they are on disk, those of the runs too.
        connection.batch("RESET ROLE").await.unwrap();
        connection.batch("CHECKPOINT").await.unwrap();
        std::fs::write(self.folder.path().join("job.json"), workload.job(dice)).unwrap();
    }

    pub async fn clear(&self) {
        let drop = format!("DROP DATABASE {} WITH (FORCE)", self.database);
        self.direct("postgres").await.batch(&drop).await.unwrap();
    }

    /// A connection beside the proxy, as soon as there is one to be had.
    pub async fn connection(&self) -> Connection {
        self.direct(&self.database).await
    }

    async fn direct(&self, database: &str) -> Connection {
        let url = format!("postgres://scratch@127.0.0.1:{}/{database}", self.port);
        let server = Server::new(url.parse().unwrap(), &Trust::System).unwrap();
        for _ in 0..400 {
            if let Ok(connection) = server.connect("faults").await {
                return connection;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("the server does not come back");
    }

    pub fn database(&self) -> &str {
        &self.database
    }

    /// The one value that a query returns, as text.
    pub async fn value(&self, sql: &str) -> String {
        let connection = self.connection().await;
        let row = connection.query_one(&format!("SELECT (SELECT ({sql})::text)"), &[]).await;
        let row = row.unwrap_or_else(|error| panic!("{sql}: {error}"));
        row.get::<_, Option<String>>(0).unwrap_or_else(|| "NULL".to_owned())
    }

    /// Crashes or restarts the server; the program goes on meanwhile.
    pub async fn restart(&self, shutdown: Shutdown) {
        let server = Arc::clone(&self.server);
        let restarted = tokio::task::spawn_blocking(move || server.lock().unwrap().restart(shutdown));
        restarted.await.unwrap().unwrap_or_else(|error| panic!("{error}"));
    }

    /// Starts the program on a new run, or on the one that was planned.
    pub async fn run(&self) -> Child {
        let planned = self.value("SELECT max(run_id) FROM stagemill.run WHERE round > 0").await;
        if planned == "NULL" {
            // Until its plan is written a run has applied nothing, and is started anew.
            self.command(&["run", "job.json", "--abandon"])
        } else {
            self.command(&["resume", &planned])
        }
    }

    pub fn command(&self, args: &[&str]) -> Child {
        let url = format!("postgres://etl@127.0.0.1:{}/{}", self.proxy.port(), self.database);
        Command::new(&self.program)
            .args(args)
            .arg("--quiet")
            .current_dir(self.folder.path())
            .env("DATABASE_URL", url)
            .env("HOME", self.folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap_or_else(|error| panic!("{}: {error}; `cargo build` makes it", self.program.display()))
    }
}

/// The program under test.
fn program() -> PathBuf {
    std::env::var_os("STAGEMILL_BIN")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/debug/stagemill"), PathBuf::from)
}

/// Sends a signal to a program that may have ended by itself.
pub fn signal(child: &Child, signal: Signal) -> bool {
    child.id().and_then(|pid| i32::try_from(pid).ok()).is_some_and(|pid| kill(Pid::from_raw(pid), signal).is_ok())
}

/// Waits for the program's end.
pub async fn ended(child: Child) -> Ended {
    let output = tokio::time::timeout(PATIENCE, child.wait_with_output()).await;
    let output = output.unwrap_or_else(|_| panic!("the program hangs")).unwrap();
    let said = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    Ended { code: output.status.code(), said }
}
