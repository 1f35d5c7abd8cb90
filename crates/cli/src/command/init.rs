//! `stagemill init`: the ledger's schema.

use serde_json::json;
use stagemill_engine::ledger::schema::{self, VERSION};

use crate::{
    exit::{CliError, Exit},
    server,
    world::World,
};

pub(crate) async fn run(json: bool, world: &World) -> Result<Exit, CliError> {
    let server = server::server(&world.connect)?;
    let connection = server::connect(&server).await?;
    let found = schema::migrate(&connection).await.map_err(|failure| failure.while_doing(&server.to_string()))?;
    if json {
        world.print_json(&json!({ "found_version": found, "version": VERSION }))?;
        return Ok(Exit::Done);
    }
    let did = match found {
        0 => format!("was created, at version {VERSION}"),
        VERSION => format!("is there already, at version {VERSION}; nothing to do"),
        older => format!("was brought from version {older} to {VERSION}"),
    };
    world.print(&format!("{server}: the ledger (schema stagemill) {did}"))?;
    Ok(Exit::Done)
}
