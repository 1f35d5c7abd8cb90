//! `stagemill resume`: goes on with a run; only what was not applied is applied.

use stagemill_engine::{ledger, resume};

use crate::{
    args::ResumeArgs,
    drive::{self, Show},
    exit::{CliError, Exit},
    log, server,
    world::World,
};

pub(crate) async fn run(args: ResumeArgs, world: &World) -> Result<Exit, CliError> {
    let (server, connection) = server::connect_with_ledger(&world.connect).await?;
    let run = ledger::run::load(&connection, args.run).await?;
    #[cfg(feature = "aws")]
    if args.on_aws {
        let input = serde_json::json!({ "resume": run.id });
        return super::start::begin(world, &args.machine, &run.job, &input, true, args.drive.json).await;
    }
    let log = Some(log::to_file(world, &args.drive.log_dir, &run.job)?);
    let show = Show { quiet: args.drive.quiet, json: args.drive.json, log };
    let owner = drive::owner();
    let opened = async { Ok(resume::run(&connection, args.run, &owner, args.force).await?) };
    let answer = match world.unless_stopped(&format!("run {} is as it was", args.run), opened).await {
        Ok(answer) => answer,
        Err(refused) => {
            // Nothing was done that a log could tell of.
            log::remove_empty(show.log.as_deref());
            return Err(refused);
        }
    };
    drop(connection);
    let ended = Box::pin(drive::drive(world, &server, answer, &owner, &show)).await?;
    drive::conclude(world, &ended, &show)
}
