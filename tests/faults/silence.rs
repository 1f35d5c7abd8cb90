//! Clients of whom nothing is heard: a machine that vanishes without a FIN or RST, and a program that freezes while its kernel answers for it.

use std::{
    net::Ipv4Addr,
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;
use scratch_postgres::ScratchPostgres;
use stagemill_engine::{
    failure::Class,
    ledger,
    pg::{Connection, Server, Trust},
};
use tempfile::TempDir;
use tokio::process::Child;

use super::program::{ended, program, signal};
use crate::{database::Database, engine::tls::certificate};

/// After this no session of a silent client may be left.
const NOTICED_WITHIN: Duration = Duration::from_secs(30);

/// And this is enough where its socket was closed.
const CLOSED_WITHIN: Duration = Duration::from_secs(2);

/// Two chunks, each of which holds its rows' locks for as long as `nap` says.
const TABLES: &str = "
    CREATE TABLE target (id int PRIMARY KEY, n int NOT NULL); INSERT INTO target SELECT g, 1 FROM generate_series(1, 20) g;
    CREATE TABLE stage (id int PRIMARY KEY, n int); INSERT INTO stage SELECT g, g FROM generate_series(1, 20) g;
    CREATE TABLE nap (seconds int NOT NULL);
    CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(seconds) FROM nap; RETURN NULL; END $$;
    CREATE TRIGGER slow AFTER UPDATE ON target FOR EACH STATEMENT EXECUTE FUNCTION slow();";

const JOB: &str = r#"{"name": "silence", "stage": {"table": "public.stage"}, "target": {"table": "public.target", "key": ["id"]},
    "operation": "update", "columns": {"id": "stage.id", "n": "target.n + stage.n"}, "chunks": {"rows": 10}, "parallelism": 2,
    "session": {"statement_timeout": "5min"}}"#;

const AT_WORK: &str = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND state = 'active'
    AND application_name LIKE 'stagemill:%' AND wait_event = 'PgSleep'";
const IN_TRANSACTION: &str = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()
    AND application_name LIKE 'stagemill:%' AND xact_start IS NOT NULL";
const SESSIONS: &str = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()
    AND application_name LIKE 'stagemill%'";

/// The client's end of the cable. The server's end knows it for good, or its kernel would report an unreachable neighbour: no silence.
const FAR_MAC: &str = "02:00:00:00:00:02";

/// A machine of the client's own: a network namespace at the end of a cable, as long as this lives.
struct Machine {
    name: String,
    near: String,
    far: String,
    network: u32,
}

impl Machine {
    /// `None` where this process may not make one, or there is no `ip`.
    fn build() -> Option<Self> {
        let pid = std::process::id();
        let (near, far) = (format!("sm{pid}a"), format!("sm{pid}b"));
        // One of the 16384 networks of four addresses in the lower half of those kept for benchmarks.
        let network = u32::from(Ipv4Addr::new(198, 18, 0, 0)) + pid % 16_384 * 4;
        let machine = Self { name: format!("stagemill{pid}"), near, far, network };
        machine.wire().iter().all(|line| ip(line)).then_some(machine)
    }

    fn wire(&self) -> [String; 7] {
        let Self { name, near, far, .. } = self;
        let (server, client) = (self.address(1), self.address(2));
        [
            format!("netns add {name}"),
            format!("link add {near} type veth peer name {far} address {FAR_MAC} netns {name}"),
            format!("address add {server}/30 dev {near}"),
            format!("-n {name} address add {client}/30 dev {far}"),
            format!("link set {near} up"),
            format!("-n {name} link set {far} up"),
            format!("neighbour replace {client} lladdr {FAR_MAC} dev {near} nud permanent"),
        ]
    }

    fn address(&self, number: u32) -> Ipv4Addr {
        Ipv4Addr::from(self.network + number)
    }

    /// Pulls the cable out of the client, or puts it in again.
    fn cable(&self, state: &str) {
        assert!(ip(&format!("-n {} link set {} {state}", self.name, self.far)));
    }

    /// A server which this machine reaches, and `ca.pem` to know it by.
    fn server(&self, folder: &Path) -> ScratchPostgres {
        let address = self.address(1);
        let (certificate, key) = certificate(&format!("IP:{address}"));
        std::fs::write(folder.join("ca.pem"), &certificate).unwrap();
        let hba = folder.join("hba");
        std::fs::write(
            &hba,
            format!("host all all 127.0.0.1/32 trust\nhostssl all all {}/32 trust\n", self.address(2)),
        )
        .unwrap();
        // The server runs as another user.
        std::fs::set_permissions(folder, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        let server = ScratchPostgres::builder()
            .setting("listen_addresses", format!("127.0.0.1,{address}"))
            .setting("hba_file", hba.to_str().unwrap())
            .tls(certificate, key);
        server.start().unwrap_or_else(|error| panic!("{error}"))
    }

    /// Starts the program on this machine.
    fn start(&self, server: &ScratchPostgres, folder: &Path, args: &[&str]) -> Child {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name]).arg(program()).env("PGSSLROOTCERT", folder.join("ca.pem"));
        let url = format!("postgres://{}@{}:{}/postgres", server.user(), self.address(1), server.port());
        start(command, &url, folder, args)
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        ip(&format!("link delete {}", self.near));
        ip(&format!("netns delete {}", self.name));
    }
}

fn ip(line: &str) -> bool {
    Command::new("ip").args(line.split(' ')).output().is_ok_and(|output| output.status.success())
}

fn start(mut command: Command, url: &str, folder: &Path, args: &[&str]) -> Child {
    command.args(args).arg("--quiet").current_dir(folder).env("DATABASE_URL", url).env("HOME", folder);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    tokio::process::Command::from(command).kill_on_drop(true).spawn().unwrap()
}

fn folder_with_job() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("job.json"), JOB).unwrap();
    folder
}

async fn value(connection: &Connection, sql: &str) -> String {
    connection.query_one(&format!("SELECT ({sql})::text"), &[]).await.unwrap().get(0)
}

/// How long it takes until a query has this result.
async fn until(connection: &Connection, sql: &str, expected: &str, limit: Duration) -> Duration {
    let since = Instant::now();
    while value(connection, sql).await != expected {
        assert!(since.elapsed() < limit, "after {limit:?} this is not {expected}: {sql}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    since.elapsed()
}

#[tokio::test]
async fn a_statement_ends_within_half_a_minute_of_a_client_that_vanished_without_a_word() {
    let Some(machine) = Machine::build() else {
        eprintln!(
            "NOT RUN: a machine that vanishes needs `ip` (iproute2) and the right to make network namespaces (root)"
        );
        return;
    };
    let folder = folder_with_job();
    let server = machine.server(folder.path());
    let here = Server::new(server.url("postgres").parse().unwrap(), &Trust::System).unwrap();
    let connection = here.connect("test").await.unwrap();
    ledger::schema::migrate(&connection).await.unwrap();
    connection.batch(TABLES).await.unwrap();
    connection.batch("INSERT INTO nap VALUES (90)").await.unwrap();

    let mut vanished = machine.start(&server, folder.path(), &["run", "job.json"]);
    until(&connection, AT_WORK, "2", Duration::from_secs(30)).await;
    machine.cable("down");
    let taken = until(&connection, SESSIONS, "0", NOTICED_WITHIN).await;
    println!("the sessions of a client that vanished were gone after {taken:.1?}");
    vanished.kill().await.unwrap();

    machine.cable("up");
    connection.batch("UPDATE nap SET seconds = 0").await.unwrap();
    let run = value(&connection, "SELECT max(run_id) FROM stagemill.run").await;
    let (code, said) =
        ended(machine.start(&server, folder.path(), &["resume", &run]), std::future::ready(String::new())).await;
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(value(&connection, "SELECT count(*) FROM target WHERE n = 1 + id").await, "20");
}

#[tokio::test]
async fn a_frozen_client_keeps_neither_its_session_nor_its_locks_once_its_statement_has_ended() {
    let database = Database::with(TABLES).await;
    database.execute("INSERT INTO nap VALUES (2)").await;
    let folder = folder_with_job();
    let child = start(Command::new(program()), &database.url(), folder.path(), &["run", "job.json"]);
    until(&database.connection, AT_WORK, "2", Duration::from_secs(30)).await;
    assert!(signal(&child, Signal::SIGSTOP));
    let taken = until(&database.connection, IN_TRANSACTION, "0", NOTICED_WITHIN).await;
    println!("the workers' sessions of a frozen client were gone after {taken:.1?}");
    database.execute("BEGIN; SELECT FROM target FOR UPDATE NOWAIT; ROLLBACK; UPDATE nap SET seconds = 0").await;

    assert!(signal(&child, Signal::SIGCONT));
    let (code, said) = ended(child, std::future::ready(String::new())).await;
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(database.value("SELECT count(*) FROM target WHERE n = 1 + id").await, "20");
}

#[tokio::test]
async fn a_statement_ends_within_two_seconds_of_its_client_being_killed() {
    let database = Database::with(TABLES).await;
    database.execute("INSERT INTO nap VALUES (90)").await;
    let folder = folder_with_job();
    let mut child = start(Command::new(program()), &database.url(), folder.path(), &["run", "job.json"]);
    until(&database.connection, AT_WORK, "2", Duration::from_secs(30)).await;
    child.kill().await.unwrap();
    let taken = until(&database.connection, SESSIONS, "0", CLOSED_WITHIN).await;
    println!("the sessions of a client that was killed were gone after {taken:.1?}");
}

#[tokio::test]
async fn a_server_that_accepts_and_says_nothing_is_given_up_as_a_lost_connection() {
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("postgres://nobody@{}/none", silent.local_addr().unwrap());
    let server = Server::new(url.parse().unwrap(), &Trust::System).unwrap();
    let connecting = tokio::time::timeout(NOTICED_WITHIN, server.connect("test")).await;
    let failure = connecting.expect("it does not wait for ever").err().unwrap();
    assert_eq!(failure.class, Class::ConnectionLost);
    assert!(failure.message().contains("no log-in within 15 s"), "{failure}");
}
