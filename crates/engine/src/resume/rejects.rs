//! Rows that a run set aside are tried again: in a chunk of their own, which takes them over.

use super::{mended, refuse_lost};
use crate::{
    answer::Answer,
    failure::{Class, Failure},
    job::StageRows,
    ledger,
    mapping::Mapping,
    pg::Connection,
};

/// Opens a run again to apply the rows that it set aside, as far as they are found in the stage by their keys.
///
/// # Errors
/// When none is set aside, or somebody else's run came after it.
pub async fn rejects(connection: &Connection, id: i64, owner: &str) -> Result<Answer, Failure> {
    ledger::schema::require(connection).await?;
    let run = ledger::run::load(connection, id).await?;
    if run.status.is_open() {
        let text = format!("run {id} is open: `stagemill resume {id}` completes it first");
        return Err(Failure::new(Class::AlreadyRunning, text));
    }
    ledger::reject::require_some(connection, id).await?;
    refuse_lost(connection, &run).await?;
    connection.begin().await?;
    let reopened = reopen(connection, id, owner).await;
    connection.end(reopened).await
}

async fn reopen(connection: &Connection, id: i64, owner: &str) -> Result<Answer, Failure> {
    let run = ledger::run::lock(connection, id).await?;
    if run.status.is_open() {
        let text = format!(
            "run {id} was opened again at this moment, by {}: `stagemill status {id}` shows how far it is",
            run.owner
        );
        return Err(Failure::new(Class::AlreadyRunning, text));
    }
    ledger::reject::require_some(connection, id).await?;
    // Mending them changed the stage, which is no change under the run. What changed beside them is none of the retry's, but must not be truncated.
    if run.mapping.stage_rows == StageRows::Truncate {
        mended::look_again(connection, &run, &[]).await?;
    } else {
        let mapping = Mapping { snapshot: None, ..run.mapping.clone() };
        ledger::run::set_plan(connection, id, &mapping, run.outside).await?;
    }
    let round = run.round + 1;
    ledger::run::reopen(connection, &run, owner).await?;
    let items = ledger::reject::retry(connection, &run, round).await?;
    Ok(Answer::round(id, round, 1, items))
}
