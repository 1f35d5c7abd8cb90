//! Claiming a chunk: who may take it, and why somebody may not.

use tokio_postgres::types::Type;

use super::{Claimed, RANGE, range};
use crate::{
    failure::Failure,
    ledger::{hold, in_flight},
    pg::{Connection, Param},
};

/// What claiming a chunk came to.
#[derive(Debug)]
pub enum Claim {
    /// It is ours.
    Ours(Box<Claimed>),
    /// It was applied or has failed before, or is due in a later round.
    NotDue,
    /// Somebody is alive on it.
    Held,
    /// Its attempts never reported back; it has been marked as failed.
    UsedUp,
    /// The run is held back, or as many of its chunks as may be are in flight.
    HeldBack,
    /// The run is not open to workers.
    RunClosed,
}

/// Claims a chunk for a worker, in one short transaction: from now on people see who is on it.
///
/// SKIP LOCKED tells a worker that is alive (its transaction holds the row) from one that died (nobody does); a plain UPDATE would wait for
/// the older attempt, and NOWAIT's error can't be told from a lock timeout's.
///
/// The gate is in the same statement: `due` is the chunk's id and its round, and a worker of a known `rank` (from 1) goes on where so many are allowed, others where fewer are in flight.
/// Two who look at one moment may both find room; the next one finds none.
///
/// # Errors
/// What the server or the connection says.
pub async fn claim(
    connection: &Connection,
    run: i64,
    due: (i32, i32),
    worker: &str,
    rank: Option<u32>,
) -> Result<Claim, Failure> {
    let (id, round) = due;
    let sql = format!(
        "UPDATE stagemill.chunk c
               SET state = 'ASSIGNED', attempt = c.attempt + 1, worker = $4, assigned_at = pg_catalog.clock_timestamp(), ended_at = NULL
               FROM (SELECT run_id, chunk_id FROM stagemill.chunk
                     WHERE run_id = $1 AND chunk_id = $2 AND state IN ('UNASSIGNED', 'ASSIGNED') AND round <= $3 AND attempt < attempt_limit
                     FOR UPDATE SKIP LOCKED) free
               WHERE c.run_id = free.run_id AND c.chunk_id = free.chunk_id
                 AND EXISTS (SELECT FROM stagemill.run r WHERE r.run_id = $1 AND r.status = 'RUNNING' AND r.halted IS NULL AND {room})
                 AND NOT EXISTS (SELECT FROM stagemill.hold h WHERE h.run_id = $1 AND {in_force})
               RETURNING c.attempt, c.attempt_limit, c.error_class, c.delete_limit, {RANGE}",
        room = room(rank),
        in_force = hold::IN_FORCE,
    );
    let params: [Param<'_>; 4] = [(&run, Type::INT8), (&id, Type::INT4), (&round, Type::INT4), (&worker, Type::TEXT)];
    match connection.query_opt(&sql, &params).await? {
        Some(row) => Ok(Claim::Ours(Box::new(Claimed {
            run,
            id,
            attempt: row.get(0),
            attempt_limit: row.get(1),
            last_class: row.get(2),
            delete_limit: row.get(3),
            range: range(&row, 4, run, id)?,
        }))),
        None => why_not(connection, run, due, rank).await,
    }
}

/// That there is room for a worker of this rank, as a condition over `stagemill.run r`.
fn room(rank: Option<u32>) -> String {
    let free = match rank {
        Some(rank) => format!("{rank} <= r.allowed"),
        None => format!("{} < r.allowed", in_flight()),
    };
    format!("CASE WHEN r.allowed IS NULL THEN true ELSE {free} END")
}

async fn why_not(connection: &Connection, run: i64, due: (i32, i32), rank: Option<u32>) -> Result<Claim, Failure> {
    let (id, round) = due;
    let sql = "SELECT r.status = 'RUNNING' AND r.halted IS NULL, c.state IN ('UNASSIGNED', 'ASSIGNED') AND c.round <= $3
               FROM stagemill.run r LEFT JOIN stagemill.chunk c ON c.run_id = r.run_id AND c.chunk_id = $2 WHERE r.run_id = $1";
    let row = connection.query_opt(sql, &[(&run, Type::INT8), (&id, Type::INT4), (&round, Type::INT4)]).await?;
    match row.map(|row| (row.get::<_, bool>(0), row.get::<_, Option<bool>>(1))) {
        None | Some((false, _)) => Ok(Claim::RunClosed),
        Some((true, None | Some(false))) => Ok(Claim::NotDue),
        Some((true, Some(true))) if held_back(connection, run, rank).await? => Ok(Claim::HeldBack),
        Some((true, Some(true))) if give_up(connection, run, id).await? => Ok(Claim::UsedUp),
        Some((true, Some(true))) => Ok(Claim::Held),
    }
}

async fn held_back(connection: &Connection, run: i64, rank: Option<u32>) -> Result<bool, Failure> {
    let sql = format!(
        "SELECT NOT {room} OR EXISTS (SELECT FROM stagemill.hold h WHERE h.run_id = $1 AND {in_force})
         FROM stagemill.run r WHERE r.run_id = $1",
        room = room(rank),
        in_force = hold::IN_FORCE,
    );
    Ok(connection.query_one(&sql, &[(&run, Type::INT8)]).await?.get(0))
}

/// Marks a chunk as failed whose last allowed attempt died without a word.
async fn give_up(connection: &Connection, run: i64, id: i32) -> Result<bool, Failure> {
    let sql = "UPDATE stagemill.chunk c
               SET state = 'PROCESSED_WITH_ERROR', ended_at = pg_catalog.clock_timestamp(),
                   error_class = COALESCE(error_class, 'ConnectionLost'),
                   error = COALESCE(error, 'attempt ' || attempt || ' of ' || attempt_limit || ' never reported back')
               FROM (SELECT run_id, chunk_id FROM stagemill.chunk
                     WHERE run_id = $1 AND chunk_id = $2 AND state IN ('UNASSIGNED', 'ASSIGNED') AND attempt >= attempt_limit
                     FOR UPDATE SKIP LOCKED) free
               WHERE c.run_id = free.run_id AND c.chunk_id = free.chunk_id RETURNING 1";
    Ok(connection.query_opt(sql, &[(&run, Type::INT8), (&id, Type::INT4)]).await?.is_some())
}
