//! What may be typed after `stagemill job`.

use std::path::PathBuf;

use clap::{Subcommand, ValueHint};

use super::examples;

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
    /// Show what differs between a job file, or a job, and a job of the job table
    #[command(after_help = examples::DIFF)]
    Diff {
        /// A job file, or the name of a job in the job table
        #[arg(value_name = "JOB_OR_FILE", value_hint = ValueHint::FilePath)]
        job: String,
        /// The job of the job table to compare it with; the one of the same name when left out
        #[arg(value_name = "NAME")]
        other: Option<String>,
        /// Print JSON
        #[arg(long)]
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
