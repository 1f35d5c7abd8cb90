//! One file a command, all of one shape: `run(args, world)`.

mod check;
mod chunks;
mod completions;
mod demo;
mod grants;
mod init;
mod job;
mod man;
pub(crate) mod pause;
mod plan;
pub(crate) mod prune;
mod rejects;
mod report;
mod resume;
mod run;
mod schema;
mod set_parallelism;
mod skip;
#[cfg(feature = "aws")]
mod start;
mod status;
mod stop;
mod taken;
mod unpause;
#[cfg(feature = "aws")]
mod watch;

use crate::{
    args::Command,
    exit::{CliError, Exit},
    log,
    world::World,
};

/// Runs what was typed.
pub(crate) async fn run(command: Command, world: &World) -> Result<Exit, CliError> {
    log::start(world)?;
    match command {
        Command::Init(args) if args.grants => grants::run(args, world).await,
        Command::Init(args) => init::run(args.json, world).await,
        Command::Check(args) => check::run(args, world).await,
        Command::Plan(args) => plan::run(args, world).await,
        Command::Run(args) => run::run(args, world).await,
        Command::Status(args) => status::run(args, world).await,
        Command::Chunks(args) => chunks::run(args, world).await,
        Command::Resume(args) => Box::pin(resume::run(args, world)).await,
        Command::Rejects(args) => rejects::run(args, world).await,
        Command::Skip(args) => skip::run(args, world).await,
        Command::Pause(args) => pause::run(args, world).await,
        Command::Unpause(args) => unpause::run(args, world).await,
        Command::Stop(args) => Box::pin(stop::run(args, world)).await,
        Command::SetParallelism(args) => set_parallelism::run(args, world).await,
        #[cfg(feature = "aws")]
        Command::Start(args) => Box::pin(start::run(args, world)).await,
        #[cfg(feature = "aws")]
        Command::Watch(args) => Box::pin(watch::run(args, world)).await,
        Command::Report(args) => report::run(args, world).await,
        Command::Prune(args) => prune::run(args, world).await,
        Command::Job(args) => job::run(args, world).await,
        Command::Schema => schema::run(world),
        Command::Demo(args) => Box::pin(demo::run(args, world)).await,
        Command::Completions(args) => completions::run(args, world),
        Command::Man(args) => man::run(args, world),
    }
}
