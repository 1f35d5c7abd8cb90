//! demo
use crate::{args::DemoArgs, exit::{CliError, Exit}, world::World};
pub(crate) async fn run(_args: DemoArgs, _world: &World) -> Result<Exit, CliError> { Ok(Exit::Done) }
