//! `stagemill watch`: follows an execution to its end, by its state and by the ledger.

use std::time::Duration;

use serde_json::json;
use stagemill_engine::{
    failure::Failure,
    ledger::{self, summary::Summary},
    pg::Connection,
};

use crate::{
    args::WatchArgs,
    aws::{Execution, States},
    exit::{CliError, Exit},
    progress::Watched,
    server, table,
    world::World,
};

/// Between two looks: Step Functions allows some 15 a second to an account.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// Looks in a row that fail before watching is given up: an execution outlives a network's hiccup or an expired log-in.
const LOOKS: u32 = 60;

pub(crate) async fn run(args: WatchArgs, world: &World) -> Result<Exit, CliError> {
    let states = States::of(&args.execution).await?;
    until_end(world, &states, &args.execution, args.json).await
}

/// Shows an execution until it ends.
pub(crate) async fn until_end(
    world: &World,
    states: &States,
    execution: &str,
    as_json: bool,
) -> Result<Exit, CliError> {
    let ledger = connect(world).await;
    let watching = follow(world, states, execution, ledger);
    let text = format!("the execution goes on: `stagemill watch {execution}` looks again");
    let (ended, run) = world.unless_stopped(&text, watching).await?;
    conclude(world, execution, &ended, run.as_ref(), as_json)
}

/// The ledger, where it can be reached from here.
async fn connect(world: &World) -> Option<Connection> {
    match server::connect_with_ledger(&world.connect).await {
        Ok((_, connection)) => Some(connection),
        Err(error) => {
            world.say(&format!("the ledger can't be reached, so that only the execution's state is shown: {error}"));
            None
        }
    }
}

async fn follow(
    world: &World,
    states: &States,
    execution: &str,
    mut ledger: Option<Connection>,
) -> Result<(Execution, Option<Summary>), CliError> {
    let mut bar = Watched::start(world);
    let has_ledger = ledger.is_some();
    let (mut seen, mut failed) = (false, 0);
    loop {
        // The state first: the run of an execution that has ended is as it stays.
        let now = match states.look(execution).await {
            Ok(now) => now,
            Err(error) if seen && failed < LOOKS => {
                if failed == 0 {
                    world.say(&format!("the execution can't be looked at, and goes on; trying again: {error}"));
                }
                failed += 1;
                tokio::time::sleep(LOOK_EVERY).await;
                continue;
            }
            Err(error) => return Err(error),
        };
        (seen, failed) = (true, 0);
        if ledger.is_none() && has_ledger {
            ledger = server::connect_with_ledger(&world.connect).await.ok().map(|(_, connection)| connection);
        }
        let run = newest(ledger.as_ref(), execution).await.unwrap_or_else(|failure| {
            world.say(&format!("the ledger can't be asked, and the execution goes on; trying again: {failure}"));
            ledger = None;
            None
        });
        if !now.is_running() {
            bar.finish();
            return Ok((now, run));
        }
        bar.show(run.as_ref());
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

async fn newest(ledger: Option<&Connection>, execution: &str) -> Result<Option<Summary>, Failure> {
    let Some(connection) = ledger else { return Ok(None) };
    Ok(match ledger::run::newest_of(connection, execution).await? {
        Some(run) => Some(ledger::summary::of_run(connection, run).await?),
        None => None,
    })
}

fn conclude(
    world: &World,
    execution: &str,
    ended: &Execution,
    run: Option<&Summary>,
    as_json: bool,
) -> Result<Exit, CliError> {
    let status = ended.status.as_str();
    if as_json {
        world.print_json(&json!({
            "execution": execution, "status": status, "error": ended.error, "cause": ended.cause, "output": ended.output, "run": run,
        }))?;
    } else {
        if let Some(run) = run {
            world.print(&table::summary(run, None).to_string())?;
        }
        world.print(&said(ended))?;
    }
    Ok(match status {
        // A script that goes on at 0 would take its rows for applied.
        "SUCCEEDED" if step(ended) == "coalesced" => Exit::AlreadyRunning,
        "SUCCEEDED" => Exit::Done,
        _ => Exit::NotApplied,
    })
}

/// What the last answer of planner or recorder was.
fn step(ended: &Execution) -> &str {
    ended.output.as_ref().and_then(|output| output["status"].as_str()).unwrap_or_default()
}

/// An execution's end in a sentence.
fn said(ended: &Execution) -> String {
    let status = ended.status.as_str();
    let run = ended.output.as_ref().map(|output| output["run"].to_string()).unwrap_or_default();
    match (step(ended), &ended.error) {
        ("coalesced", _) => format!(
            "execution {status}: run {run} was open, and its execution makes one more after it, which applies what is staged now"
        ),
        ("duplicate", _) => format!("execution {status}: its trigger had come before, and started run {run}"),
        (_, Some(error)) => {
            format!("execution {status}: {error}: {}", ended.cause.as_deref().unwrap_or("no cause was given"))
        }
        _ => format!("execution {status}"),
    }
}
