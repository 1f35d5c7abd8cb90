//! Rows that were set aside: written in the transaction that applies the others, taken again when they are mended.

use serde::Serialize;
use tokio_postgres::types::Type;

use super::{
    chunk::{Claimed, Planned},
    run::Run,
};
use crate::{
    chunk::{self, Item, Range},
    failure::{Class, Failure, WANTS_ANOTHER_ROW},
    mapping::Mapping,
    pg::{Connection, Param},
    statement,
};

/// A row to be set aside.
#[derive(Debug)]
pub struct Rejected {
    /// Its number in the frozen list.
    pub number: i64,
    /// Why.
    pub failure: Failure,
}

/// How many rows of a run are set aside, by what is committed. From here to the end of the transaction nobody else adds any.
///
/// # Errors
/// What the server or the connection says.
pub async fn open(connection: &Connection, run: i64) -> Result<i64, Failure> {
    // Two chunks that don't see each other's rows would together exceed the limit.
    connection.query("SELECT FROM stagemill.run WHERE run_id = $1 FOR NO KEY UPDATE", &[(&run, Type::INT8)]).await?;
    count(connection, run).await
}

/// How many rows of a run are set aside.
///
/// # Errors
/// What the server or the connection says.
pub async fn count(connection: &Connection, run: i64) -> Result<i64, Failure> {
    let sql = "SELECT pg_catalog.count(*) FROM stagemill.reject WHERE run_id = $1 AND retried_in IS NULL";
    Ok(connection.query_one(sql, &[(&run, Type::INT8)]).await?.get(0))
}

/// Sets rows of the frozen list aside.
///
/// # Errors
/// What the server or the connection says.
pub async fn write(
    connection: &Connection,
    mapping: &Mapping,
    chunk: &Claimed,
    rejected: &[Rejected],
) -> Result<(), Failure> {
    for Rejected { number, failure } in rejected {
        // Of a change that can't be used its key tells nothing: another change of that key may have been applied.
        let is_unusable = mapping.changes.is_some() && failure.sqlstate.is_none();
        let key = if is_unusable { None } else { key(connection, mapping, *number).await? };
        let class = format!("{:?}", failure.class);
        let sql = |row: &str| {
            format!(
                "INSERT INTO stagemill.reject (run_id, chunk_id, staged_row, target_key, error_class, sqlstate, constraint_name, column_name, error, detail)
                 SELECT $1, $2, {row}, $4, $5, $6, $7, $8, $9, $10 FROM {} WHERE \"stagemill number\" = $3",
                statement::frozen(mapping)
            )
        };
        let params: [Param<'_>; 10] = [
            (&chunk.run, Type::INT8),
            (&chunk.id, Type::INT4),
            (number, Type::INT8),
            (&key, Type::TEXT_ARRAY),
            (&class, Type::TEXT),
            (&failure.sqlstate, Type::TEXT),
            (&failure.constraint(), Type::TEXT),
            (&failure.column(), Type::TEXT),
            (&failure.message(), Type::TEXT),
            (&failure.server_message(), Type::TEXT),
        ];
        connection.batch("SAVEPOINT stagemill").await?;
        match connection.query(&sql("pg_catalog.to_jsonb(stage)"), &params).await {
            Ok(_) => {}
            // What json takes is more than what jsonb takes ("\\u0000").
            Err(refused) if refused.class.is_of_rows() => {
                connection.batch("ROLLBACK TO SAVEPOINT stagemill").await?;
                connection.query(&sql(&statement::row_of_texts(mapping)), &params).await?;
            }
            Err(failure) => return Err(failure),
        }
        connection.batch("RELEASE SAVEPOINT stagemill").await?;
    }
    Ok(())
}

/// The target key of a frozen row, as the server writes it; `None` where it is NULL or can't be computed.
async fn key(connection: &Connection, mapping: &Mapping, number: i64) -> Result<Option<Vec<String>>, Failure> {
    connection.batch("SAVEPOINT stagemill").await?;
    let keys = statement::key_texts(mapping);
    let sql = format!(
        "SELECT ARRAY[{}] FROM {} WHERE \"stagemill number\" = $1",
        keys.join(", "),
        statement::frozen(mapping)
    );
    let key = match connection.query_one(&sql, &[(&number, Type::INT8)]).await {
        Ok(row) => row.get::<_, Vec<Option<String>>>(0).into_iter().collect(),
        Err(failure) if failure.class.is_of_rows() => None,
        Err(failure) => return Err(failure),
    };
    connection.batch("ROLLBACK TO SAVEPOINT stagemill; RELEASE SAVEPOINT stagemill").await?;
    Ok(key)
}

/// Takes the rows that were set aside before and are in the stage, found by their keys: from here on they are the chunk's. Returns how many.
///
/// # Errors
/// What the server or the connection says.
pub async fn take(connection: &Connection, mapping: &Mapping, chunk: &Claimed) -> Result<i64, Failure> {
    let sql = format!(
        "WITH found AS MATERIALIZED (
             {}),
         taken AS (
             UPDATE stagemill.reject r SET retried_in = $2
             WHERE r.run_id = $1 AND r.retried_in IS NULL AND r.chunk_id <> $2 AND COALESCE(r.target_key IN (SELECT key FROM found), false)
             RETURNING r.chunk_id),
         by_chunk AS (SELECT chunk_id, pg_catalog.count(*) AS n FROM taken GROUP BY chunk_id),
         moved AS (
             UPDATE stagemill.chunk c SET staged = c.staged - b.n, rejected = c.rejected - b.n
             FROM by_chunk b WHERE c.run_id = $1 AND c.chunk_id = b.chunk_id)
         SELECT pg_catalog.count(*) FROM taken",
        statement::keys_of_rejects(mapping, "run_id = $1 AND retried_in IS NULL")
    );
    let row = connection.query_one(&sql, &[(&chunk.run, Type::INT8), (&chunk.id, Type::INT4)]).await?;
    Ok(row.get(0))
}

/// A row that was set aside, as people see it.
#[derive(Debug, Clone, Serialize)]
pub struct Listed {
    /// Its id in the run.
    pub reject: i64,
    /// The chunk that set it aside.
    pub chunk: i32,
    /// The chunk that took it again.
    pub retried_in: Option<i32>,
    /// Why: the class's name.
    pub error_class: String,
    /// The server's code.
    pub sqlstate: Option<String>,
    /// The constraint that it breaks.
    pub constraint: Option<String>,
    /// The column whose value can't be stored.
    pub column: Option<String>,
    /// Why, without values of the row.
    pub error: String,
    /// The server's own words, which can hold values of the row.
    pub detail: Option<String>,
    /// The row.
    pub row: serde_json::Value,
}

/// The rows of a run that are set aside.
///
/// # Errors
/// What the server or the connection says.
pub async fn list(connection: &Connection, run: i64, limit: i64) -> Result<Vec<Listed>, Failure> {
    let sql = "SELECT reject_id, chunk_id, retried_in, error_class, sqlstate, constraint_name, column_name, error, detail, staged_row
               FROM stagemill.reject WHERE run_id = $1 AND retried_in IS NULL ORDER BY reject_id LIMIT $2";
    let rows = connection.query(sql, &[(&run, Type::INT8), (&limit, Type::INT8)]).await?;
    let listed = rows.iter().map(|row| Listed {
        reject: row.get(0),
        chunk: row.get(1),
        retried_in: row.get(2),
        error_class: row.get(3),
        sqlstate: row.get(4),
        constraint: row.get(5),
        column: row.get(6),
        error: row.get(7),
        detail: row.get(8),
        row: row.get(9),
    });
    Ok(listed.collect())
}

/// Whether rows of a run are set aside for want of another row, which may have been applied since, and were not tried again yet. A chunk is tried
/// once more after all others; of two that wait for each other's rows one is too early.
///
/// # Errors
/// What the server or the connection says.
pub async fn may_fit_now(connection: &Connection, run: i64) -> Result<bool, Failure> {
    let sql = "SELECT EXISTS (SELECT FROM stagemill.reject WHERE run_id = $1 AND retried_in IS NULL AND target_key IS NOT NULL
                              AND sqlstate = ANY ($2))
                      -- A key that can't be computed would fail the search for all others.
                      AND NOT EXISTS (SELECT FROM stagemill.reject WHERE run_id = $1 AND retried_in IS NULL AND target_key IS NULL
                                      AND error_class = 'BadData' AND sqlstate IS NOT NULL)
                      AND NOT EXISTS (SELECT FROM stagemill.chunk WHERE run_id = $1 AND kind = 'rejects')";
    let codes = WANTS_ANOTHER_ROW.as_slice();
    Ok(connection.query_one(sql, &[(&run, Type::INT8), (&codes, Type::TEXT_ARRAY)]).await?.get(0))
}

/// Opens a round with one chunk that tries all rows again that are set aside. The caller holds the run's lock alone.
///
/// # Errors
/// What the server or the connection says.
pub async fn retry(connection: &Connection, run: &Run, round: i32) -> Result<Vec<Item>, Failure> {
    let planned = |chunk| Planned { range: Range::Rejects { run: run.id, chunk }, delete_limit: None };
    let added = super::chunk::add(connection, run.id, round, planned, run.spec.retry.attempts).await?;
    let items = chunk::items(run.id, round, &[added], 1);
    super::run::open_round(connection, run.id, round, &items).await?;
    Ok(items)
}

/// Refuses a run that has nothing set aside.
///
/// # Errors
/// [`Class::BadJob`], then.
pub async fn require_some(connection: &Connection, run: i64) -> Result<(), Failure> {
    if count(connection, run).await? > 0 {
        return Ok(());
    }
    Err(Failure::new(Class::BadJob, format!("run {run} has no rows set aside: there is nothing to try again")))
}
