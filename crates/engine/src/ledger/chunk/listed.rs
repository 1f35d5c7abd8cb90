//! Chunks as people see them.

use serde::Serialize;
use tokio_postgres::{Row, types::Type};

use super::{RANGE, range};
use crate::{failure::Failure, pg::Connection};

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
    let sql = format!(
        "SELECT chunk_id, state, attempt, worker,
                EXTRACT(epoch FROM COALESCE(ended_at, pg_catalog.clock_timestamp()) - assigned_at)::float8 * 1000,
                staged, inserted + updated + deleted, error_class, sqlstate, error, detail, {RANGE}
         FROM stagemill.chunk c WHERE run_id = $1 AND (NOT $2 OR state NOT IN ('PROCESSED', 'SPLIT')) ORDER BY root_id, chunk_id"
    );
    let rows = connection.query(&sql, &[(&run, Type::INT8), (&only_open, Type::BOOL)]).await?;
    let listed = |row: &Row| {
        Ok(Listed {
            chunk: row.get(0),
            state: row.get(1),
            attempts: row.get(2),
            range: range(row, 11, run, row.get(0))?.to_string(),
            worker: row.get(3),
            milliseconds: row.get(4),
            staged: row.get(5),
            written: row.get(6),
            error_class: row.get(7),
            sqlstate: row.get(8),
            error: row.get(9),
            detail: row.get(10),
        })
    };
    rows.iter().map(listed).collect()
}

/// Why chunks of a run were not applied: the commonest failure, how many chunks it cost, and the first of them.
///
/// # Errors
/// What the server or the connection says.
pub async fn main_failure(connection: &Connection, run: i64) -> Result<Option<MainFailure>, Failure> {
    let sql = "SELECT error_class, sqlstate, pg_catalog.min(error), pg_catalog.count(*), pg_catalog.min(chunk_id)
               FROM stagemill.chunk WHERE run_id = $1 AND state NOT IN ('PROCESSED', 'SPLIT') AND error_class IS NOT NULL
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
