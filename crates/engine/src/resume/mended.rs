//! A stage that was mended between a run and its resuming is another one than was planned.

use crate::{
    chunk::Range,
    failure::Failure,
    ledger::{self, run::Run},
    mapping::Mapping,
    pg::Connection,
    plan, probe, settings, statement,
};

/// Rows that were mended among those that are `left` are no change under the run: from here on the stage may not change. What has changed in
/// chunks that were applied is not taken by anybody, and remembered.
pub(super) async fn look_again(connection: &Connection, run: &Run, left: &[Range]) -> Result<(), Failure> {
    let Some(before) = &run.mapping.snapshot else { return Ok(()) };
    connection.batch(&settings::set_local(&run.mapping.settings, probe::LONGEST)).await?;
    let sql = statement::count_new(&run.mapping, before, left);
    let new: i64 = connection.query_one(&sql, &[]).await?.get(0);
    let mapping = Mapping { snapshot: Some(plan::snapshot(connection).await?), ..run.mapping.clone() };
    ledger::run::set_plan(connection, run.id, &mapping, run.outside).await?;
    ledger::run::set_evidence(connection, run.id, Some(run.new_rows.unwrap_or(0) + new), None).await
}
