//! `stagemill status`: the log table.

use comfy_table::Cell;
use serde_json::json;
use stagemill_engine::ledger::{self, run::OpenRun, summary::Summary};

use super::taken::{self, Life};
use crate::{
    args::StatusArgs,
    drive,
    exit::{CliError, Exit},
    server,
    table::{self, duration, number},
    world::World,
};

pub(crate) async fn run(args: StatusArgs, world: &World) -> Result<Exit, CliError> {
    let (_, connection) = server::connect_with_ledger(&world.connect).await?;
    let Some(id) = args.run else {
        let runs = ledger::summary::list(&connection, args.job.as_deref(), args.limit).await?;
        list(&args, world, &runs)?;
        return Ok(Exit::Done);
    };
    let summary = ledger::summary::of_run(&connection, id).await?;
    let open = if summary.status.is_open() { Some(ledger::run::open_run(&connection, id).await?) } else { None };
    if args.json {
        let mut value = json!(summary);
        value["percent"] = json!(percent(&summary));
        value["rows_per_second"] = json!(table::rate(&summary));
        value["owner"] = json!(open.as_ref().map(|open| &open.owner));
        value["session"] = json!(open.as_ref().and_then(|open| open.backend));
        world.print_json(&value)?;
    } else {
        world.print(&detail(&summary, open.as_ref()))?;
    }
    Ok(Exit::Done)
}

fn list(args: &StatusArgs, world: &World, runs: &[Summary]) -> Result<(), CliError> {
    if args.json {
        return world.print_json(&runs);
    }
    if runs.is_empty() {
        let of = args.job.as_ref().map(|job| format!(" of job {job}")).unwrap_or_default();
        return world.print(&format!("no run{of} yet: `stagemill run FILE` starts one"));
    }
    let mut table =
        table::new(["run", "job", "status", "started (UTC)", "time", "rows", "rows/s", "chunks", "failed", "retries"]);
    for run in runs {
        table.add_row(vec![
            number(run.run),
            Cell::new(&run.job),
            table::status(run.status),
            Cell::new(to_the_minute(&run.started_at)),
            Cell::new(duration(table::seconds(run))),
            number(run.tally.counts.staged),
            number(table::rate(run)),
            Cell::new(format!("{}/{}", run.tally.processed, run.tally.chunks)),
            number(run.tally.failed),
            number(run.tally.retries),
        ]);
    }
    table::fit(&mut table, &[6, 9, 8, 4, 7]);
    world.print(&table.to_string())
}

/// `2026-11-24 21:35`, of `2026-11-24T21:35:30Z`.
fn to_the_minute(time: &str) -> String {
    time.get(..16).unwrap_or(time).replace('T', " ")
}

fn percent(summary: &Summary) -> i64 {
    match summary.tally.chunks {
        0 => 0,
        chunks => summary.tally.processed * 100 / chunks,
    }
}

fn detail(summary: &Summary, open: Option<&OpenRun>) -> String {
    let mut table = table::summary(summary, None);
    let started = format!("{} by {}", summary.started_at, summary.started_by);
    table.add_row(vec![table::fact("started"), Cell::new(started)]);
    if let Some(ended) = &summary.ended_at {
        table.add_row(vec![table::fact("ended"), Cell::new(ended)]);
    }
    let Some(open) = open else {
        let next = drive::next(summary, false).map(|next| format!("\n{next}")).unwrap_or_default();
        return format!("{table}{next}");
    };
    let life = taken::life(open);
    let left = format!("{} %, round {}", percent(summary), summary.round);
    table.add_row(vec![table::fact("progress"), Cell::new(left)]);
    table.add_row(vec![table::fact("owner"), Cell::new(taken::owner(open))]);
    let hint = match life {
        Life::Working(_) | Life::MayComeBack => String::new(),
        Life::Gone => drive::next(summary, true).map_or_else(
            || {
                format!(
                    "\nnobody is working on it: `stagemill run {} --abandon` closes it and starts anew",
                    summary.job
                )
            },
            |next| format!("\n{next}"),
        ),
    };
    format!("{table}{hint}")
}
