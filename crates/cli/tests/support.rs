//! A database for each test, and the program to run against it.

use std::{
    path::PathBuf,
    process::{Child, Command, Output, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use scratch_postgres::ScratchPostgres;
use tempfile::TempDir;
use tokio_postgres::{NoTls, SimpleQueryMessage};

/// The repository's example jobs.
pub(crate) const JOBS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../jobs");

/// What has not ended after this hangs.
const LONGEST: Duration = Duration::from_secs(60);

/// A database of a test's own, and a folder for its files.
pub(crate) struct Db {
    pub(crate) url: String,
    pub(crate) folder: TempDir,
}

/// How the program ended and what it wrote.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

pub(crate) fn shared() -> &'static ScratchPostgres {
    scratch_postgres::shared().expect("a scratch server")
}

impl Db {
    /// An empty database on the shared server.
    pub(crate) fn empty() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        let name = format!("cli_{}", NEXT.fetch_add(1, Ordering::Relaxed));
        sql(&shared().url("postgres"), &format!("CREATE DATABASE {name}"));
        Self { url: shared().url(&name), folder: tempfile::tempdir().unwrap() }
    }

    /// A database with its ledger, and `rows` staged rows for a target of twice as many: `n = target.n + stage.n` shows every row that was
    /// applied twice or not at all.
    pub(crate) fn with_rows(rows: u32) -> Self {
        let db = Self::empty();
        db.sql(&format!(
            "CREATE TABLE target (id bigint PRIMARY KEY, n integer NOT NULL, note text);
             INSERT INTO target SELECT id, 100 FROM generate_series(1, {rows} * 2) AS id;
             CREATE TABLE stage (id bigint PRIMARY KEY, n integer NOT NULL, note text);
             INSERT INTO stage SELECT id * 2, 7, 'staged' FROM generate_series(1, {rows}) AS id ORDER BY hashint4(id);
             ANALYZE stage; ANALYZE target"
        ));
        db.ok(&["init"]);
        db.file("job.json", JOB);
        db
    }

    /// Makes each target row take its time.
    pub(crate) fn slow(&self, seconds_a_row: f64) {
        self.sql(&format!(
            "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep({seconds_a_row}); RETURN NEW; END $$;
             CREATE TRIGGER slow BEFORE UPDATE ON target FOR EACH ROW EXECUTE FUNCTION slow()"
        ));
    }

    pub(crate) fn sql(&self, text: &str) -> String {
        sql(&self.url, text)
    }

    pub(crate) fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    /// The program, in the test's folder, with nothing of the caller's environment that it would read.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_stagemill"));
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("PG") || name.to_string_lossy().starts_with("STAGEMILL") {
                command.env_remove(name);
            }
        }
        command.args(args).current_dir(self.folder.path()).env("HOME", self.folder.path());
        command.env("DATABASE_URL", &self.url).env_remove("NO_COLOR").stdin(Stdio::null());
        command
    }

    pub(crate) fn run(&self, args: &[&str]) -> Ended {
        ended(self.command(args).output().unwrap())
    }

    /// Runs what must succeed; its standard output.
    pub(crate) fn ok(&self, args: &[&str]) -> String {
        let ended = self.run(args);
        assert_eq!(ended.code, Some(0), "{args:?}: {ended:?}");
        ended.out
    }

    /// Runs what must fail with this code and say all of this.
    pub(crate) fn fails(&self, args: &[&str], code: i32, fragments: &[&str]) -> Ended {
        let ended = self.run(args);
        assert_eq!(ended.code, Some(code), "{args:?}: {ended:?}");
        let said = format!("{}{}", ended.out, ended.err);
        for fragment in fragments {
            assert!(said.contains(fragment), "{args:?} does not say {fragment:?}: {said}");
        }
        ended
    }

    pub(crate) fn json(&self, args: &[&str]) -> serde_json::Value {
        serde_json::from_str(&self.ok(args)).unwrap()
    }

    /// Starts what is to be disturbed.
    pub(crate) fn start(&self, args: &[&str]) -> Child {
        self.command(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }

    /// Waits until a query answers `t`.
    pub(crate) fn wait_until(&self, condition: &str) {
        let start = Instant::now();
        while self.sql(&format!("SELECT {condition}")) != "t" {
            assert!(start.elapsed() < Duration::from_secs(30), "{condition} never held");
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Whether each staged row was applied once, and nothing else was touched.
    pub(crate) fn applied_once(&self) -> bool {
        self.sql("SELECT count(*) FROM target t LEFT JOIN stage s USING (id) WHERE t.n <> 100 + COALESCE(s.n, 0)")
            == "0"
    }

    pub(crate) fn untouched(&self) -> bool {
        self.sql("SELECT count(*) FROM target WHERE n <> 100") == "0"
    }

    pub(crate) fn log(&self) -> String {
        let files = std::fs::read_dir(self.folder.path()).unwrap().map(|entry| entry.unwrap().path());
        let logs = files.filter(|path| path.extension().is_some_and(|extension| extension == "log"));
        logs.map(|path| std::fs::read_to_string(path).unwrap()).collect()
    }
}

/// An increment.
pub(crate) const JOB: &str = r#"{
    "name": "increment",
    "stage": { "table": "public.stage" },
    "target": { "table": "public.target", "key": ["id"] },
    "operation": "upsert",
    "columns": { "id": "stage.id", "n": { "insert": "stage.n", "update": "target.n + stage.n" }, "note": "stage.note" },
    "chunks": { "rows": 10 },
    "parallelism": 2
}"#;

pub(crate) fn ended(output: Output) -> Ended {
    Ended {
        code: output.status.code(),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

pub(crate) fn send(child: &Child, signal: Signal) {
    kill(Pid::from_raw(i32::try_from(child.id()).unwrap()), signal).unwrap();
}

/// Waits for the end of what was started, which comes soon.
pub(crate) fn wait(mut child: Child) -> Ended {
    let start = Instant::now();
    while child.try_wait().unwrap().is_none() {
        if start.elapsed() > LONGEST {
            child.kill().unwrap();
            panic!("it hangs: {:?}", ended(child.wait_with_output().unwrap()));
        }
        thread::sleep(Duration::from_millis(5));
    }
    ended(child.wait_with_output().unwrap())
}

/// Runs SQL and returns the first value of the last result.
pub(crate) fn sql(url: &str, text: &str) -> String {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let (client, connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
        tokio::spawn(connection);
        let answers = client.simple_query(text).await.unwrap_or_else(|error| panic!("{text}: {error:?}"));
        let rows = answers.iter().filter_map(|answer| match answer {
            SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
            _ => None,
        });
        rows.last().unwrap_or_default()
    })
}
