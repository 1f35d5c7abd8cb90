//! A database for one test, on the one server of this process.

use std::sync::atomic::{AtomicU32, Ordering};

use scratch_postgres::ScratchPostgres;
use stagemill_engine::{
    answer::{Answer, Step},
    apply::Report,
    failure::Failure,
    job::Job,
    ledger::{self, summary::Summary},
    local::{Driver, Ended},
    pg::{Connection, Server, Trust},
    plan::{self, DeadRun, Start, Started},
};
use tokio_util::sync::CancellationToken;

static NUMBER: AtomicU32 = AtomicU32::new(0);

/// A fresh database with a ledger.
pub struct Database {
    name: String,
    pub connection: Connection,
}

/// The server that all tests of this process share.
pub fn shared() -> &'static ScratchPostgres {
    scratch_postgres::shared().unwrap_or_else(|error| panic!("{error}"))
}

fn server(name: &str) -> Server {
    Server::new(shared().url(name).parse().unwrap(), &Trust::System).unwrap()
}

impl Database {
    /// A database with a ledger and what `sql` makes.
    pub async fn with(sql: &str) -> Self {
        let database = Self::empty().await;
        ledger::schema::migrate(&database.connection).await.unwrap();
        database.execute(sql).await;
        database
    }

    /// A database with nothing in it.
    pub async fn empty() -> Self {
        let name = format!("test_{}_{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        let postgres = server("postgres").connect("test").await.unwrap();
        let made = postgres.batch(&format!("CREATE DATABASE {name}")).await;
        assert!(made.is_ok(), "{made:?}");
        let connection = server(&name).connect("test").await.unwrap();
        Self { name, connection }
    }

    pub fn server(&self) -> Server {
        server(&self.name)
    }

    pub fn url(&self) -> String {
        shared().url(&self.name)
    }

    pub async fn another_connection(&self) -> Connection {
        self.server().connect("test").await.unwrap()
    }

    pub async fn execute(&self, sql: &str) {
        let done = self.connection.batch(sql).await;
        assert!(done.is_ok(), "{sql}: {done:?}");
    }

    /// The one value that a query returns, as text.
    pub async fn value(&self, sql: &str) -> String {
        let row = self
            .connection
            .query_one(&format!("SELECT (SELECT ({sql})::text)"), &[])
            .await
            .unwrap_or_else(|error| panic!("{sql}: {error}"));
        row.get::<_, Option<String>>(0).unwrap_or_else(|| "NULL".to_owned())
    }

    /// Plans a run.
    pub async fn plan(&self, job: &Job, owner: &str) -> Result<Started, Failure> {
        let start = Start { owner, trigger_id: None, followed_by: &[], job, dead: DeadRun::Keep };
        plan::start(&self.connection, &start).await
    }

    /// Plans a run that nothing keeps out.
    pub async fn planned(&self, job: &Job, owner: &str) -> Answer {
        match self.plan(job, owner).await.unwrap() {
            Started::Run(answer) => answer,
            Started::Taken(open) => panic!("run {} is open", open.id),
        }
    }

    /// Runs a job to its end, as the command line does.
    pub async fn run(&self, job: &Job) -> Summary {
        let answer = self.planned(job, &format!("test:{}", NUMBER.fetch_add(1, Ordering::Relaxed))).await;
        if answer.status == Step::Round { self.drive(answer).await } else { panic!("{answer:?}") }
    }

    /// Drives a run to its end.
    pub async fn drive(&self, answer: Answer) -> Summary {
        drive(&self.server(), answer).await
    }
}

/// Drives a run to its end, with workers that connect to this server.
pub async fn drive(server: &Server, answer: Answer) -> Summary {
    let report: &(dyn Fn(Report<'_>) + Sync) = &|_| {};
    let driver = Driver { server, worker: "test", stop: CancellationToken::new(), report };
    match driver.run(answer).await.unwrap() {
        Ended::Closed(summary) | Ended::Interrupted(summary) => *summary,
    }
}

/// A job from its text.
pub fn job(text: &str) -> Job {
    Job::parse(text).unwrap_or_else(|findings| panic!("{findings:?}"))
}
