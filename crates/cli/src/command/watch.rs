//! `stagemill watch`: follows an execution to its end, by its state and by the ledger.

use std::time::Duration;

use serde_json::json;
use stagemill_engine::{
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
    let watching = follow(world, states, execution, ledger.as_ref());
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
    ledger: Option<&Connection>,
) -> Result<(Execution, Option<Summary>), CliError> {
    let mut bar = Watched::start(world);
    loop {
        // The state first: the run of an execution that has ended is as it stays.
        let now = states.look(execution).await?;
        let run = match ledger {
            Some(connection) => newest(connection, execution).await?,
            None => None,
        };
        if !now.is_running() {
            bar.finish();
            return Ok((now, run));
        }
        bar.show(run.as_ref());
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

async fn newest(connection: &Connection, execution: &str) -> Result<Option<Summary>, CliError> {
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
    Ok(if status == "SUCCEEDED" { Exit::Done } else { Exit::NotApplied })
}

/// An execution's end in a sentence.
fn said(ended: &Execution) -> String {
    let status = ended.status.as_str();
    let step = ended.output.as_ref().and_then(|output| output["status"].as_str()).unwrap_or_default();
    let run = ended.output.as_ref().map(|output| output["run"].to_string()).unwrap_or_default();
    match (step, &ended.error) {
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
