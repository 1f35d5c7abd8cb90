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
    if !ledger::run::stop(&connection, args.run, &why).await? {
        return Err(pause::ended(&connection, args.run, "stopped").await?.into());
    }
    let mut summary = look(&connection, args.run, &why).await?;
    if summary.status.is_open() && !args.no_wait {
        if !args.json {
            world.say("stopping: chunks in flight finish");
        }
        let closed = async {
            loop {
                let summary = look(&connection, args.run, &why).await?;
                if !summary.status.is_open() {
                    return Ok(summary);
                }
                tokio::time::sleep(LOOK_EVERY).await;
            }
        };
        summary = world.unless_stopped("the run was asked to stop, and is not closed yet", closed).await?;
    }
    #[cfg(feature = "aws")]
    if !summary.status.is_open() {
        end_execution(world, &ledger::run::load(&connection, args.run).await?.owner, why.message()).await;
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

/// Ends the execution of a run that is closed, unless it ends by itself, as it does where its recorder closed the run. After the drain: an
/// execution that is stopped at once leaves its functions at work, and nobody who says how far they came.
#[cfg(feature = "aws")]
async fn end_execution(world: &World, owner: &str, cause: &str) {
    let Some((execution, _)) = ledger::run::owner::execution(owner) else { return };
    let ended = async {
        let states = crate::aws::States::of(execution).await?;
        for _ in 0..10 {
            if !states.look(execution).await?.is_running() {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        states.stop(execution, cause).await
    };
    let ended: Result<(), CliError> = ended.await;
    if let Err(error) = ended {
        world.say(&format!("the run is closed; whether its execution {execution} has ended is not known: {error}"));
    }
}

/// How a run stands that was asked to stop. Where nobody is there any more who would close it, it is closed here.
async fn look(connection: &Connection, run: i64, why: &Failure) -> Result<Summary, CliError> {
    if ledger::summary::of_run(connection, run).await?.status.is_open() {
        let open = ledger::run::open_run(connection, run).await?;
        if taken::life(&open) == Life::Gone {
            record::ended_from_outside(connection, &open.owner, why).await?;
        }
    }
    Ok(ledger::summary::of_run(connection, run).await?)
}
