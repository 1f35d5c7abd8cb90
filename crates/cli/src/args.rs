//! What may be typed.

#[cfg(feature = "aws")]
mod aws;
mod control;
mod examples;
mod job;

use std::path::PathBuf;

use clap::{Args as ClapArgs, Parser, Subcommand, ValueHint, builder::NonEmptyStringValueParser};

use stagemill_engine::job::Parallelism;

#[cfg(feature = "aws")]
pub(crate) use self::aws::{MachineArgs, StartArgs, WatchArgs};
pub(crate) use self::{
    control::{PauseArgs, SetParallelismArgs, StopArgs, UnpauseArgs},
    job::JobCommand,
};
use crate::command::prune::Age;

/// Applies a stage table to a target table on PostgreSQL, in parallel chunks, every staged row exactly once.
#[derive(Debug, Parser)]
#[command(name = "stagemill", version, after_help = examples::ALL, max_term_width = 100)]
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
    #[command(after_help = examples::CHECK)]
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
    /// Start jobs on AWS: an execution of the state machine
    #[cfg(feature = "aws")]
    Start(StartArgs),
    /// Follow an execution on AWS to its end
    #[cfg(feature = "aws")]
    Watch(WatchArgs),
    /// Write one HTML page about a run: chunks over time, rows/s, waits, failures, and what to try next
    Report(ReportArgs),
    /// Delete old runs, with their chunks, from the ledger
    Prune(PruneArgs),
    /// The job table: jobs by name
    #[command(subcommand, after_help = examples::JOB)]
    Job(JobCommand),
    /// Print the JSON Schema of a job file, for editors
    #[command(after_help = examples::SCHEMA)]
    Schema,
    /// Show it all on a throw-away PostgreSQL server, compared with a single statement
    Demo(DemoArgs),
    /// Print a completion script
    Completions(CompletionsArgs),
    /// Print the manual page, or write one for each command
    Man(ManArgs),
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
            #[cfg(feature = "aws")]
            Self::Start(args) => args.json,
            #[cfg(feature = "aws")]
            Self::Watch(args) => args.json,
            Self::Report(args) => args.json,
            Self::Prune(args) => args.json,
            Self::Job(
                JobCommand::List { json }
                | JobCommand::Show { json, .. }
                | JobCommand::Put { json, .. }
                | JobCommand::Diff { json, .. }
                | JobCommand::Rm { json, .. },
            ) => *json,
            Self::Init(args) => args.json,
            Self::Schema | Self::Demo(_) | Self::Completions(_) | Self::Man(_) => false,
        }
    }
}

#[derive(Debug, ClapArgs)]
#[command(after_help = examples::INIT)]
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
    /// Print JSON
    #[arg(long, conflicts_with = "grants")]
    pub(crate) json: bool,
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
#[command(after_help = examples::PLAN)]
pub(crate) struct PlanArgs {
    #[command(flatten)]
    pub(crate) job: JobArgs,
    #[command(flatten)]
    pub(crate) changes: Changes,
}

#[derive(Debug, ClapArgs)]
#[command(after_help = examples::RUN)]
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
#[command(after_help = examples::STATUS)]
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
#[command(after_help = examples::CHUNKS)]
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
#[command(after_help = examples::RESUME)]
pub(crate) struct ResumeArgs {
    /// The run
    pub(crate) run: i64,
    /// Go on although somebody seems to be alive on it: no row is applied twice, but the two disturb each other
    #[arg(long)]
    pub(crate) force: bool,
    /// Not here: start an execution on AWS that goes on with it, and with the jobs that follow it
    #[cfg(feature = "aws")]
    #[arg(long, conflicts_with = "force")]
    pub(crate) on_aws: bool,
    #[cfg(feature = "aws")]
    #[command(flatten)]
    pub(crate) machine: MachineArgs,
    #[command(flatten)]
    pub(crate) drive: DriveArgs,
}

#[derive(Debug, ClapArgs)]
#[command(after_help = examples::REJECTS)]
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

#[derive(Debug, ClapArgs)]
#[command(after_help = examples::SKIP)]
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

#[derive(Debug, ClapArgs)]
#[command(after_help = examples::REPORT)]
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

#[derive(Debug, ClapArgs)]
#[command(after_help = examples::PRUNE)]
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

#[derive(Debug, ClapArgs)]
#[command(after_help = examples::DEMO)]
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
#[command(after_help = examples::COMPLETIONS)]
pub(crate) struct CompletionsArgs {
    /// The shell
    pub(crate) shell: clap_complete::Shell,
}

#[derive(Debug, ClapArgs)]
#[command(after_help = examples::MAN)]
pub(crate) struct ManArgs {
    /// A folder: a page for each command is written there
    #[arg(value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub(crate) folder: Option<PathBuf>,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::Args;

    fn each(command: &clap::Command, seen: &mut dyn FnMut(&clap::Command)) {
        seen(command);
        command.get_subcommands().for_each(|command| each(command, seen));
    }

    #[test]
    fn the_help_of_every_command_teaches_by_examples() {
        // Of a job's commands the examples stand together.
        let of_jobs = ["put", "list", "show", "rm"];
        each(&Args::command(), &mut |command| {
            let after = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(of_jobs.contains(&command.get_name()) || after.contains("Example"), "{}", command.get_name());
        });
    }
}
