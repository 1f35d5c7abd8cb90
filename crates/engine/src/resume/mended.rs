//! A stage that was mended between a run and its resuming is another one than was planned.

use crate::{
    chunk::Range,
    failure::Failure,
    ledger::{self, run::Run},
    pg::Connection,
    plan, probe, settings, statement,
};

/// Rows that were mended among those that are `left` are no change under the run, nor those that were set aside and wait to be tried again: from
/// here on the stage may not change. What has changed in chunks that were applied is not taken by anybody, and remembered.
pub(super) async fn look_again(connection: &Connection, run: &Run, left: &[Range]) -> Result<(), Failure> {
    let Some(before) = &run.mapping.snapshot else { return Ok(()) };
    connection.batch(&settings::set_local_for_whole(&run.mapping.settings, probe::LONGEST)).await?;
    // First: a row that comes between the two statements is counted by the second of them, and at the end once more, but not missed.
    let mut mapping = run.mapping.clone();
    let now = connection.query_one(&plan::snapshot(&mapping), &[]).await?;
    plan::remember(&mut mapping, &now);
    mapping.changed_before += new_rows(connection, run, before, left).await?;
    ledger::run::set_plan(connection, run.id, &mapping, run.outside).await
}

async fn new_rows(connection: &Connection, run: &Run, before: &str, left: &[Range]) -> Result<i64, Failure> {
    let mapping = &run.mapping;
    if mapping.reject_limit.is_some() {
        connection.batch("SAVEPOINT new_rows").await?;
        let except = [left, &[Range::Rejects { run: run.id, chunk: 0 }]].concat();
        match connection.query_one(&statement::count_new(mapping, before, &except), &[]).await {
            Ok(row) => return Ok(row.get(0)),
            // The key of a row that came can't be computed.
            Err(failure) if failure.class.is_of_rows() => connection.batch("ROLLBACK TO SAVEPOINT new_rows").await?,
            Err(failure) => return Err(failure),
        };
    }
    Ok(connection.query_one(&statement::count_new(mapping, before, left), &[]).await?.get(0))
}
