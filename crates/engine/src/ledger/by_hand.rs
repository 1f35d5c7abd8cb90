//! Chunks that a person passes over.

use tokio_postgres::types::Type;

use super::chunk::{Claimed, RANGE, range};
use crate::{
    chunk::Range,
    failure::Failure,
    pg::{Connection, Param},
};

/// A chunk that was not applied, locked.
#[derive(Debug)]
pub struct Unapplied {
    /// The chunk, as its last attempt left it.
    pub chunk: Claimed,
    /// Why it was not applied, without values of the row.
    pub error: Option<String>,
}

/// Locks a chunk that was not applied; the caller holds the run's lock alone. `None` when it was applied, or is not there.
///
/// # Errors
/// What the server or the connection says.
pub async fn lock(connection: &Connection, run: i64, id: i32) -> Result<Option<Unapplied>, Failure> {
    let sql = format!(
        "SELECT c.attempt, c.attempt_limit, c.error_class, c.error, {RANGE}
         FROM stagemill.chunk c WHERE c.run_id = $1 AND c.chunk_id = $2 AND c.state NOT IN ('PROCESSED', 'SPLIT') FOR UPDATE"
    );
    let Some(row) = connection.query_opt(&sql, &[(&run, Type::INT8), (&id, Type::INT4)]).await? else {
        return Ok(None);
    };
    let chunk = Claimed {
        run,
        id,
        attempt: row.get(0),
        attempt_limit: row.get(1),
        last_class: row.get(2),
        delete_limit: None,
        range: range(&row, 4, run, id)?,
    };
    Ok(Some(Unapplied { chunk, error: row.get(3) }))
}

/// The chunks of a run that were passed over: id, range, and how many rows were in it then.
///
/// # Errors
/// What the server or the connection says.
pub async fn skipped(connection: &Connection, run: i64) -> Result<Vec<(i32, Range, i64)>, Failure> {
    let sql = format!(
        "SELECT c.chunk_id, c.staged, {RANGE} FROM stagemill.chunk c
         WHERE c.run_id = $1 AND c.state = 'PROCESSED' AND pg_catalog.starts_with(c.worker, 'by hand: ') ORDER BY c.chunk_id"
    );
    let rows = connection.query(&sql, &[(&run, Type::INT8)]).await?;
    rows.iter().map(|row| Ok((row.get(0), range(row, 2, run, row.get(0))?, row.get(1)))).collect()
}

/// Says on a chunk that has been finished that a person did it, who, and what had kept it from being applied.
///
/// # Errors
/// What the server or the connection says.
pub async fn sign(connection: &Connection, skipped: &Unapplied) -> Result<(), Failure> {
    let was = match (&skipped.chunk.last_class, &skipped.error) {
        (Some(class), Some(error)) => format!("skipped by hand; it had failed with {class}: {error}"),
        _ => "skipped by hand".to_owned(),
    };
    let sql = "UPDATE stagemill.chunk SET worker = 'by hand: ' || SESSION_USER, assigned_at = ended_at, error = $3 WHERE run_id = $1 AND chunk_id = $2";
    let params: [Param<'_>; 3] =
        [(&skipped.chunk.run, Type::INT8), (&skipped.chunk.id, Type::INT4), (&was, Type::TEXT)];
    connection.query(sql, &params).await?;
    Ok(())
}
