//! `stagemill completions`: for the shell.

use clap::CommandFactory;

use crate::{
    args::{Args, CompletionsArgs},
    exit::{CliError, Exit},
    world::World,
};

pub(crate) fn run(args: CompletionsArgs, world: &World) -> Result<Exit, CliError> {
    // Generated apart: the generator panics where a pipe is closed.
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Args::command(), "stagemill", &mut script);
    world.print(&String::from_utf8_lossy(&script))?;
    Ok(Exit::Done)
}
