//! A chunk that was too slow becomes two.

use tokio_postgres::types::Type;

use super::{Claimed, Planned, descriptor};
use crate::{
    failure::Failure,
    pg::{Connection, Param},
};

/// Records that an attempt was too slow, and puts two chunks in the chunk's place, due in this round. Their ids come behind all others; `None`
/// when the chunk has gone to another worker meanwhile.
///
/// # Errors
/// What the server or the connection says.
pub async fn split(
    connection: &Connection,
    chunk: &Claimed,
    halves: [Planned; 2],
    failure: &Failure,
) -> Result<Option<[i32; 2]>, Failure> {
    connection.begin().await?;
    let done = in_transaction(connection, chunk, halves, failure).await;
    connection.end(done).await
}

async fn in_transaction(
    connection: &Connection,
    chunk: &Claimed,
    halves: [Planned; 2],
    failure: &Failure,
) -> Result<Option<[i32; 2]>, Failure> {
    // One at a time, for the sake of the ids.
    connection
        .query("SELECT FROM stagemill.run WHERE run_id = $1 FOR NO KEY UPDATE", &[(&chunk.run, Type::INT8)])
        .await?;
    let sql = "UPDATE stagemill.chunk SET state = 'SPLIT', ended_at = pg_catalog.clock_timestamp(), error_class = $4, sqlstate = $5, error = $6
               WHERE run_id = $1 AND chunk_id = $2 AND state = 'ASSIGNED' AND attempt = $3 RETURNING root_id, round, attempt_limit";
    let class = format!("{:?}", failure.class);
    let params: [Param<'_>; 6] = [
        (&chunk.run, Type::INT8),
        (&chunk.id, Type::INT4),
        (&chunk.attempt, Type::INT4),
        (&class, Type::TEXT),
        (&failure.sqlstate, Type::TEXT),
        (&failure.message(), Type::TEXT),
    ];
    let Some(row) = connection.query_opt(sql, &params).await? else { return Ok(None) };
    let (root, round, attempts): (i32, i32, i32) = (row.get(0), row.get(1), row.get(2));
    let id = super::next_id(connection, chunk.run).await?;
    let rows = (id..).zip(&halves).map(|(id, half)| descriptor(id, root, half)).collect();
    super::insert(connection, chunk.run, round, attempts.unsigned_abs(), rows).await?;
    Ok(Some([id, id + 1]))
}
