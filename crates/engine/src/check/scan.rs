//! Whether a chunk's plan reads the whole target, asked of one real chunk.

use std::time::Duration;

use super::subject::{Subject, heaps, oids};
use crate::{
    chunk::{self, Range},
    cut, explain,
    failure::Failure,
    finding::Finding,
    job::{Job, Operation},
    probe,
    table::Kind,
};

/// Blocks of the stage that are looked at to find a key in its middle.
const BLOCKS_LOOKED_AT: f64 = 200.0;

/// Without an index on the key the stage is sorted for it.
const LONGEST: Duration = Duration::from_secs(30);

/// Warns where each chunk would scan the target, hash and merge joins turned off as planning would.
pub(super) async fn examine(subject: &Subject<'_>, job: &Job, findings: &mut Vec<Finding>) -> Result<(), Failure> {
    // Of the user's own statements the planner turns nothing off, and a range of another kind leaves their placeholders as they are.
    if job.operation == Operation::Sql {
        return Ok(());
    }
    let Some(range) = middle(subject, job).await? else { return Ok(()) };
    let mut mapping = subject.mapping.clone();
    // As it is once planning has counted.
    mapping.keys_are_unique |= !mapping.keys_together;
    let rows = explain::keep_nested_loop(subject.connection, &mut mapping, &range).await?;
    if rows >= explain::SCAN_WORTH_AVOIDING {
        findings.push(Finding::warning(
            "target.table",
            format!("is scanned by each chunk, about {rows:.0} rows of it, instead of being searched by its key"),
            format!(
                "ANALYZE {}; if that does not help, see the EXPLAIN of `stagemill plan`: an index for a subquery on it, a CAST to the key's type, no \"enable_...\" in \"session\"",
                mapping.target
            ),
        ));
    }
    Ok(())
}

/// A chunk from the middle of the stage, where there is one and it can be had without reading all of it.
async fn middle(subject: &Subject<'_>, job: &Job) -> Result<Option<Range>, Failure> {
    let (connection, mapping, stage) = (subject.connection, subject.mapping, subject.stage);
    if stage.kind == Kind::NoHeap {
        return Ok(None);
    }
    if mapping.cut.is_empty() {
        let mut ranges = cut::stage(connection, mapping, stage, &job.chunks, job.parallelism.most()).await?;
        return Ok((!ranges.is_empty()).then(|| ranges.swap_remove(ranges.len() / 2)));
    }
    let ids = heaps(stage);
    let sql = "SELECT COALESCE(pg_catalog.sum(pg_catalog.pg_relation_size(o)), 0)::float8 / pg_catalog.current_setting('block_size')::float8
               FROM pg_catalog.unnest($1) AS o";
    let pages: f64 = subject.ask(sql, &[oids(&ids)]).await?.first().map_or(0.0, |row| row.get(0));
    if pages == 0.0 {
        return Ok(None);
    }
    let staged = if stage.estimated_rows >= 0.0 { stage.estimated_rows as u64 } else { u64::MAX };
    let size = chunk::rows_a_chunk(job.chunks.rows, staged, job.parallelism.most());
    let sql = key_range(subject, (100.0 * BLOCKS_LOOKED_AT / pages).min(100.0), size);
    let rows = probe::ask_within(connection, &mapping.settings, LONGEST, &sql).await?;
    Ok(rows.iter().flatten().next().map(|row| {
        let n = mapping.cut.len();
        Range::Keys {
            low: Some((0..n).map(|at| row.get(at)).collect()),
            high: (n..2 * n).map(|at| row.get(at)).collect(),
        }
    }))
}

/// The question for a key from the middle of a small sample, and for the one that ends a chunk of `size` rows after it.
fn key_range(subject: &Subject<'_>, percent: f64, size: u64) -> String {
    let mapping = subject.mapping;
    let columns: Vec<String> = mapping.cut.iter().map(|cut| cut.column.to_string()).collect();
    let list = |prefix: &str, suffix: &str| {
        columns.iter().map(|column| format!("{prefix}.{column}{suffix}")).collect::<Vec<_>>().join(", ")
    };
    let not_null = columns.iter().map(|column| format!("stage.{column} IS NOT NULL"));
    let condition = not_null.chain(mapping.row_conditions()).collect::<Vec<_>>().join(" AND ");
    let stage = &mapping.stage;
    // Names that hide no table which the job's condition reads.
    let (sample, low_key) = ("\"stagemill sample\"", "\"stagemill low\"");
    format!(
        "WITH {sample} AS MATERIALIZED (SELECT {of_stage} FROM {stage} AS stage TABLESAMPLE SYSTEM ({percent}) WHERE {condition}),
              {low_key} AS (SELECT * FROM {sample} ORDER BY {of_sample} OFFSET (SELECT pg_catalog.count(*) / 2 FROM {sample}) LIMIT 1)
         SELECT {low}, {high} FROM {low_key} LEFT JOIN LATERAL (
             SELECT {of_stage} FROM {stage} AS stage WHERE {condition} AND ({of_stage}) > ({of_low})
             ORDER BY {of_stage} OFFSET {skip} LIMIT 1) AS high ON true",
        of_stage = list("stage", ""),
        of_sample = list(sample, ""),
        of_low = list(low_key, ""),
        low = list(low_key, "::text"),
        high = list("high", "::text"),
        skip = size.saturating_sub(1),
    )
}
