//! `stagemill pause`: holds a run back.

use std::{str::FromStr, time::Duration};

use jiff::SignedDuration;
use serde_json::json;
use stagemill_engine::{
    failure::{Class, Failure},
    ledger::{self, hold},
    pg::Connection,
};

use super::taken::{self, Life};
use crate::{
    args::PauseArgs,
    exit::{CliError, Exit},
    server, table,
    world::World,
};

/// A length of time as it is typed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Span(Duration);

impl FromStr for Span {
    type Err = String;

    fn from_str(typed: &str) -> Result<Self, String> {
        let span: Option<SignedDuration> = typed.parse().ok();
        let span = span.and_then(|span| Duration::try_from(span).ok()).filter(|span| !span.is_zero());
        span.map(Self).ok_or_else(|| "it is no length of time; give one such as 90s, 30m or 2h".to_owned())
    }
}

pub(crate) async fn run(args: PauseArgs, world: &World) -> Result<Exit, CliError> {
    let (_, connection) = server::connect_with_ledger(&world.connect).await?;
    let who = who(&connection).await?;
    let reason = args.reason.map_or_else(|| format!("paused by {who}"), |reason| format!("paused by {who}: {reason}"));
    let lasts = args.lasts.map(|span| span.0);
    if !hold::set(&connection, args.run, hold::PEOPLE, &reason, lasts).await? {
        return Err(ended(&connection, args.run, "paused").await?.into());
    }
    if args.json {
        let seconds = lasts.map(|lasts| lasts.as_secs_f64());
        world.print_json(&json!({ "run": args.run, "held": reason, "held_seconds_left": seconds }))?;
        return Ok(Exit::Done);
    }
    let open = ledger::run::open_run(&connection, args.run).await?;
    let until = match lasts {
        Some(lasts) => format!("for {}", table::whole_duration(lasts.as_secs_f64())),
        None => "until it is unpaused".to_owned(),
    };
    let nobody = match taken::life(&open) {
        Life::Gone => " (nobody is working on it now)",
        Life::Working(_) | Life::MayComeBack => "",
    };
    let unpause = format!("stagemill unpause {}", args.run);
    world.print(&format!(
        "run {} is paused {until}{nobody}: chunks in flight finish, none is started\n{}",
        args.run,
        table::commands(&[(&unpause, "lets it go on")])
    ))?;
    Ok(Exit::Done)
}

/// The role that asks, for those who look at the run.
pub(super) async fn who(connection: &Connection) -> Result<String, Failure> {
    Ok(connection.query_one("SELECT SESSION_USER::text", &[]).await?.get(0))
}

/// Why a run that has ended, or that there is not, can't be controlled.
pub(super) async fn ended(connection: &Connection, run: i64, what: &str) -> Result<Failure, Failure> {
    let status = ledger::summary::of_run(connection, run).await?.status.as_str();
    Ok(Failure::new(Class::BadJob, format!("run {run} has ended {status}: there is nothing to be {what}")))
}
