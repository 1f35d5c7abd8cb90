//! `stagemill stop`: ends a run at a person's word.

use std::time::Duration;

use serde_json::json;
use stagemill_engine::{
    failure::{Class, Failure},
    ledger::{self, summary::Summary},
    pg::Connection,
    record,
};

use super::{
    pause,
    taken::{self, Life},
};
use crate::{
    args::StopArgs,
    drive,
    exit::{CliError, Exit},
    server, table,
    world::World,
};

/// Between two looks at a run that is to end.
const LOOK_EVERY: Duration = Duration::from_millis(200);

pub(crate) async fn run(args: StopArgs, world: &World) -> Result<Exit, CliError> {
    let (_, connection) = server::connect_with_ledger(&world.connect).await?;
    let who = pause::who(&connection).await?;
    let why =
        Failure::new(Class::Stopped, format!("stopped by {who}; what was applied stays, `stagemill resume` goes on"));
    if !record::stop(&connection, args.run, &why).await? {
        return Err(pause::ended(&connection, args.run, "stopped").await?.into());
    }
    let open = ledger::run::open_run(&connection, args.run).await?;
    if taken::life(&open) == Life::Gone {
        // Nobody is there who would close it.
        record::ended_from_outside(&connection, &open.owner, &why).await?;
    }
    let mut summary = ledger::summary::of_run(&connection, args.run).await?;
    if summary.status.is_open() && !args.no_wait {
        if !args.json {
            world.say("stopping: chunks in flight finish");
        }
        let waited = closed(&connection, args.run);
        summary = world.unless_stopped("the run was asked to stop, and is not closed yet", waited).await?;
    }
    if args.json {
        world.print_json(&json!(summary))?;
        return Ok(Exit::Done);
    }
    let id = args.run;
    if summary.status.is_open() {
        let status = format!("stagemill status {id}");
        let next = table::commands(&[(&status, "shows when it is closed")]);
        world.print(&format!("run {id} was asked to stop: chunks in flight finish, none is started\n{next}"))?;
    } else {
        world.print(&table::summary(&summary, None).to_string())?;
        if let Some(next) = drive::next(&summary, false) {
            world.say(&next);
        }
    }
    Ok(Exit::Done)
}

/// Waits until a run is closed.
async fn closed(connection: &Connection, run: i64) -> Result<Summary, CliError> {
    loop {
        let summary = ledger::summary::of_run(connection, run).await?;
        if !summary.status.is_open() {
            return Ok(summary);
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}
