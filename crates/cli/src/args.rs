//! What may be typed.

use std::path::PathBuf;

use clap::{Args as ClapArgs, Parser, Subcommand, ValueHint, builder::NonEmptyStringValueParser};

use stagemill_engine::job::Parallelism;

use crate::command::{pause::Span, prune::Age};

const AFTER_HELP: &str = "\
Examples:
  stagemill demo                            see it work on a throw-away server
  export DATABASE_URL=postgres://etl@db.example.com/edw PGPASSWORD=...
  stagemill init                            create the ledger, once a database
  stagemill check jobs/sm_account.json      everything that is wrong with a job
  stagemill plan jobs/sm_account.json       the chunks and the SQL, nothing written
  stagemill run jobs/sm_account.json        apply it
  stagemill status                          the log table
  stagemill chunks 12 --open                what of run 12 was not applied, and why
  stagemill resume 12                       apply that, and nothing twice
  stagemill pause 12                        hold a run back that is under way
  stagemill set-parallelism 12 8            or make it slower, or faster
  stagemill rejects 12                      the rows that run 12 set aside
  stagemill report 12                       one HTML page about it
  stagemill prune --older-than 90d          delete old runs from the log table

Exit codes:
  0 done, or complete but for rows that were set aside   1 run failed, or rows not applied
  2 bad job or arguments   3 cannot connect   4 ledger missing or of another version
  5 another run is open   70 defect   130 interrupted";

/// Applies a stage table to a target table on PostgreSQL, in parallel chunks, every staged row exactly once.
#[derive(Debug, Parser)]
#[command(name = "stagemill", version, after_help = AFTER_HELP, max_term_width = 100)]
pub(crate) struct Args {
    #[command(flatten)]
    pub(crate) connect: ConnectArgs,
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
}

/// Where the server is.
#[derive(Debug, Default, Clone, ClapArgs)]
pub(crate) struct ConnectArgs {
    /// postgres://user@host:port/database, or libpq's `host=... dbname=...`. What it leaves out comes from PGHOST, PGPORT, PGUSER,
    /// PGPASSWORD, PGDATABASE, PGSSLMODE and ~/.pgpass; without a host, from the local socket. A password here is seen by everyone who
    /// lists processes.
    #[arg(
        long,
        global = true,
        env = "DATABASE_URL",
        hide_env_values = true,
        value_name = "URL",
        help_heading = "Connection"
    )]
    pub(crate) database_url: Option<String>,
    /// Trust these certificates (PEM) and no others: the RDS bundle, your own authority's. TLS is verified, chain and host name, except on
    /// sockets and loopback.
    #[arg(long, global = true, env = "PGSSLROOTCERT", value_name = "FILE", value_hint = ValueHint::FilePath, help_heading = "Connection")]
    pub(crate) ca_file: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Create the ledger (schema `stagemill`) in the database, or bring it up to date; or print the grants that it and jobs need
    Init(InitArgs),
    /// Check a job against the database: every finding at once, each with its remedy
    Check(JobArgs),
    /// Show what a run would do: the chunks and the SQL; nothing is written
    Plan(PlanArgs),
    /// Run a job
    Run(RunArgs),
    /// List runs, or show one
    Status(StatusArgs),
    /// List the chunks of a run
    Chunks(ChunksArgs),
    /// Go on with a run: only what was not applied is applied
    Resume(ResumeArgs),
    /// List the rows that a run set aside, or try them again
    Rejects(RejectsArgs),
    /// Pass over chunks that can't, or need not, be applied: they count as done, their rows as skipped
    Skip(SkipArgs),
    /// Hold a run back: chunks in flight finish, none is started until it is unpaused
    Pause(PauseArgs),
    /// Let a run go on that was paused
    Unpause(UnpauseArgs),
    /// End a run: chunks in flight finish, then it is closed; `resume` goes on with the rest
    Stop(StopArgs),
    /// Change how many chunks of a run are applied at a time, while it goes
    SetParallelism(SetParallelismArgs),
    /// Write one HTML page about a run: chunks over time, rows/s, waits, failures, and what to try next
    Report(ReportArgs),
    /// Delete old runs, with their chunks, from the ledger
    Prune(PruneArgs),
    /// The job table: jobs by name
    #[command(subcommand)]
    Job(JobCommand),
    /// Print the JSON Schema of a job file, for editors
    Schema,
    /// Show it all on a throw-away PostgreSQL server, compared with a single statement
    Demo(DemoArgs),
    /// Print a completion script
    Completions(CompletionsArgs),
}

impl Command {
    /// Whether a program reads the output.
    pub(crate) fn wants_json(&self) -> bool {
        match self {
            Self::Check(args) => args.json,
            Self::Plan(args) => args.job.json,
            Self::Run(args) => args.drive.json,
            Self::Status(args) => args.json,
            Self::Chunks(args) => args.json,
            Self::Resume(args) => args.drive.json,
            Self::Rejects(args) => args.drive.json,
            Self::Skip(args) => args.json,
            Self::Pause(args) => args.json,
            Self::Unpause(args) => args.json,
            Self::Stop(args) => args.json,
            Self::SetParallelism(args) => args.json,
            Self::Report(args) => args.json,
            Self::Prune(args) => args.json,
            Self::Job(
                JobCommand::List { json }
                | JobCommand::Show { json, .. }
                | JobCommand::Put { json, .. }
                | JobCommand::Rm { json, .. },
            ) => *json,
            Self::Init(_) | Self::Schema | Self::Demo(_) | Self::Completions(_) => false,
        }
    }
}

const INIT_HELP: &str = r#"Examples:
  stagemill init                                                          once a database
  stagemill init --grants --role etl orders.json | psql "$DATABASE_URL"   as the owner of the tables"#;

#[derive(Debug, ClapArgs)]
#[command(after_help = INIT_HELP)]
pub(crate) struct InitArgs {
    /// Create nothing: print the least privileges that a role needs to run jobs, as SQL for psql
    #[arg(long)]
    pub(crate) grants: bool,
    /// The role that runs jobs, exactly as it is called
    #[arg(long, value_name = "ROLE", default_value = "etl", requires = "grants", value_parser = NonEmptyStringValueParser::new())]
    pub(crate) role: String,
    /// Also what a role needs to look at runs, and no row's value
    #[arg(long, value_name = "ROLE", requires = "grants", value_parser = NonEmptyStringValueParser::new())]
    pub(crate) reader: Option<String>,
    /// Job files, or names of jobs in the job table: what each needs beside the ledger
    #[arg(value_name = "JOB_OR_FILE", value_hint = ValueHint::FilePath, requires = "grants")]
    pub(crate) jobs: Vec<String>,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct JobArgs {
    /// A job file, or the name of a job in the job table
    #[arg(value_name = "JOB_OR_FILE", value_hint = ValueHint::FilePath)]
    pub(crate) job: String,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// What may be changed of a job for one time.
#[derive(Debug, Default, Clone, Copy, ClapArgs)]
pub(crate) struct Changes {
    /// Chunks applied at a time, instead of the job's; `auto`: the run finds the best number
    #[arg(long, value_name = "N|auto", value_parser = Parallelism::parse)]
    pub(crate) parallelism: Option<Parallelism>,
    /// Rows a chunk, instead of the job's
    #[arg(long, value_name = "N")]
    pub(crate) rows: Option<u32>,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct PlanArgs {
    #[command(flatten)]
    pub(crate) job: JobArgs,
    #[command(flatten)]
    pub(crate) changes: Changes,
}

const RUN_HELP: &str = "\
Examples:
  stagemill run jobs/sm_account.json
  stagemill run sm_account --parallelism 16          a job of the job table, with more sessions
  stagemill run sm_account --quiet --json            for cron: JSON on stdout, errors on stderr

Ctrl-C lets the chunks in flight finish and leaves a run that `stagemill resume` completes; a second
Ctrl-C ends at once, and the server rolls back what was in flight. Neither loses or repeats a row.";

#[derive(Debug, ClapArgs)]
#[command(after_help = RUN_HELP)]
pub(crate) struct RunArgs {
    /// A job file, or the name of a job in the job table
    #[arg(value_name = "JOB_OR_FILE", value_hint = ValueHint::FilePath)]
    pub(crate) job: String,
    #[command(flatten)]
    pub(crate) changes: Changes,
    /// Close an open run of this job whose owner died, and start anew: what that run applied is applied again. `stagemill resume` is
    /// what completes it instead
    #[arg(long)]
    pub(crate) abandon: bool,
    #[command(flatten)]
    pub(crate) drive: DriveArgs,
}

/// How a run is shown while it is driven.
#[derive(Debug, Default, Clone, ClapArgs)]
pub(crate) struct DriveArgs {
    /// Where the log file goes: <job>_<YYYYMMDD_HHMMSS>.log, one JSON object a line
    #[arg(long, env = "STAGEMILL_LOG_DIR", default_value = ".", value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub(crate) log_dir: PathBuf,
    /// No progress
    #[arg(long, short)]
    pub(crate) quiet: bool,
    /// Print the summary as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct StatusArgs {
    /// Show this run in detail
    pub(crate) run: Option<i64>,
    /// Runs of this job only
    #[arg(long, value_name = "NAME", conflicts_with = "run")]
    pub(crate) job: Option<String>,
    /// How many of the newest runs
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(i64).range(1..), conflicts_with = "run")]
    pub(crate) limit: i64,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct ChunksArgs {
    /// The run
    pub(crate) run: i64,
    /// Only the chunks that were not applied
    #[arg(long)]
    pub(crate) open: bool,
    /// Show the server's own words for each failure: they can hold values of the rows
    #[arg(long)]
    pub(crate) detail: bool,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct ResumeArgs {
    /// The run
    pub(crate) run: i64,
    /// Go on although somebody seems to be alive on it: no row is applied twice, but the two disturb each other
    #[arg(long)]
    pub(crate) force: bool,
    #[command(flatten)]
    pub(crate) drive: DriveArgs,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct RejectsArgs {
    /// The run
    pub(crate) run: i64,
    /// Apply them: those that are found in the stage by their target key, as they are there now
    #[arg(long)]
    pub(crate) retry: bool,
    /// Show the rows and the server's own words: the values
    #[arg(long, conflicts_with = "retry")]
    pub(crate) rows: bool,
    /// How many of them
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(i64).range(1..))]
    pub(crate) limit: i64,
    #[command(flatten)]
    pub(crate) drive: DriveArgs,
}

const SKIP_HELP: &str = "\
Examples:
  stagemill chunks 12 --open     what was not applied, and why
  stagemill skip 12 5 7          chunks 5 and 7 of run 12 will not be applied, or were by hand
  stagemill resume 12            applies the others, and completes the run

It can't be taken back: a new run applies every staged row.";

#[derive(Debug, ClapArgs)]
#[command(after_help = SKIP_HELP)]
pub(crate) struct SkipArgs {
    /// The run
    pub(crate) run: i64,
    /// Its chunks
    #[arg(required = true, value_name = "CHUNK")]
    pub(crate) chunks: Vec<i32>,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

const PAUSE_HELP: &str = "\
Examples:
  stagemill pause 12                              until `stagemill unpause 12`
  stagemill pause 12 --for 30m --reason payroll   goes on by itself after half an hour

It works from anywhere with access to the ledger, on runs of a command line and of a state machine alike, within seconds.";

#[derive(Debug, ClapArgs)]
#[command(after_help = PAUSE_HELP)]
pub(crate) struct PauseArgs {
    /// The run
    pub(crate) run: i64,
    /// For how long: 90s, 30m, 2h; until somebody unpauses it when left out
    #[arg(long = "for", value_name = "TIME")]
    pub(crate) lasts: Option<Span>,
    /// Why, for those who look at its status
    #[arg(long, value_name = "TEXT", value_parser = NonEmptyStringValueParser::new())]
    pub(crate) reason: Option<String>,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct UnpauseArgs {
    /// The run
    pub(crate) run: i64,
    /// Also what alarms and limits hold it back for; a limit that is still exceeded does so again
    #[arg(long)]
    pub(crate) all: bool,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

const STOP_HELP: &str = "\
Examples:
  stagemill stop 12              waits until it is closed
  stagemill stop 12 --no-wait    only asks for it

What was applied stays, and `stagemill resume 12` goes on with the rest.";

#[derive(Debug, ClapArgs)]
#[command(after_help = STOP_HELP)]
pub(crate) struct StopArgs {
    /// The run
    pub(crate) run: i64,
    /// Do not wait until the run is closed
    #[arg(long)]
    pub(crate) no_wait: bool,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct SetParallelismArgs {
    /// The run
    pub(crate) run: i64,
    /// Chunks applied at a time
    #[arg(value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) parallelism: u32,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

const REPORT_HELP: &str = "\
Examples:
  stagemill report 12                       writes JOB_run_12.html, and says so
  stagemill report 12 -o today.html --force
  stagemill report 12 -o - | ssh web 'cat > /srv/www/run.html'
  stagemill report 12 --json                what it is made of, for programs

The page needs no network and no script, and holds no row's value. A run may still be under way.";

#[derive(Debug, ClapArgs)]
#[command(after_help = REPORT_HELP)]
pub(crate) struct ReportArgs {
    /// The run
    pub(crate) run: i64,
    /// The file, `-` for stdout; JOB_run_N.html here when left out
    #[arg(long, short, value_name = "FILE", value_hint = ValueHint::FilePath, conflicts_with = "json")]
    pub(crate) output: Option<PathBuf>,
    /// Overwrite a file that is there
    #[arg(long, conflicts_with = "json")]
    pub(crate) force: bool,
    /// Print JSON: the run, its rounds, holds, paces and chunks on the time axis, and the advice
    #[arg(long)]
    pub(crate) json: bool,
}

const PRUNE_HELP: &str = "\
Examples:
  stagemill prune --older-than 90d --dry-run         what would go
  stagemill prune --older-than 4w --job sm_account   of one job

A run goes with its rounds and chunks. What stays: open runs, the newest run of each job (it may be
resumed), and the last one of each job that was complete.";

#[derive(Debug, ClapArgs)]
#[command(after_help = PRUNE_HELP)]
pub(crate) struct PruneArgs {
    /// Runs that ended longer ago than this: 12h, 90d, 4w, "1 year"
    #[arg(long, value_name = "AGE")]
    pub(crate) older_than: Age,
    /// Runs of this job only
    #[arg(long, value_name = "NAME")]
    pub(crate) job: Option<String>,
    /// Only say what would be deleted
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum JobCommand {
    /// Store a job under its name, in the place of one that is there
    Put {
        /// The job file
        #[arg(value_hint = ValueHint::FilePath)]
        file: PathBuf,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// List the jobs
    List {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Print a job
    Show {
        /// Its name
        name: String,
        /// Print JSON (it always does)
        #[arg(long, hide = true)]
        json: bool,
    },
    /// Remove a job from the job table; its runs stay in the log table
    Rm {
        /// Its name
        name: String,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, ClapArgs)]
pub(crate) struct DemoArgs {
    /// Staged rows: nine in ten are of accounts that exist
    #[arg(long, default_value_t = 400_000, value_name = "N", value_parser = clap::value_parser!(u32).range(10..=100_000_000))]
    pub(crate) rows: u32,
    /// Rows of the target table
    #[arg(long, default_value_t = 4_000_000, value_name = "N", value_parser = clap::value_parser!(u32).range(10..=1_000_000_000))]
    pub(crate) target_rows: u32,
    /// Chunks applied at a time, instead of the job's; `auto`: the run finds the best number
    #[arg(long, value_name = "N|auto", value_parser = Parallelism::parse)]
    pub(crate) parallelism: Option<Parallelism>,
    /// Keep the server until Ctrl-C, and print its URL
    #[arg(long)]
    pub(crate) keep: bool,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct CompletionsArgs {
    /// The shell
    pub(crate) shell: clap_complete::Shell,
}
