//! Chunks in the ledger: written once by the plan, then claimed, fenced and finished by workers.

use serde::Serialize;
use serde_json::json;
use tokio_postgres::{Row, types::Type};

use super::lock_key;
use crate::{
    chunk::Range,
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
    /// Its rows.
    pub range: Range,
}

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
    /// The run is not open to workers.
    RunClosed,
}

/// Writes a run's chunks, with ids from 1, in the place of those that an earlier try at planning left.
///
/// # Errors
/// What the server or the connection says.
pub async fn write(connection: &Connection, run: i64, ranges: &[Range], attempts: u32) -> Result<(), Failure> {
    connection.query("DELETE FROM stagemill.chunk WHERE run_id = $1", &[(&run, Type::INT8)]).await?;
    let rows: Vec<serde_json::Value> = (1..).zip(ranges).map(|(id, range)| descriptor(id, range)).collect();
    let sql = "INSERT INTO stagemill.chunk (run_id, attempt_limit, chunk_id, kind, leaf_schema, leaf_name, leaf_oid, leaf_filenode,
                                            low_block, high_block, low_key, high_key)
               SELECT $1, $2, c.* FROM pg_catalog.jsonb_to_recordset($3) AS c (chunk_id integer, kind text, leaf_schema text, leaf_name text,
                   leaf_oid oid, leaf_filenode oid, low_block bigint, high_block bigint, low_key text[], high_key text[])";
    let attempts = i32::try_from(attempts).unwrap_or(i32::MAX);
    connection
        .query(sql, &[(&run, Type::INT8), (&attempts, Type::INT4), (&serde_json::Value::Array(rows), Type::JSONB)])
        .await?;
    Ok(())
}

fn descriptor(id: i32, range: &Range) -> serde_json::Value {
    match range {
        Range::Blocks { leaf, low, high } => json!({
            "chunk_id": id, "kind": "blocks", "low_block": low, "high_block": high,
            "leaf_schema": leaf.name.schema.as_ref().map(Ident::as_str), "leaf_name": leaf.name.name.as_str(),
            "leaf_oid": leaf.oid, "leaf_filenode": leaf.filenode,
        }),
        Range::Keys { low, high } => json!({ "chunk_id": id, "kind": "keys", "low_key": low, "high_key": high }),
        Range::NullKeys => json!({ "chunk_id": id, "kind": "null_keys" }),
    }
}

fn range(row: &Row, at: usize) -> Result<Range, Failure> {
    let block = |n: usize| row.get::<_, Option<i64>>(at + n).and_then(|block| u32::try_from(block).ok());
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
            low: block(5).unwrap_or_default(),
            high: block(6),
        }),
        "keys" => Ok(Range::Keys { low: row.get(at + 7), high: row.get(at + 8) }),
        "null_keys" => Ok(Range::NullKeys),
        kind => Err(Failure::new(Class::Ledger, format!("chunks of kind {kind:?} are not known to this version"))),
    }
}

/// Claims a chunk for a worker, in one short transaction: from now on people see who is on it.
///
/// SKIP LOCKED tells a worker that is alive (its transaction holds the row) from one that died (nobody does); a plain UPDATE would wait for
/// the older attempt, and NOWAIT's error can't be told from a lock timeout's.
///
/// # Errors
/// What the server or the connection says.
pub async fn claim(connection: &Connection, run: i64, id: i32, round: i32, worker: &str) -> Result<Claim, Failure> {
    let sql = "UPDATE stagemill.chunk c
               SET state = 'ASSIGNED', attempt = c.attempt + 1, worker = $4, assigned_at = pg_catalog.clock_timestamp(), ended_at = NULL
               FROM (SELECT run_id, chunk_id FROM stagemill.chunk
                     WHERE run_id = $1 AND chunk_id = $2 AND state IN ('UNASSIGNED', 'ASSIGNED') AND round <= $3 AND attempt < attempt_limit
                     FOR UPDATE SKIP LOCKED) free
               WHERE c.run_id = free.run_id AND c.chunk_id = free.chunk_id
                 AND EXISTS (SELECT FROM stagemill.run r WHERE r.run_id = $1 AND r.status = 'RUNNING' AND r.halted IS NULL)
               RETURNING c.attempt, c.attempt_limit, c.error_class,
                         c.kind, c.leaf_schema, c.leaf_name, c.leaf_oid, c.leaf_filenode, c.low_block, c.high_block, c.low_key, c.high_key";
    let params: [Param<'_>; 4] = [(&run, Type::INT8), (&id, Type::INT4), (&round, Type::INT4), (&worker, Type::TEXT)];
    match connection.query_opt(sql, &params).await? {
        Some(row) => Ok(Claim::Ours(Box::new(Claimed {
            run,
            id,
            attempt: row.get(0),
            attempt_limit: row.get(1),
            last_class: row.get(2),
            range: range(&row, 3)?,
        }))),
        None => why_not(connection, run, id, round).await,
    }
}

async fn why_not(connection: &Connection, run: i64, id: i32, round: i32) -> Result<Claim, Failure> {
    let sql = "SELECT r.status = 'RUNNING' AND r.halted IS NULL, c.state IN ('UNASSIGNED', 'ASSIGNED') AND c.round <= $3
               FROM stagemill.run r LEFT JOIN stagemill.chunk c ON c.run_id = r.run_id AND c.chunk_id = $2 WHERE r.run_id = $1";
    let row = connection.query_opt(sql, &[(&run, Type::INT8), (&id, Type::INT4), (&round, Type::INT4)]).await?;
    match row.map(|row| (row.get::<_, bool>(0), row.get::<_, Option<bool>>(1))) {
        None | Some((false, _)) => Ok(Claim::RunClosed),
        Some((true, None | Some(false))) => Ok(Claim::NotDue),
        Some((true, Some(true))) if give_up(connection, run, id).await? => Ok(Claim::UsedUp),
        Some((true, Some(true))) => Ok(Claim::Held),
    }
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

/// The statement that takes the run's lock, to be sent with BEGIN: false when somebody is closing the run or taking it over.
pub fn lock_run(run: i64) -> String {
    format!("SELECT pg_catalog.pg_try_advisory_xact_lock_shared({})", lock_key(run))
}

/// Inside the work transaction: locks the chunk's row if it is still ours. A check for PROCESSED alone would let a worker through that
/// was taken for dead, after its chunk went to another.
///
/// # Errors
/// What the server or the connection says.
pub async fn fence(connection: &Connection, chunk: &Claimed) -> Result<bool, Failure> {
    let sql = "SELECT FROM stagemill.chunk c
               WHERE c.run_id = $1 AND c.chunk_id = $2 AND c.state = 'ASSIGNED' AND c.attempt = $3
                 AND EXISTS (SELECT FROM stagemill.run r WHERE r.run_id = $1 AND r.status = 'RUNNING' AND r.halted IS NULL)
               FOR UPDATE OF c SKIP LOCKED";
    let params: [Param<'_>; 3] = [(&chunk.run, Type::INT8), (&chunk.id, Type::INT4), (&chunk.attempt, Type::INT4)];
    Ok(connection.query_opt(sql, &params).await?.is_some())
}

/// Inside the work transaction: the chunk is done. False when the heap is not the one that was planned, or its name is another one's by now.
/// The lock that the statement before took keeps both from changing until COMMIT.
///
/// # Errors
/// What the server or the connection says.
pub async fn finish(connection: &Connection, chunk: &Claimed, counts: &Counts) -> Result<bool, Failure> {
    let sql = "UPDATE stagemill.chunk
               SET state = 'PROCESSED', ended_at = pg_catalog.clock_timestamp(),
                   staged = $3, inserted = $4, updated = $5, deleted = $6, unchanged = $7, skipped = $8, rejected = $9,
                   error_class = NULL, sqlstate = NULL, error = NULL, detail = NULL
               WHERE run_id = $1 AND chunk_id = $2
                 AND (leaf_oid IS NULL OR (pg_catalog.pg_relation_filenode(leaf_oid) = leaf_filenode
                      AND pg_catalog.to_regclass(pg_catalog.format('%I.%I', leaf_schema, leaf_name)) = leaf_oid)) RETURNING 1";
    let params: [Param<'_>; 9] = [
        (&chunk.run, Type::INT8),
        (&chunk.id, Type::INT4),
        (&counts.staged, Type::INT8),
        (&counts.inserted, Type::INT8),
        (&counts.updated, Type::INT8),
        (&counts.deleted, Type::INT8),
        (&counts.unchanged, Type::INT8),
        (&counts.skipped, Type::INT8),
        (&counts.rejected, Type::INT8),
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

/// The chunks of a range of ids that are due in a round.
///
/// # Errors
/// What the server or the connection says.
pub async fn due(connection: &Connection, run: i64, round: i32, first: i32, last: i32) -> Result<Vec<i32>, Failure> {
    let sql = "SELECT chunk_id FROM stagemill.chunk
               WHERE run_id = $1 AND round <= $2 AND chunk_id BETWEEN $3 AND $4 AND state IN ('UNASSIGNED', 'ASSIGNED') ORDER BY chunk_id";
    let params: [Param<'_>; 4] = [(&run, Type::INT8), (&round, Type::INT4), (&first, Type::INT4), (&last, Type::INT4)];
    Ok(connection.query(sql, &params).await?.iter().map(|row| row.get(0)).collect())
}

/// Makes all chunks that are left due in `round`; the caller holds the run's lock alone. `anew` gives those that failed, and those that
/// are left, as many attempts again. Returns their ids.
///
/// # Errors
/// What the server or the connection says.
pub async fn make_due(connection: &Connection, run: i64, round: i32, anew: Option<u32>) -> Result<Vec<i32>, Failure> {
    let (sql, attempts) = match anew {
        None => ("UPDATE stagemill.chunk SET round = $2 WHERE run_id = $1 AND state IN ('UNASSIGNED', 'ASSIGNED') AND $3 = 0 RETURNING chunk_id", 0),
        Some(attempts) => (
            "UPDATE stagemill.chunk SET round = $2, state = 'UNASSIGNED', ended_at = NULL, attempt_limit = attempt + $3,
                    error_class = NULL, sqlstate = NULL, error = NULL, detail = NULL
             WHERE run_id = $1 AND state <> 'PROCESSED' RETURNING chunk_id",
            i32::try_from(attempts).unwrap_or(i32::MAX),
        ),
    };
    let rows = connection.query(sql, &[(&run, Type::INT8), (&round, Type::INT4), (&attempts, Type::INT4)]).await?;
    let mut ids: Vec<i32> = rows.iter().map(|row| row.get(0)).collect();
    ids.sort_unstable();
    Ok(ids)
}

/// A chunk as people see it.
#[derive(Debug, Clone, Serialize)]
pub struct Listed {
    /// Its id.
    pub chunk: i32,
    /// Its state.
    pub state: String,
    /// Attempts made.
    pub attempts: i32,
    /// Its rows: blocks, or keys.
    pub range: String,
    /// Who is or was on it.
    pub worker: Option<String>,
    /// Milliseconds of the last attempt, or until now.
    pub milliseconds: Option<f64>,
    /// Rows read from the stage.
    pub staged: Option<i64>,
    /// Rows written to the target.
    pub written: Option<i64>,
    /// Why the last attempt failed: the class's name.
    pub error_class: Option<String>,
    /// The server's code for it.
    pub sqlstate: Option<String>,
    /// Why, without values of the row.
    pub error: Option<String>,
    /// The server's own words, which can hold values of the row.
    pub detail: Option<String>,
}

/// The chunks of a run, all or those that have not been applied.
///
/// # Errors
/// What the server or the connection says.
pub async fn list(connection: &Connection, run: i64, only_open: bool) -> Result<Vec<Listed>, Failure> {
    let sql = "SELECT chunk_id, state, attempt,
                   CASE kind WHEN 'blocks' THEN leaf_schema || '.' || leaf_name || ' blocks ' || low_block || COALESCE(' to ' || high_block - 1, ' on')
                             WHEN 'null_keys' THEN 'NULL keys'
                             ELSE CASE WHEN low_key IS NULL AND high_key IS NULL THEN 'all keys' ELSE
                                  pg_catalog.concat_ws(' ', 'keys', 'above (' || pg_catalog.array_to_string(low_key, ', ') || ')',
                                                       'up to (' || pg_catalog.array_to_string(high_key, ', ') || ')') END END,
                   worker, EXTRACT(epoch FROM COALESCE(ended_at, pg_catalog.clock_timestamp()) - assigned_at)::float8 * 1000,
                   staged, inserted + updated + deleted, error_class, sqlstate, error, detail
               FROM stagemill.chunk WHERE run_id = $1 AND (NOT $2 OR state <> 'PROCESSED') ORDER BY chunk_id";
    let rows = connection.query(sql, &[(&run, Type::INT8), (&only_open, Type::BOOL)]).await?;
    let listed = |row: &Row| Listed {
        chunk: row.get(0),
        state: row.get(1),
        attempts: row.get(2),
        range: row.get(3),
        worker: row.get(4),
        milliseconds: row.get(5),
        staged: row.get(6),
        written: row.get(7),
        error_class: row.get(8),
        sqlstate: row.get(9),
        error: row.get(10),
        detail: row.get(11),
    };
    Ok(rows.iter().map(listed).collect())
}

/// Why chunks of a run were not applied: the commonest failure, how many chunks it cost, and the first of them.
///
/// # Errors
/// What the server or the connection says.
pub async fn main_failure(connection: &Connection, run: i64) -> Result<Option<MainFailure>, Failure> {
    let sql = "SELECT error_class, sqlstate, pg_catalog.min(error), pg_catalog.count(*), pg_catalog.min(chunk_id)
               FROM stagemill.chunk WHERE run_id = $1 AND state <> 'PROCESSED' AND error_class IS NOT NULL
               GROUP BY error_class, sqlstate ORDER BY pg_catalog.count(*) DESC, pg_catalog.min(chunk_id) LIMIT 1";
    let row = connection.query_opt(sql, &[(&run, Type::INT8)]).await?;
    Ok(row.map(|row| MainFailure {
        class: row.get(0),
        sqlstate: row.get(1),
        error: row.get::<_, Option<String>>(2).unwrap_or_default(),
        chunks: row.get(3),
        first: row.get(4),
    }))
}

/// The commonest failure of a run's chunks.
#[derive(Debug, Clone)]
pub struct MainFailure {
    /// The class's name.
    pub class: String,
    /// The server's code.
    pub sqlstate: Option<String>,
    /// What happened, without values of the row.
    pub error: String,
    /// How many chunks it cost.
    pub chunks: i64,
    /// The first of them.
    pub first: i32,
}
