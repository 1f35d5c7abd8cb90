//! `stagemill schema`: the JSON Schema of a job file.

use stagemill_engine::job::Job;

use crate::{
    exit::{CliError, Exit},
    world::World,
};

pub(crate) fn run(world: &World) -> Result<Exit, CliError> {
    world.print_json(&Job::schema())?;
    Ok(Exit::Done)
}
