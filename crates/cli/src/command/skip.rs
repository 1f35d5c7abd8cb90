//! `stagemill skip`: passes over chunks at a person's word.

use serde_json::json;
use stagemill_engine::{ledger, skip};

use crate::{
    args::SkipArgs,
    exit::{CliError, Exit},
    server, table,
    world::World,
};

pub(crate) async fn run(args: SkipArgs, world: &World) -> Result<Exit, CliError> {
    let (_, connection) = server::connect_with_ledger(&world.connect).await?;
    let work = async { Ok(skip::chunks(&connection, args.run, &args.chunks).await?) };
    let skipped = world.unless_stopped("no chunk was skipped", work).await?;
    let tally = ledger::summary::of_run(&connection, args.run).await?.tally;
    let left = tally.failed + tally.left;
    if args.json {
        world.print_json(&json!({ "run": args.run, "skipped": skipped, "left": left }))?;
        return Ok(Exit::Done);
    }
    let lines = skipped.iter().map(|skipped| {
        let rows = table::many(skipped.rows, "row", "rows");
        format!("run {}: chunk {} is skipped, {rows} of the stage are not applied by it", args.run, skipped.chunk)
    });
    let resume = format!("stagemill resume {}", args.run);
    let next = match left {
        0 => "completes the run: nothing is left of it".to_owned(),
        left => format!("goes on with the {} left", table::many(left, "chunk", "chunks")),
    };
    world.print(&format!("{}\n{}", lines.collect::<Vec<_>>().join("\n"), table::commands(&[(&resume, &next)])))?;
    Ok(Exit::Done)
}
