//! Limits that are known before anything is applied: how many rows may be deleted, or set aside.

use crate::{
    chunk::Range,
    failure::{Class, Failure},
    job::{Job, Limit},
    ledger::chunk::Planned,
    mapping::Mapping,
    pg::Connection,
    probe, statement,
};

/// Chunks that are counted by one statement.
const COUNTED_TOGETHER: usize = 100;

/// Rows that the job's own ranges leave out.
pub(super) async fn outside(
    connection: &Connection,
    mapping: &Mapping,
    ranges: &[Range],
    job: &Job,
) -> Result<i64, Failure> {
    match ranges.first() {
        _ if job.chunks.query.is_none() => Ok(0),
        None => ask(connection, mapping, &statement::count_window(mapping)).await,
        Some(_) => ask(connection, mapping, &statement::count_outside(mapping, ranges)).await,
    }
}

/// Turns ranges into chunks that know how many rows they may delete, and sets how many rows may be set aside. Shares are of the rows that the
/// ranges hold: all but those outside.
///
/// # Errors
/// [`Class::LimitExceeded`] when the run would delete more rows than the job allows.
pub(super) async fn set(
    connection: &Connection,
    mapping: &mut Mapping,
    ranges: Vec<Range>,
    outside: i64,
    job: &Job,
) -> Result<Vec<Planned>, Failure> {
    let shares = [&job.max_deletes, &job.max_rejects].into_iter().flatten().any(Limit::is_share);
    let staged = if shares { ask(connection, mapping, &statement::count_window(mapping)).await? - outside } else { 0 };
    if let (Some(limit), true) = (&job.max_rejects, mapping.reject_limit.is_some()) {
        mapping.reject_limit = Some(limit.rows(staged));
    }
    let Some(limit) = &job.max_deletes else {
        return Ok(ranges.into_iter().map(|range| Planned { range, delete_limit: None }).collect());
    };
    let chunks = count_deletes(connection, mapping, ranges).await?;
    let deletes: i64 = chunks.iter().filter_map(|chunk| chunk.delete_limit).sum();
    let allowed = limit.rows(staged);
    if deletes > allowed {
        let of = if limit.is_share() { format!(" ({limit} of {staged} staged rows)") } else { String::new() };
        let rows = if deletes == 1 { "row" } else { "rows" };
        let text = format!(
            "the run could delete {deletes} {rows}, max_deletes allows {allowed}{of}: nothing was applied. Look at what is staged; raise max_deletes if it is meant"
        );
        return Err(Failure::new(Class::LimitExceeded, text));
    }
    Ok(chunks)
}

async fn count_deletes(
    connection: &Connection,
    mapping: &Mapping,
    ranges: Vec<Range>,
) -> Result<Vec<Planned>, Failure> {
    let mut chunks = Vec::with_capacity(ranges.len());
    for group in ranges.chunks(COUNTED_TOGETHER) {
        let sql = statement::count_deletes(mapping, (0..).zip(group));
        let mut deletes = vec![0_i64; group.len()];
        for row in probe::ask(connection, &mapping.settings, &sql, &[]).await? {
            if let Some(counted) = usize::try_from(row.get::<_, i32>(0)).ok().and_then(|n| deletes.get_mut(n)) {
                *counted = row.get(1);
            }
        }
        let planned = group.iter().zip(deletes);
        chunks.extend(planned.map(|(range, n)| Planned { range: range.clone(), delete_limit: Some(n) }));
    }
    Ok(chunks)
}

async fn ask(connection: &Connection, mapping: &Mapping, sql: &str) -> Result<i64, Failure> {
    Ok(probe::ask_one(connection, &mapping.settings, sql, &[]).await?.get(0))
}
