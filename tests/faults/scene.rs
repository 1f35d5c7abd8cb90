//! A server of its own, which may be crashed, and a proxy before it.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use fastrand::Rng;
use scratch_postgres::{ScratchPostgres, Shutdown};
use stagemill_engine::{
    ledger,
    pg::{Connection, Server, Trust},
};

use super::{
    proxy::Proxy,
    workload::{PLANTED, Workload},
};
use crate::database::job;

/// Where every run of a suite finds its tables.
pub const DATABASE: &str = "faults";

/// Who runs jobs: no superuser, so that limits hold.
pub const ROLE: &str = "etl";

pub struct Scene {
    server: Arc<Mutex<ScratchPostgres>>,
    port: u16,
    pub proxy: Proxy,
}

/// The password of [`ROLE`] to begin with, which nothing may print.
pub fn password() -> String {
    format!("{PLANTED}-password")
}

impl Scene {
    pub async fn start() -> Self {
        let server = ScratchPostgres::builder()
            .setting("deadlock_timeout", "200ms")
            .password("scratch")
            .start()
            .unwrap_or_else(|error| panic!("{error}"));
        let port = server.port();
        let admin = Server::new(server.url("postgres").parse().unwrap(), &Trust::System).unwrap();
        let create = format!("CREATE ROLE {ROLE} LOGIN PASSWORD '{}'", password());
        admin.connect("faults").await.unwrap().batch(&create).await.unwrap();
        let proxy = Proxy::start(SocketAddr::from(([127, 0, 0, 1], port))).await;
        let server = Arc::new(Mutex::new(server));
        Self { server, port, proxy }
    }

    /// A fresh database for one run.
    pub async fn set(&self, workload: Workload, row_takes: Duration, dice: &mut Rng) {
        let create = format!("CREATE DATABASE {DATABASE} OWNER {ROLE}");
        self.direct("postgres").await.batch(&create).await.unwrap();
        let connection = self.connection().await;
        connection.batch(&format!("SET ROLE {ROLE}")).await.unwrap();
        ledger::schema::migrate(&connection).await.unwrap();
        ledger::job::put(&connection, &job(&workload.job(dice))).await.unwrap();
        connection.batch(&workload.tables(row_takes)).await.unwrap_or_else(|error| panic!("{workload:?}: {error}"));
        // A crash must not take the tables back: commits here are acknowledged before they are on disk, those of the runs too.
        connection.batch("RESET ROLE").await.unwrap();
        connection.batch("CHECKPOINT").await.unwrap();
    }

    pub async fn clear(&self) {
        let drop = format!("DROP DATABASE {DATABASE} WITH (FORCE)");
        self.direct("postgres").await.batch(&drop).await.unwrap();
    }

    /// A connection beside the proxy, as soon as there is one to be had.
    pub async fn connection(&self) -> Connection {
        self.direct(DATABASE).await
    }

    async fn direct(&self, database: &str) -> Connection {
        let url = format!("postgres://scratch:scratch@127.0.0.1:{}/{database}", self.port);
        let server = Server::new(url.parse().unwrap(), &Trust::System).unwrap();
        for _ in 0..400 {
            if let Ok(connection) = server.connect("faults").await {
                return connection;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("the server does not come back");
    }

    /// The one value that a query returns, as text.
    pub async fn value(&self, sql: &str) -> String {
        let connection = self.connection().await;
        let row = connection.query_one(&format!("SELECT (SELECT ({sql})::text)"), &[]).await;
        let row = row.unwrap_or_else(|error| panic!("{sql}: {error}"));
        row.get::<_, Option<String>>(0).unwrap_or_else(|| "NULL".to_owned())
    }

    /// What a look at the server shows of a program that hangs.
    pub async fn witness(&self) -> String {
        let sessions = "SELECT string_agg(concat_ws(' ', pid, application_name, state, wait_event, 'since', clock_timestamp() - state_change, 'behind', pg_blocking_pids(pid)::text, query), E'\\n')
                        FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()";
        let runs = "SELECT string_agg(concat_ws(' ', run_id, status, 'round', round, owner, halted, (SELECT string_agg(DISTINCT state, ',') FROM stagemill.chunk c WHERE c.run_id = r.run_id)), E'\\n')
                    FROM stagemill.run r";
        format!("sessions:\n{}\nruns:\n{}", self.value(sessions).await, self.value(runs).await)
    }

    /// Crashes or restarts the server; the program goes on meanwhile.
    pub async fn restart(&self, shutdown: Shutdown) {
        let server = Arc::clone(&self.server);
        let restarted = tokio::task::spawn_blocking(move || server.lock().unwrap().restart(shutdown));
        restarted.await.unwrap().unwrap_or_else(|error| panic!("{error}"));
    }
}
