//! `stagemill unpause`: lets a run go on that was paused.

use serde_json::json;
use stagemill_engine::ledger::{self, hold};

use super::pause;
use crate::{
    args::UnpauseArgs,
    exit::{CliError, Exit},
    server, table,
    world::World,
};

pub(crate) async fn run(args: UnpauseArgs, world: &World) -> Result<Exit, CliError> {
    let (_, connection) = server::connect_with_ledger(&world.connect).await?;
    if !ledger::summary::of_run(&connection, args.run).await?.status.is_open() {
        return Err(pause::ended(&connection, args.run, "unpaused").await?.into());
    }
    let mut lifted = Vec::new();
    for hold in hold::in_force(&connection, args.run).await? {
        if (args.all || hold.owner == hold::PEOPLE) && hold::lift(&connection, args.run, &hold.owner).await? {
            lifted.push(hold.reason);
        }
    }
    let left: Vec<String> = hold::in_force(&connection, args.run).await?.into_iter().map(|hold| hold.reason).collect();
    if args.json {
        world.print_json(&json!({ "run": args.run, "lifted": lifted, "held": left }))?;
        return Ok(Exit::Done);
    }
    let id = args.run;
    let said = match (lifted.is_empty(), left.is_empty()) {
        (_, true) if lifted.is_empty() => format!("run {id} was not paused"),
        (_, true) => format!("run {id} goes on"),
        (nothing, false) => {
            let lifted = if nothing { "was not paused by people" } else { "is no longer paused by people" };
            let all = format!("stagemill unpause {id} --all");
            format!(
                "run {id} {lifted}, and is still held back: {}\n{}",
                left.join("; "),
                table::commands(&[(&all, "lifts that too; a limit that is still exceeded holds it back again")])
            )
        }
    };
    world.print(&said)?;
    Ok(Exit::Done)
}
