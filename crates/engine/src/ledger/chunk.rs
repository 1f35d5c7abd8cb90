//! Chunks in the ledger: written once by the plan, then claimed, fenced and finished by workers.

mod claim;
mod listed;
mod split;

pub use claim::{Claim, claim};
pub use listed::{Listed, MainFailure, list, main_failure};
pub use split::split;

use serde_json::json;
use tokio_postgres::{Row, SimpleQueryMessage, types::Type};

use super::lock_key;
use crate::{
    chunk::{Range, Tid},
    failure::{Class, Failure},
    ident::{Ident, TableName},
    outcome::Counts,
    pg::{Connection, Param},
    retry::Next,
    table::Leaf,
};

/// A chunk that is ours to apply.
#[derive(Debug, Clone)]
pub struct Claimed {
    /// Its run.
    pub run: i64,
    /// Its id.
    pub id: i32,
    /// Which attempt this is: the fence's number.
    pub attempt: i32,
    /// How many it may have.
    pub attempt_limit: i32,
    /// What the attempt before ended with: the class's name.
    pub last_class: Option<String>,
    /// More rows than this it may not delete.
    pub delete_limit: Option<i64>,
    /// Its rows.
    pub range: Range,
}

/// A chunk as it is planned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Planned {
    /// Its rows.
    pub range: Range,
    /// More rows than this it may not delete.
    pub delete_limit: Option<i64>,
}

/// Writes a run's chunks, with ids from 1, in the place of those that an earlier try at planning left.
///
/// # Errors
/// What the server or the connection says.
pub async fn write(connection: &Connection, run: i64, chunks: &[Planned], attempts: u32) -> Result<(), Failure> {
    connection.query("DELETE FROM stagemill.chunk WHERE run_id = $1", &[(&run, Type::INT8)]).await?;
    let rows: Vec<serde_json::Value> = (1..).zip(chunks).map(|(id, chunk)| descriptor(id, id, chunk)).collect();
    insert(connection, run, 1, attempts, rows).await
}

/// Adds a chunk behind those that there are, and returns its id. The caller holds the run's lock alone.
///
/// # Errors
/// What the server or the connection says.
pub async fn add(
    connection: &Connection,
    run: i64,
    round: i32,
    chunk: impl FnOnce(i32) -> Planned,
    attempts: u32,
) -> Result<i32, Failure> {
    let id = next_id(connection, run).await?;
    insert(connection, run, round, attempts, vec![descriptor(id, id, &chunk(id))]).await?;
    Ok(id)
}

async fn next_id(connection: &Connection, run: i64) -> Result<i32, Failure> {
    let sql = "SELECT COALESCE(pg_catalog.max(chunk_id), 0) + 1 FROM stagemill.chunk WHERE run_id = $1";
    Ok(connection.query_one(sql, &[(&run, Type::INT8)]).await?.get(0))
}

async fn insert(
    connection: &Connection,
    run: i64,
    round: i32,
    attempts: u32,
    rows: Vec<serde_json::Value>,
) -> Result<(), Failure> {
    let sql = "INSERT INTO stagemill.chunk (run_id, round, attempt_limit, chunk_id, root_id, kind, leaf_schema, leaf_name, leaf_oid, leaf_filenode,
                                            low_tid, high_tid, low_key, high_key, delete_limit)
               SELECT $1, $2, $3, c.* FROM pg_catalog.jsonb_to_recordset($4) AS c (chunk_id integer, root_id integer, kind text, leaf_schema text,
                   leaf_name text, leaf_oid oid, leaf_filenode oid, low_tid tid, high_tid tid, low_key text[], high_key text[], delete_limit bigint)";
    let attempts = i32::try_from(attempts).unwrap_or(i32::MAX);
    let rows = serde_json::Value::Array(rows);
    let params: [Param<'_>; 4] =
        [(&run, Type::INT8), (&round, Type::INT4), (&attempts, Type::INT4), (&rows, Type::JSONB)];
    connection.query(sql, &params).await?;
    Ok(())
}

fn descriptor(id: i32, root: i32, chunk: &Planned) -> serde_json::Value {
    let mut row = match &chunk.range {
        Range::Blocks { leaf, low, high } => json!({
            "kind": "blocks", "low_tid": low.to_string(), "high_tid": high.map(|high| high.to_string()),
            "leaf_schema": leaf.name.schema.as_ref().map(Ident::as_str), "leaf_name": leaf.name.name.as_str(),
            "leaf_oid": leaf.oid, "leaf_filenode": leaf.filenode,
        }),
        Range::Keys { low, high } => json!({ "kind": "keys", "low_key": low, "high_key": high }),
        Range::NullKeys => json!({ "kind": "null_keys" }),
        Range::Ids { low, high } => json!({ "kind": "ids", "low_key": [low], "high_key": [high] }),
        Range::Rejects { .. } => json!({ "kind": "rejects" }),
    };
    row["chunk_id"] = json!(id);
    row["root_id"] = json!(root);
    row["delete_limit"] = json!(chunk.delete_limit);
    row
}

/// The columns that [`range`] reads.
pub(super) const RANGE: &str = "c.kind, c.leaf_schema, c.leaf_name, c.leaf_oid, c.leaf_filenode, c.low_tid::text, c.high_tid::text, c.low_key, c.high_key";

pub(super) fn range(row: &Row, at: usize, run: i64, id: i32) -> Result<Range, Failure> {
    let unreadable = |what: &str| {
        Failure::new(Class::Ledger, format!("chunk {id} of run {run}: {what} is not known to this version"))
    };
    let tid = |n: usize| row.get::<_, Option<&str>>(at + n).and_then(Tid::parse);
    let first = |n: usize| row.get::<_, Option<Vec<String>>>(at + n).and_then(|key| key.into_iter().next());
    match row.get::<_, &str>(at) {
        "blocks" => Ok(Range::Blocks {
            leaf: Leaf {
                name: TableName {
                    schema: row.get::<_, Option<String>>(at + 1).map(Ident::exact),
                    name: Ident::exact(row.get::<_, Option<String>>(at + 2).unwrap_or_default()),
                },
                oid: row.get::<_, Option<u32>>(at + 3).unwrap_or_default(),
                filenode: row.get::<_, Option<u32>>(at + 4).unwrap_or_default(),
            },
            low: tid(5).ok_or_else(|| unreadable("its start"))?,
            high: tid(6),
        }),
        "keys" => Ok(Range::Keys { low: row.get(at + 7), high: row.get(at + 8) }),
        "null_keys" => Ok(Range::NullKeys),
        "ids" => match (first(7), first(8)) {
            (Some(low), Some(high)) => Ok(Range::Ids { low, high }),
            _ => Err(unreadable("its range")),
        },
        "rejects" => Ok(Range::Rejects { run, chunk: id }),
        kind => Err(unreadable(&format!("its kind {kind:?}"))),
    }
}

/// The statement that takes the run's lock as one of its workers: false when somebody is closing the run or taking it over.
pub fn lock_run(run: i64) -> String {
    format!("SELECT pg_catalog.pg_try_advisory_xact_lock_shared({})", lock_key(run))
}

/// Passes the fence: locks the run, then the chunk's row if it is still ours; false when it is not, or when somebody is closing the run or
/// taking it over. A check for PROCESSED alone would let a worker through that was taken for dead, after its chunk went to another.
/// `begin` opens the work transaction and is sent along: a round trip for each chunk less.
///
/// # Errors
/// What the server or the connection says.
pub async fn fence(connection: &Connection, begin: &str, chunk: &Claimed) -> Result<bool, Failure> {
    let Claimed { run, id, attempt, .. } = chunk;
    let sql = format!(
        "{begin}{lock};
         SELECT 'ours' FROM stagemill.chunk c
         WHERE c.run_id = {run} AND c.chunk_id = {id} AND c.state = 'ASSIGNED' AND c.attempt = {attempt}
           AND EXISTS (SELECT FROM stagemill.run r WHERE r.run_id = {run} AND r.status = 'RUNNING' AND r.halted IS NULL)
         FOR UPDATE OF c SKIP LOCKED",
        lock = lock_run(*run),
    );
    let answers = connection.batch(&sql).await?;
    let rows = answers.iter().filter_map(|answer| match answer {
        SimpleQueryMessage::Row(row) => Some(row.get(0)),
        _ => None,
    });
    // What `begin` sets answers too.
    let said: Vec<_> = rows.collect();
    Ok(said.ends_with(&[Some("t"), Some("ours")]))
}

/// What was done with a chunk.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Done {
    /// Its rows.
    pub counts: Counts,
    /// The rows that each of the user's own statements reported.
    pub statement_rows: Option<Vec<i64>>,
}

/// Inside the work transaction: the chunk is done. False when the heap is not the one that was planned, or its name is another one's by now.
/// The lock that the statement before took keeps both from changing until COMMIT.
///
/// # Errors
/// What the server or the connection says.
pub async fn finish(connection: &Connection, chunk: &Claimed, done: &Done) -> Result<bool, Failure> {
    let counts = &done.counts;
    let sql = "UPDATE stagemill.chunk
               SET state = 'PROCESSED', ended_at = pg_catalog.clock_timestamp(),
                   staged = $3, inserted = $4, updated = $5, deleted = $6, unchanged = $7, skipped = $8, rejected = $9,
                   handed = $10, statement_rows = $11, error_class = NULL, sqlstate = NULL, error = NULL, detail = NULL
               WHERE run_id = $1 AND chunk_id = $2
                 AND (leaf_oid IS NULL OR (pg_catalog.pg_relation_filenode(leaf_oid) = leaf_filenode
                      AND pg_catalog.to_regclass(pg_catalog.format('%I.%I', leaf_schema, leaf_name)) = leaf_oid)) RETURNING 1";
    let params: [Param<'_>; 11] = [
        (&chunk.run, Type::INT8),
        (&chunk.id, Type::INT4),
        (&counts.staged, Type::INT8),
        (&counts.inserted, Type::INT8),
        (&counts.updated, Type::INT8),
        (&counts.deleted, Type::INT8),
        (&counts.unchanged, Type::INT8),
        (&counts.skipped, Type::INT8),
        (&counts.rejected, Type::INT8),
        (&counts.handed, Type::INT8),
        (&done.statement_rows, Type::INT8_ARRAY),
    ];
    Ok(connection.query_opt(sql, &params).await?.is_some())
}

/// Records an attempt that failed, unless the chunk has gone to another worker meanwhile: then false.
///
/// # Errors
/// What the server or the connection says.
pub async fn fail(
    connection: &Connection,
    chunk: &Claimed,
    failure: &Failure,
    next: Next,
    round: i32,
) -> Result<bool, Failure> {
    let over = matches!(next, Next::Fail | Next::Halt);
    let state = if over { "PROCESSED_WITH_ERROR" } else { "UNASSIGNED" };
    let due = if next == Next::NextRound { round + 1 } else { round };
    let class = format!("{:?}", failure.class);
    let sql = "UPDATE stagemill.chunk
               SET state = $4, round = GREATEST(round, $5), ended_at = CASE WHEN $6 THEN pg_catalog.clock_timestamp() END,
                   error_class = $7, sqlstate = $8, error = $9, detail = $10
               WHERE run_id = $1 AND chunk_id = $2 AND state = 'ASSIGNED' AND attempt = $3 RETURNING 1";
    let params: [Param<'_>; 10] = [
        (&chunk.run, Type::INT8),
        (&chunk.id, Type::INT4),
        (&chunk.attempt, Type::INT4),
        (&state, Type::TEXT),
        (&due, Type::INT4),
        (&over, Type::BOOL),
        (&class, Type::TEXT),
        (&failure.sqlstate, Type::TEXT),
        (&failure.message(), Type::TEXT),
        (&failure.server_message(), Type::TEXT),
    ];
    Ok(connection.query_opt(sql, &params).await?.is_some())
}

/// Gives a claimed chunk back that time ran out on by no fault of its own: the attempt does not count.
///
/// # Errors
/// What the server or the connection says.
pub async fn give_back(connection: &Connection, chunk: &Claimed) -> Result<(), Failure> {
    // The attempt's number is the fence, and never goes back.
    let sql = "UPDATE stagemill.chunk SET state = 'UNASSIGNED', attempt_limit = attempt_limit + 1
               WHERE run_id = $1 AND chunk_id = $2 AND state = 'ASSIGNED' AND attempt = $3";
    let params: [Param<'_>; 3] = [(&chunk.run, Type::INT8), (&chunk.id, Type::INT4), (&chunk.attempt, Type::INT4)];
    connection.query(sql, &params).await?;
    Ok(())
}

/// A chunk that is to be applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Due {
    /// Its id.
    pub id: i32,
    /// The planned chunk that it is a part of.
    pub root: i32,
}

/// The chunks of a range of ids, and the parts of those that were split, that are due in a round.
///
/// # Errors
/// What the server or the connection says.
pub async fn due(connection: &Connection, run: i64, round: i32, first: i32, last: i32) -> Result<Vec<Due>, Failure> {
    let sql = "SELECT chunk_id, root_id FROM stagemill.chunk
               WHERE run_id = $1 AND round <= $2 AND root_id BETWEEN $3 AND $4 AND state IN ('UNASSIGNED', 'ASSIGNED')
               ORDER BY root_id, chunk_id";
    let params: [Param<'_>; 4] = [(&run, Type::INT8), (&round, Type::INT4), (&first, Type::INT4), (&last, Type::INT4)];
    let rows = connection.query(sql, &params).await?;
    Ok(rows.iter().map(|row| Due { id: row.get(0), root: row.get(1) }).collect())
}

/// The ranges of the chunks that have not been applied.
///
/// # Errors
/// What the server or the connection says.
pub async fn left(connection: &Connection, run: i64) -> Result<Vec<Range>, Failure> {
    let sql = format!(
        "SELECT c.chunk_id, {RANGE} FROM stagemill.chunk c WHERE c.run_id = $1 AND c.state NOT IN ('PROCESSED', 'SPLIT') ORDER BY c.chunk_id"
    );
    let rows = connection.query(&sql, &[(&run, Type::INT8)]).await?;
    rows.iter().map(|row| range(row, 1, run, row.get(0))).collect()
}

/// Makes all chunks that are left due in `round`; the caller holds the run's lock alone. `anew` gives those that failed, and those that
/// are left, as many attempts again. Returns the planned chunks that they are parts of.
///
/// # Errors
/// What the server or the connection says.
pub async fn make_due(connection: &Connection, run: i64, round: i32, anew: Option<u32>) -> Result<Vec<i32>, Failure> {
    let (sql, attempts) = match anew {
        None => ("UPDATE stagemill.chunk SET round = $2 WHERE run_id = $1 AND state IN ('UNASSIGNED', 'ASSIGNED') AND $3 = 0 RETURNING root_id", 0),
        Some(attempts) => (
            "UPDATE stagemill.chunk SET round = $2, state = 'UNASSIGNED', ended_at = NULL, attempt_limit = attempt + $3,
                    error_class = NULL, sqlstate = NULL, error = NULL, detail = NULL
             WHERE run_id = $1 AND state NOT IN ('PROCESSED', 'SPLIT') RETURNING root_id",
            i32::try_from(attempts).unwrap_or(i32::MAX),
        ),
    };
    let rows = connection.query(sql, &[(&run, Type::INT8), (&round, Type::INT4), (&attempts, Type::INT4)]).await?;
    let mut ids: Vec<i32> = rows.iter().map(|row| row.get(0)).collect();
    ids.sort_unstable();
    ids.dedup();
    Ok(ids)
}
