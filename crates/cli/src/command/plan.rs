//! `stagemill plan`: a dry run. Nothing is written, and no ledger is needed.

use comfy_table::Cell;
use serde_json::json;
use stagemill_engine::{
    check,
    chunk::Range,
    explain,
    failure::Failure,
    finding::Finding,
    job::{ChunkBy, Job, Operation},
    mapping::Mapping,
    pg::Connection,
    plan::{self, Plan},
    probe, statement,
};

use crate::{
    args::PlanArgs,
    exit::{CliError, Exit},
    jobfile, server, table,
    world::{Stream, World},
};

/// Chunks that are shown and counted.
const SHOWN: usize = 5;

pub(crate) async fn run(args: PlanArgs, world: &World) -> Result<Exit, CliError> {
    let named = &args.job.job;
    if jobfile::is_file(named) {
        jobfile::read(named.as_ref())?;
    }
    let server = server::server(&world.connect)?;
    let job = jobfile::load(named, args.changes, &server).await?;
    let connection = server::connect(&server).await?;
    let checked = check::job(&connection, &job).await?;
    if Finding::any_error(&checked.findings) {
        return Err(CliError::Findings { what: format!("job {named}"), findings: checked.findings });
    }
    let findings = checked.findings.clone();
    let (mapping, stage) = checked.into_runnable()?;
    let Plan { mapping, chunks, outside } = plan::cut(&connection, &mapping, &stage, &job).await?;
    let ranges: Vec<Range> = chunks.into_iter().map(|chunk| chunk.range).collect();
    let (by, why) = way(&job, &mapping);
    let mut shown = Vec::new();
    for range in ranges.iter().take(SHOWN) {
        shown.push((range.to_string(), rows(&connection, &mapping, range).await?));
    }
    let middle = ranges.get(ranges.len() / 2);
    let sql = middle.map(|range| statement::of_chunk(&mapping, range).join(";\n"));
    let explained = match middle {
        Some(range) => Some(explain::text(&connection, &mapping, range).await?),
        None => None,
    };
    if args.job.json {
        let first: Vec<_> = shown.iter().map(|(range, rows)| json!({ "range": range, "rows": rows })).collect();
        world.print_json(&json!({
            "job": job.name, "operation": job.operation, "stage": mapping.stage.to_string(), "target": mapping.target.to_string(),
            "by": by, "why": why, "chunks": ranges.len(), "rows_outside": outside, "rows_a_chunk_at_most": job.chunks.rows, "parallelism": job.parallelism,
            "first_chunks": first, "settings": mapping.settings, "sql": sql, "explain": explained, "findings": findings,
        }))?;
        return Ok(Exit::Done);
    }
    if !findings.is_empty() {
        world.say(&table::findings(&findings, Stream::Err));
    }
    let most = shown.iter().map(|(_, rows)| *rows).max().unwrap_or(0);
    let facts = table::facts(vec![
        (
            "job",
            Cell::new(format!(
                "{}: {} {} to {}",
                job.name,
                job.operation.as_str(),
                table::plain(&mapping.stage.to_string()),
                table::plain(&mapping.target.to_string())
            )),
        ),
        ("cut", Cell::new(format!("{by}: {why}"))),
        (
            "chunks",
            Cell::new(format!(
                "{}, up to {} rows in those below",
                table::count(ranges.len() as i64),
                table::count(most)
            )),
        ),
        ("sessions", Cell::new(job.parallelism)),
    ]);
    let left_out = match outside {
        0 => String::new(),
        rows => format!(
            "{} lie in no range of chunks.query: they would not be applied\n",
            table::many(rows, "staged row", "staged rows")
        ),
    };
    let mut list = table::new(["chunk", "rows of the stage", "rows"]);
    for (number, (range, rows)) in (1..).zip(&shown) {
        list.add_row(vec![table::number(number), Cell::new(range), table::number(*rows)]);
    }
    let more = ranges.len().saturating_sub(SHOWN);
    let more = if more > 0 { format!("... and {}\n", table::many(more as i64, "more", "more")) } else { String::new() };
    let sql = sql.map(|sql| format!("\nThe SQL of chunk {}:\n{sql};\n", ranges.len() / 2 + 1)).unwrap_or_default();
    let explained = explained.map(|text| format!("\nIts plan under the run's settings:\n{text}\n")).unwrap_or_default();
    world.print(&format!("{facts}\n{left_out}{list}\n{more}{sql}{explained}\nNothing was written."))?;
    Ok(Exit::Done)
}

/// How the stage is cut, and why so.
fn way(job: &Job, mapping: &Mapping) -> (&'static str, String) {
    let columns = mapping.cut.iter().map(|cut| table::plain(&cut.column.to_string())).collect::<Vec<_>>().join(", ");
    let asked = "the job asks for it".to_owned();
    match (mapping.cut.is_empty(), job.chunks.by) {
        (_, ChunkBy::Sql) => ("sql", format!("ranges of {columns}, by the job's own query")),
        (true, ChunkBy::Auto) if mapping.operation == Operation::Sql => {
            ("ctid", "block ranges, because chunks.column names no column with an index".to_owned())
        }
        (true, ChunkBy::Auto) => (
            "ctid",
            "block ranges, because the stage has no index on a plain column that holds the target's key".to_owned(),
        ),
        (true, _) => ("ctid", format!("block ranges, {asked}")),
        (false, ChunkBy::Auto) if mapping.operation == Operation::Changes => {
            ("key", format!("ranges of {columns}, so that all changes of a key lie in one chunk"))
        }
        (false, ChunkBy::Auto) => ("key", format!("ranges of {columns}, because the stage has an index on it")),
        (false, _) => ("key", format!("ranges of {columns}, {asked}")),
    }
}

/// The rows of a chunk, counted.
async fn rows(connection: &Connection, mapping: &Mapping, range: &Range) -> Result<i64, Failure> {
    let sql = statement::count_rows(mapping, range);
    Ok(probe::ask_one(connection, &mapping.settings, &sql, &[]).await?.get(0))
}
