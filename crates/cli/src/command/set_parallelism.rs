//! `stagemill set-parallelism`: makes a run faster or slower while it goes.

use serde_json::json;
use stagemill_engine::ledger::{self, pace};

use super::pause;
use crate::{
    args::SetParallelismArgs,
    exit::{CliError, Exit},
    server, table,
    world::World,
};

pub(crate) async fn run(args: SetParallelismArgs, world: &World) -> Result<Exit, CliError> {
    let (_, connection) = server::connect_with_ledger(&world.connect).await?;
    let who = pause::who(&connection).await?;
    let (id, wanted) = (args.run, args.parallelism);
    let Some(workers) = pace::fix(&connection, id, wanted, &format!("set by {who}")).await? else {
        return Err(pause::ended(&connection, id, "made faster or slower").await?.into());
    };
    // A state machine's Map started so many; the driver of a command line starts more.
    let bounded = ledger::run::open_run(&connection, id).await?.is_execution() && wanted > workers;
    if args.json {
        let now = if bounded { workers } else { wanted };
        world.print_json(&json!({ "run": id, "parallelism": wanted, "in_this_round": now }))?;
        return Ok(Exit::Done);
    }
    let chunks = table::many(i64::from(wanted), "chunk", "chunks");
    let bound = if bounded {
        format!(
            "; up to {workers} in this round, which the state machine started with so many, and {wanted} from the next one on"
        )
    } else {
        String::new()
    };
    world.print(&format!("run {id} may apply {chunks} at a time{bound}"))?;
    Ok(Exit::Done)
}
