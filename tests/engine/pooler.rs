//! Behind PgBouncer in transaction mode, with fewer server sessions than workers: what a session keeps belongs to somebody else.

use std::{
    io::Write,
    net::{SocketAddr, TcpListener, TcpStream},
    os::unix::process::CommandExt,
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use nix::unistd::{User, chown, geteuid};
use stagemill_engine::{
    answer::Answer,
    job::{ChunkBy, Job},
    ledger::summary::Summary,
    pg::{Server, Trust},
    plan::{self, DeadRun, Start, Started},
};
use tempfile::TempDir;

use crate::{
    database::{self, Database, drive},
    faults::{
        proxy::{Harm, Point, Proxy},
        workload::Workload,
    },
};

/// The target is slow enough that sessions are shared.
const ROW_TAKES: Duration = Duration::from_millis(1);

/// Sessions with the server, for eight workers.
const SESSIONS: u32 = 3;

/// Ends the program hard when this process ends, in whatever way: the pipe to its standard input closes then.
const SCRIPT: &str = r#""$1" "$2" & pid=$!; read -r _; kill -9 "$pid"; wait "$pid""#;

/// A PgBouncer before the shared server.
struct Pooler {
    program: PathBuf,
    folder: TempDir,
    port: u16,
    keeper: Option<Child>,
}

impl Pooler {
    /// `None` where the program is not there: said aloud, and an error where it has to be there.
    fn start() -> Option<Self> {
        let Some(program) = program() else {
            let missing =
                "PgBouncer is not installed (apt-get install pgbouncer): the engine was NOT tested behind a pooler";
            assert!(std::env::var("CI").as_deref() != Ok("true"), "{missing}");
            // Past the capture of the tests' output.
            let _ = writeln!(std::io::stderr().lock(), "\nSKIPPED: {missing}\n");
            return None;
        };
        let folder = tempfile::tempdir().unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let configuration = format!(
            "[databases]
             * = host=127.0.0.1 port={} user=scratch
             [pgbouncer]
             listen_addr = 127.0.0.1
             listen_port = {port}
             unix_socket_dir =
             auth_type = any
             pool_mode = transaction
             default_pool_size = {SESSIONS}
             reserve_pool_size = 0
             max_client_conn = 100
             server_login_retry = 1
             logfile = {}",
            database::shared().port(),
            folder.path().join("log").display(),
        );
        let configuration: String = configuration.lines().map(|line| format!("{}\n", line.trim_start())).collect();
        std::fs::write(folder.path().join("pgbouncer.ini"), configuration).unwrap();
        let mut pooler = Self { program, folder, port, keeper: None };
        pooler.run();
        Some(pooler)
    }

    fn run(&mut self) {
        let ini = self.folder.path().join("pgbouncer.ini");
        let mut command = Command::new("/bin/sh");
        command.args(["-c", SCRIPT, "pooler"]).arg(&self.program).arg(&ini);
        command.current_dir("/").stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).process_group(0);
        if geteuid().is_root() {
            // It refuses to run as root.
            let user = ["postgres", "nobody"].iter().find_map(|name| User::from_name(name).unwrap()).unwrap();
            for path in [self.folder.path(), &ini] {
                chown(path, Some(user.uid), Some(user.gid)).unwrap();
            }
            command.uid(user.uid.as_raw()).gid(user.gid.as_raw());
        }
        self.keeper = Some(command.spawn().unwrap());
        let since = Instant::now();
        while TcpStream::connect(self.address()).is_err() {
            assert!(since.elapsed() < Duration::from_secs(20), "PgBouncer does not answer: {}", self.log());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Kills it: every client is cut off, and the server's sessions end.
    fn kill(&mut self) {
        if let Some(mut keeper) = self.keeper.take() {
            drop(keeper.stdin.take());
            let _ = keeper.wait();
        }
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    fn address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.port))
    }
}

impl Drop for Pooler {
    fn drop(&mut self) {
        self.kill();
    }
}

fn program() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    // Debian's is where only root looks.
    std::env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/usr/local/sbin".into()])
        .map(|folder| folder.join("pgbouncer"))
        .find(|file| file.is_file())
}

/// A database's server, seen through this port.
fn through(database: &Database, port: u16) -> Server {
    let name = database.url().rsplit('/').next().unwrap_or_default().to_owned();
    Server::new(format!("postgres://scratch@127.0.0.1:{port}/{name}").parse().unwrap(), &Trust::System).unwrap()
}

fn spec(workload: Workload, seed: u64) -> Job {
    let mut job = database::job(&workload.job(&mut fastrand::Rng::with_seed(seed)));
    job.parallelism = 8.into();
    job.chunks.by = ChunkBy::Key;
    job.chunks.rows = 10;
    job
}

/// Plans a job through the pooler.
async fn planned(server: &Server, job: &Job) -> Answer {
    let connection = server.connect("planner").await.unwrap();
    let start = Start { owner: "pooled", trigger_id: None, followed_by: &[], job, dead: DeadRun::Keep };
    match plan::start(&connection, &start).await.unwrap() {
        Started::Run(answer) => answer,
        Started::Taken(open) => panic!("run {} is open", open.id),
    }
}

/// Longer than any run here takes: what is not over by then hangs.
async fn bounded(run: impl Future<Output = Summary>) -> Summary {
    tokio::time::timeout(Duration::from_secs(90), run).await.unwrap_or_else(|_| panic!("it hangs"))
}

async fn holds(database: &Database, workload: Workload, summary: &Summary) {
    assert_eq!(summary.status.as_str(), workload.status(), "{workload:?}: {summary:?}");
    assert!(summary.tally.counts.add_up() && summary.tally.chunks > 8, "{summary:?}");
    assert_eq!(database.value(workload.wrong()).await, "0", "{workload:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn eight_workers_share_three_sessions_and_each_operation_is_the_single_statement() {
    let Some(pooler) = Pooler::start() else { return };
    for (seed, workload) in (0..).zip(Workload::ALL) {
        let database = Database::with(&workload.tables(ROW_TAKES)).await;
        let watched = database.another_connection().await;
        let server = through(&database, pooler.port);
        let most = async {
            let mut most = 0_i64;
            loop {
                let sql = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid() AND application_name <> 'test' AND backend_type = 'client backend'";
                most = most.max(watched.query_one(sql, &[]).await.unwrap().get(0));
                assert!(most <= i64::from(SESSIONS), "{most} sessions");
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let job = spec(workload, seed);
        let run = async { drive(&server, planned(&server, &job).await).await };
        let summary = tokio::select! { summary = bounded(run) => summary, () = most => unreachable!() };
        holds(&database, workload, &summary).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn workers_that_are_cut_off_before_the_pooler_lose_nothing_and_apply_nothing_twice() {
    let Some(pooler) = Pooler::start() else { return };
    let proxy = Proxy::start(pooler.address()).await;
    let harms = [
        (Workload::Increment, Point::Commit, Harm::CutAfter),
        (Workload::Increment, Point::Statement, Harm::CutAfter),
        (Workload::Changes, Point::Finish, Harm::CutAfter),
        (Workload::Delete, Point::Commit, Harm::DropAnswer),
        (Workload::Statements, Point::Fence, Harm::CutBefore),
    ];
    for (workload, point, harm) in harms {
        let database = Database::with(&workload.tables(ROW_TAKES)).await;
        let answer = planned(&through(&database, pooler.port), &spec(workload, 7)).await;
        let struck = proxy.arm(point, harm, 7);
        let summary = bounded(drive(&through(&database, proxy.port()), answer)).await;
        proxy.disarm();
        assert!(*struck.borrow(), "{point:?} {harm:?}: its moment did not come");
        holds(&database, workload, &summary).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pooler_that_is_killed_and_started_again_in_the_middle_loses_nothing() {
    let Some(mut pooler) = Pooler::start() else { return };
    for workload in [Workload::Increment, Workload::Changes] {
        let database = Database::with(&workload.tables(ROW_TAKES)).await;
        let server = through(&database, pooler.port);
        let answer = planned(&server, &spec(workload, 3)).await;
        let middle = async {
            let some =
                "SELECT count(*) FILTER (WHERE state = 'PROCESSED') BETWEEN 3 AND count(*) - 3 FROM stagemill.chunk";
            let since = Instant::now();
            while database.value(some).await != "true" {
                assert!(since.elapsed() < Duration::from_secs(60), "the middle does not come");
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            tokio::task::block_in_place(|| {
                pooler.kill();
                pooler.run();
            });
        };
        let (summary, ()) = tokio::join!(bounded(drive(&server, answer)), middle);
        assert!(summary.tally.retries > 0, "nobody noticed: {summary:?}");
        holds(&database, workload, &summary).await;
    }
}
