//! `stagemill rejects`: the rows that a run set aside; with `--retry` they are applied.

use comfy_table::Cell;
use serde_json::json;
use stagemill_engine::{
    ledger::{self, reject::Listed},
    pg::{Connection, Server},
    resume,
};

use crate::{
    args::RejectsArgs,
    drive::{self, Show},
    exit::{CliError, Exit},
    log, server,
    table::{self, number},
    world::World,
};

pub(crate) async fn run(args: RejectsArgs, world: &World) -> Result<Exit, CliError> {
    let (server, connection) = server::connect_with_ledger(&world.connect).await?;
    if args.retry {
        return Box::pin(retry(args, world, &server, connection)).await;
    }
    let summary = ledger::summary::of_run(&connection, args.run).await?;
    let rejects = ledger::reject::list(&connection, args.run, args.limit).await?;
    let all = summary.tally.counts.rejected;
    if args.drive.json {
        let rejects: Vec<_> = rejects.iter().map(|reject| for_programs(reject, args.rows)).collect();
        world.print_json(&json!({ "run": args.run, "rejected": all, "rejects": rejects }))?;
        return Ok(Exit::Done);
    }
    if rejects.is_empty() {
        world.print(&format!("run {} has no rows set aside", args.run))?;
        return Ok(Exit::Done);
    }
    let more = all - i64::try_from(rejects.len()).unwrap_or(all);
    let more = if more > 0 {
        format!("\n... and {}: --limit shows more", table::many(more, "more", "more"))
    } else {
        String::new()
    };
    world.print(&format!("{}{more}", list(&rejects, args.rows)))?;
    if !args.rows {
        world.say(&table::commands(&[
            (&format!("stagemill rejects {} --rows", args.run), "shows the rows, with their values"),
            (&format!("stagemill rejects {} --retry", args.run), "applies them, once they are mended"),
        ]));
    }
    Ok(Exit::Done)
}

fn for_programs(reject: &Listed, rows: bool) -> serde_json::Value {
    let mut value = json!(reject);
    // Values only where they were asked for.
    if let (false, Some(fields)) = (rows, value.as_object_mut()) {
        fields.remove("row");
        fields.remove("detail");
    }
    value
}

fn list(rejects: &[Listed], rows: bool) -> String {
    let mut list = table::new(["row", "chunk", "why"]);
    for reject in rejects {
        let code = reject.sqlstate.as_ref().map(|code| format!(" {code}")).unwrap_or_default();
        let words = if rows { reject.detail.as_ref().unwrap_or(&reject.error) } else { &reject.error };
        let mut why = format!("{}{code}: {words}", reject.error_class);
        if rows {
            why += &format!("\n{}", reject.row);
        }
        list.add_row(vec![number(reject.reject), number(i64::from(reject.chunk)), Cell::new(why)]);
    }
    list.to_string()
}

async fn retry(args: RejectsArgs, world: &World, server: &Server, connection: Connection) -> Result<Exit, CliError> {
    let run = ledger::run::load(&connection, args.run).await?;
    let log = Some(log::to_file(world, &args.drive.log_dir, &run.job)?);
    let show = Show { quiet: args.drive.quiet, json: args.drive.json, log };
    let owner = drive::owner();
    let before = ledger::reject::count(&connection, args.run).await?;
    let opened = async { Ok(resume::rejects(&connection, args.run, &owner).await?) };
    let answer = match world.unless_stopped(&format!("run {} is as it was", args.run), opened).await {
        Ok(answer) => answer,
        Err(refused) => {
            // Nothing was done that a log could tell of.
            log::remove_empty(show.log.as_deref());
            return Err(refused);
        }
    };
    let ended = Box::pin(drive::drive(world, server, answer, &owner, &show)).await?;
    let left = ledger::reject::count(&connection, args.run).await?;
    show.say(
        world,
        &format!(
            "applied {} of {}",
            table::count(before - left),
            table::many(before, "row that was set aside", "rows that were set aside")
        ),
    );
    drive::conclude(world, &ended, &show)
}
