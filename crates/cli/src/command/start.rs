//! `stagemill start`: starts an execution of the state machine.

use serde_json::{Value as Json, json};

use super::watch;
use crate::{
    args::{MachineArgs, StartArgs},
    aws::States,
    exit::{CliError, Exit},
    table,
    world::World,
};

pub(crate) async fn run(args: StartArgs, world: &World) -> Result<Exit, CliError> {
    let mut input = match args.jobs.as_slice() {
        [job] => json!({ "job": job }),
        jobs => json!({ "jobs": jobs }),
    };
    if let Some(parallelism) = args.changes.parallelism {
        input["parallelism"] = json!(parallelism);
    }
    if let Some(rows) = args.changes.rows {
        input["rows"] = json!(rows);
    }
    let about = args.jobs.first().cloned().unwrap_or_default();
    begin(world, &args.machine, &about, &input, args.wait, args.json).await
}

/// Starts an execution with an input, and waits for its end where that is wanted.
pub(crate) async fn begin(
    world: &World,
    machine: &MachineArgs,
    about: &str,
    input: &Json,
    wait: bool,
    as_json: bool,
) -> Result<Exit, CliError> {
    let Some(machine) = machine.state_machine.as_deref().filter(|arn| !arn.is_empty()) else {
        return Err(CliError::Usage(
            "no state machine is named: give --state-machine or set STAGEMILL_STATE_MACHINE; it is the stack's output StateMachineArn".into(),
        ));
    };
    let states = States::of(machine).await?;
    let execution = states.start(machine, about, input).await?;
    let watch = format!("stagemill watch {execution}");
    if wait {
        world.say(&format!("started {execution}"));
        return watch::until_end(world, &states, &execution, as_json).await;
    }
    if as_json {
        world.print_json(&json!({ "execution": execution }))?;
    } else {
        world.print(&format!("started {execution}\n{}", table::commands(&[(&watch, "shows how far it is")])))?;
    }
    Ok(Exit::Done)
}
