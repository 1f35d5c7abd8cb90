//! `stagemill chunks`: the chunks of a run.

use comfy_table::Cell;
use stagemill_engine::ledger::{self, chunk::Listed};

use crate::{
    args::ChunksArgs,
    exit::{CliError, Exit},
    server,
    table::{self, number},
    world::World,
};

pub(crate) async fn run(args: ChunksArgs, world: &World) -> Result<Exit, CliError> {
    let (_, connection) = server::connect_with_ledger(&world.connect).await?;
    let run = ledger::summary::of_run(&connection, args.run).await?;
    let mut chunks = ledger::chunk::list(&connection, args.run, args.open).await?;
    if !args.detail {
        chunks.iter_mut().for_each(|chunk| chunk.detail = None);
    }
    if args.json {
        world.print_json(&chunks)?;
    } else if chunks.is_empty() {
        let all = run.tally.chunks;
        let none = if args.open && all > 0 {
            format!("run {}: every one of its {} was applied", run.run, table::many(all, "chunk", "chunks"))
        } else {
            format!("run {} has no chunks", run.run)
        };
        world.print(&none)?;
    } else {
        world.print(&list(&chunks, args.detail).to_string())?;
    }
    Ok(Exit::Done)
}

const TRIES: usize = 2;
const MILLISECONDS: usize = 4;
const STAGED: usize = 5;
const WRITTEN: usize = 6;
const WHY: usize = 7;

fn list(chunks: &[Listed], detail: bool) -> comfy_table::Table {
    let mut table = table::new(["chunk", "state", "tries", "rows of the stage", "ms", "staged", "written", "why not"]);
    let maybe = |n: Option<i64>| n.map_or_else(|| Cell::new(""), number);
    for chunk in chunks {
        table.add_row(vec![
            number(i64::from(chunk.chunk)),
            Cell::new(&chunk.state),
            number(i64::from(chunk.attempts)),
            Cell::new(&chunk.range),
            maybe(chunk.milliseconds.map(|ms| ms.round() as i64)),
            maybe(chunk.staged),
            maybe(chunk.written),
            Cell::new(why(chunk, detail)),
        ]);
    }
    // A column that says nothing only takes the others' place.
    let empty = [
        (STAGED, chunks.iter().all(|chunk| chunk.staged.is_none())),
        (WRITTEN, chunks.iter().all(|chunk| chunk.written.is_none())),
        (WHY, chunks.iter().all(|chunk| why(chunk, detail).is_empty())),
    ];
    table::hide(&mut table, empty.iter().filter(|(_, empty)| *empty).map(|(column, _)| *column));
    table::fit(&mut table, &[MILLISECONDS, TRIES, WRITTEN, STAGED]);
    table
}

fn why(chunk: &Listed, detail: bool) -> String {
    let code = chunk.sqlstate.as_ref().map(|code| format!(" {code}")).unwrap_or_default();
    let words = if detail { chunk.detail.as_ref().or(chunk.error.as_ref()) } else { chunk.error.as_ref() };
    match (&chunk.error_class, words) {
        (Some(class), Some(words)) => format!("{class}{code}: {words}"),
        (Some(class), None) => format!("{class}{code}"),
        // A chunk that was skipped by hand says so.
        (None, Some(words)) => words.clone(),
        _ => String::new(),
    }
}
