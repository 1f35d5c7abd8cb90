//! A start that finds its job's run open, and leaves it to that run's owner to make one more.

use tokio_postgres::types::Type;

use super::{OpenRun, owner};
use crate::{
    failure::Failure,
    pg::{Connection, Param},
};

/// After so many runs an execution is asked for no more: it would go on until its time limit broke off a run in the middle.
const MOST_RUNS: u32 = 5;

/// What became of the request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Request {
    /// One more run follows the open one, which began too early for what the start is about.
    Taken,
    /// Nobody would come back for it, or not for all of it: the start has to wait its turn.
    Refused,
    /// The run has ended meanwhile: the start may look again.
    Ended,
}

/// Asks the owner of an open run of the same job for one more run. Whoever closes the run holds its row, so that the request is either seen
/// by them or refused here.
///
/// # Errors
/// What the server or the connection says.
pub async fn request(
    connection: &Connection,
    open: &OpenRun,
    trigger_id: Option<&str>,
    followed_by: &[String],
) -> Result<Request, Failure> {
    if owner::execution(&open.owner).is_none_or(|(_, sequence)| sequence >= MOST_RUNS) {
        return Ok(Request::Refused);
    }
    // One that a person stops is not run again. Whoever closes the run can hold its row for minutes: a start that waits its turn costs less.
    let sql = "UPDATE stagemill.run SET rerun_requested = true,
                   coalesced_triggers = CASE WHEN $2 IS NULL THEN coalesced_triggers ELSE pg_catalog.array_append(coalesced_triggers, $2) END
               WHERE run_id = (SELECT run_id FROM stagemill.run
                               WHERE run_id = $1 AND owner = $4 AND ended_at IS NULL AND halted IS DISTINCT FROM 'STOPPED'
                                 AND followed_by[1:pg_catalog.cardinality($3)] = $3
                               FOR UPDATE SKIP LOCKED)
               RETURNING run_id";
    let params: [Param<'_>; 4] = [
        (&open.id, Type::INT8),
        (&trigger_id, Type::TEXT),
        (&followed_by, Type::TEXT_ARRAY),
        (&open.owner, Type::TEXT),
    ];
    if connection.query_opt(sql, &params).await?.is_some() {
        return Ok(Request::Taken);
    }
    let sql = "SELECT ended_at IS NULL FROM stagemill.run WHERE run_id = $1";
    let is_open = connection.query_opt(sql, &[(&open.id, Type::INT8)]).await?.is_some_and(|row| row.get(0));
    Ok(if is_open { Request::Refused } else { Request::Ended })
}
