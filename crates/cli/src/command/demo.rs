//! `stagemill demo`: the whole of it on a throw-away server, compared with the single statement that a person would write.

mod compare;

use std::time::{Duration, Instant};

use anstyle::AnsiColor;
use comfy_table::Cell;
use indicatif::{ProgressBar, ProgressStyle};
use scratch_postgres::ScratchPostgres;
use stagemill_engine::{
    failure::Failure,
    job::Job,
    ledger::{self, summary::Summary},
    local::Ended,
    outcome::Status,
    pg::{Connection, Server, Trust},
};
use tokio_postgres::{Config, SimpleQueryMessage};

use self::compare::{Comparison, compare};
use super::run::{Starting, start};
use crate::{
    args::{Changes, DemoArgs},
    drive::{self, Show},
    exit::{CliError, Exit},
    jobfile,
    table::{self, count, duration},
    world::{Stream, World, styled},
};

const JOB: &str = include_str!("../../../../jobs/sm_account.json");
const STAGE: &str = include_str!("demo/stage.sql");
const TARGET: &str = include_str!("demo/target.sql");
const SINGLE: &str = include_str!("demo/single.sql");

/// Near Aurora: no page images; and all tables fit into the cache. Autovacuum would strike one of the two tables and not the other.
const SETTINGS: [(&str, &str); 8] = [
    ("full_page_writes", "off"),
    ("wal_level", "minimal"),
    ("max_wal_senders", "0"),
    ("max_wal_size", "16GB"),
    ("checkpoint_timeout", "1h"),
    ("maintenance_work_mem", "256MB"),
    ("work_mem", "64MB"),
    ("autovacuum", "off"),
];

pub(crate) async fn run(args: DemoArgs, world: &World) -> Result<Exit, CliError> {
    let job = Job::parse(JOB).map_err(|findings| CliError::Findings { what: "the demo's job".into(), findings })?;
    let job = jobfile::change(job, Changes { parallelism: args.parallelism, rows: None }, "the demo's job")?;
    let demo = world.unless_stopped("the demo's server is gone", Demo::prepare(world, &args)).await?;
    let show = Show::default();
    world.say("stagemill run jobs/sm_account.json");
    let began = Instant::now();
    let starting = Starting { world, server: &demo.server, job: &job, typed: "jobs/sm_account.json", abandon: false };
    let ended = Box::pin(start(&starting, &show)).await?;
    let took = began.elapsed();
    let exit = drive::conclude(world, &ended, &show)?;
    let (Ended::Closed(summary) | Ended::Interrupted(summary)) = &ended;
    let exit = if exit == Exit::Done {
        world.unless_stopped("the demo's server is gone", demo.contrast(world, summary, took)).await?
    } else {
        exit
    };
    if args.keep {
        demo.keep(world).await?;
    }
    Ok(exit)
}

struct Demo {
    // Dropped last: the sessions go before their server.
    server: Server,
    postgres: ScratchPostgres,
}

impl Demo {
    /// Starts a server and fills it.
    async fn prepare(world: &World, args: &DemoArgs) -> Result<Self, CliError> {
        let waiting = Waiting::start(world, "starting a throw-away PostgreSQL");
        let began = Instant::now();
        // Room for both targets with their indexes, as far as a small machine can give it.
        let cache = (u64::from(args.target_rows) * 512 / (1024 * 1024)).clamp(128, 2048);
        let postgres = tokio::task::spawn_blocking(move || {
            let builder = ScratchPostgres::builder().setting("shared_buffers", format!("{cache}MB"));
            SETTINGS.iter().fold(builder, |builder, (name, value)| builder.setting(*name, *value)).start()
        });
        let postgres = postgres
            .await
            .map_err(|error| CliError::Internal(error.to_string()))?
            .map_err(|error| CliError::Connect(error.to_string()))?;
        let config: Config = postgres
            .socket_url("postgres")
            .parse()
            .map_err(|_| CliError::Internal("the demo's server has an address that can't be read".into()))?;
        let server = Server::new(config, &Trust::System)?;
        waiting.done(&format!(
            "PostgreSQL {}, thrown away afterwards, started in {}",
            postgres.version(),
            seconds(began)
        ));
        let demo = Self { server, postgres };
        demo.fill(world, args).await?;
        Ok(demo)
    }

    async fn fill(&self, world: &World, args: &DemoArgs) -> Result<(), CliError> {
        let began = Instant::now();
        let (rows, target_rows) = (args.rows, args.target_rows);
        let what = format!("{} accounts, twice, and {} staged rows", count(target_rows.into()), count(rows.into()));
        let waiting = Waiting::start(world, &format!("filling: {what}"));
        let existing = (u64::from(rows) * 9 / 10).clamp(1, u64::from(target_rows));
        let filled = |sql: &str, table: &str| {
            let numbers =
                [("{rows}", u64::from(rows)), ("{target_rows}", u64::from(target_rows)), ("{existing}", existing)];
            numbers.iter().fold(sql.replace("{table}", table), |sql, (name, n)| sql.replace(name, &n.to_string()))
        };
        let first = self.connect().await?;
        first.batch("CREATE SCHEMA edw_ods_stg; CREATE SCHEMA edw_ods").await?;
        ledger::schema::migrate(&first).await?;
        let copy = filled(TARGET, "account_single");
        // The copy in a session of its own, on another core.
        let (one, two) = tokio::join!(
            async {
                load(&first, &filled(STAGE, ""), "edw_ods_stg.stg_sm_account").await?;
                load(&first, &filled(TARGET, "account"), "edw_ods.account").await
            },
            async { load(&self.connect().await?, &copy, "edw_ods.account_single").await }
        );
        one.and(two)?;
        first.batch("CHECKPOINT").await?;
        waiting.done(&format!("{what}, made in {}", seconds(began)));
        Ok(())
    }

    async fn connect(&self) -> Result<Connection, Failure> {
        self.server.connect("stagemill demo").await
    }

    /// Runs the single statement on the copy, and compares.
    async fn contrast(&self, world: &World, summary: &Summary, took: Duration) -> Result<Exit, CliError> {
        let connection = self.connect().await?;
        let waiting = Waiting::start(world, "the same by one statement, on the copy");
        let began = Instant::now();
        connection.batch("BEGIN").await?;
        connection.batch(SINGLE).await?;
        let at = first_value(&connection.batch("SELECT CURRENT_TIMESTAMP(0)::timestamp::text").await?);
        connection.batch("COMMIT").await?;
        let single = began.elapsed();
        waiting.done(&format!("the same by one statement, on the copy: {}", duration(single.as_secs_f64())));
        let waiting = Waiting::start(world, "comparing every column of every row");
        let began = Instant::now();
        let comparison = compare(&connection, summary.run, &at).await?;
        waiting.done(&format!("every column of every row compared in {}", seconds(began)));
        let exit = if comparison.equal() { Exit::Done } else { Exit::NotApplied };
        world.print(&verdict(&comparison, summary, took, single))?;
        Ok(exit)
    }

    /// Waits for Ctrl-C.
    async fn keep(&self, world: &World) -> Result<(), CliError> {
        let url = self.postgres.url("postgres");
        world.print(&format!(
            "\nThe server is kept until Ctrl-C. In another terminal:\n  export DATABASE_URL={url}\n  stagemill status\n  psql $DATABASE_URL"
        ))?;
        world.stop().cancelled().await;
        world.say("the server is gone");
        Ok(())
    }
}

/// Fills a table in one transaction, in which nothing of it needs to be logged, and lets the planner know it.
async fn load(connection: &Connection, sql: &str, table: &str) -> Result<(), Failure> {
    connection.batch("BEGIN").await?;
    let loaded = connection.batch(sql).await;
    connection.end(loaded).await?;
    connection.batch(&format!("VACUUM (FREEZE, ANALYZE) {table}")).await?;
    Ok(())
}

fn first_value(answers: &[SimpleQueryMessage]) -> String {
    let row = answers.iter().find_map(|answer| match answer {
        SimpleQueryMessage::Row(row) => row.get(0),
        _ => None,
    });
    row.unwrap_or_default().to_owned()
}

fn verdict(comparison: &Comparison, summary: &Summary, took: Duration, single: Duration) -> String {
    let mut times = table::new(["", "time", "rows/s", "rows afterwards"]);
    let staged = summary.tally.counts.staged as f64;
    let how = format!("stagemill, {}", table::sessions(summary));
    for (what, time, rows) in [(how.as_str(), took, comparison.rows), ("one statement", single, comparison.single_rows)]
    {
        let time = time.as_secs_f64();
        times.add_row(vec![
            Cell::new(what),
            Cell::new(duration(time)),
            table::number((staged / time.max(0.001)) as i64),
            table::number(rows),
        ]);
    }
    let ratio = single.as_secs_f64() / took.as_secs_f64().max(0.001);
    let equal = if comparison.equal() {
        format!(
            "{}: all {} rows, every column. update_ts and create_ts count as equal\nwhere both are CURRENT_TIMESTAMP(0) of their own run: the run's in its time, the statement's to the second.",
            styled(Stream::Out, AnsiColor::Green, "equal"),
            count(comparison.rows)
        )
    } else {
        format!(
            "{}: {} rows differ, {} are only in the run's target, {} only in the statement's",
            styled(Stream::Out, AnsiColor::Red, "NOT EQUAL"),
            count(comparison.different),
            count(comparison.rows - comparison.shared),
            count(comparison.single_rows - comparison.shared)
        )
    };
    debug_assert_eq!(summary.status, Status::Complete);
    format!("{times}\n{equal}\nstagemill was {ratio:.2} times as fast as the single statement.")
}

fn seconds(since: Instant) -> String {
    duration(since.elapsed().as_secs_f64())
}

/// A line that says what is being waited for, and then what came of it.
struct Waiting<'a> {
    world: &'a World,
    bar: ProgressBar,
}

impl<'a> Waiting<'a> {
    fn start(world: &'a World, what: &str) -> Self {
        let style = ProgressStyle::with_template("{spinner:.cyan} {msg} {elapsed:.dim}");
        let bar = ProgressBar::new_spinner().with_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()));
        let bar = world.bars.add(bar.with_message(what.to_owned()));
        bar.enable_steady_tick(Duration::from_millis(120));
        Self { world, bar }
    }

    fn done(self, came: &str) {
        self.bar.finish_and_clear();
        self.world.say(came);
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
        self.world.bars.remove(&self.bar);
    }
}
