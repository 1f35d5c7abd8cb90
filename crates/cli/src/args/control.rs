//! What may be typed to act on a run that is under way.

use clap::{Args as ClapArgs, builder::NonEmptyStringValueParser};

use super::examples;
use crate::command::pause::Span;

#[derive(Debug, ClapArgs)]
#[command(after_help = examples::PAUSE)]
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
#[command(after_help = examples::UNPAUSE)]
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

#[derive(Debug, ClapArgs)]
#[command(after_help = examples::STOP)]
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
#[command(after_help = examples::SPEED)]
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
