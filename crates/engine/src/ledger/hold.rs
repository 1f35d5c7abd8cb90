//! Holds: what keeps a run from starting chunks, set by people, limits and alarms, each lifted by its own owner alone.

use std::time::Duration;

use tokio_postgres::types::Type;

use crate::{
    failure::Failure,
    pg::{Connection, Param},
};

/// The owner of what people set.
pub const PEOPLE: &str = "people";

/// The owner of what the job's limits set.
pub const LIMITS: &str = "limits";

/// A hold that is in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hold {
    /// Who set it.
    pub owner: String,
    /// Why.
    pub reason: String,
    /// When it runs out by itself.
    pub left: Option<Duration>,
}

/// That a hold is in force, as a condition over `stagemill.hold h`.
pub(super) const IN_FORCE: &str = "h.ended_at IS NULL AND (h.until IS NULL OR h.until > pg_catalog.clock_timestamp())";

/// Holds an open run back, or says anew why and for how long. Returns whether the run is open.
///
/// # Errors
/// What the server or the connection says.
pub async fn set(
    connection: &Connection,
    run: i64,
    owner: &str,
    reason: &str,
    lasts: Option<Duration>,
) -> Result<bool, Failure> {
    // One that ran out did not hold until now.
    let sql = "UPDATE stagemill.hold SET ended_at = until
               WHERE run_id = $1 AND owner = $2 AND ended_at IS NULL AND until <= pg_catalog.clock_timestamp()";
    connection.query(sql, &[(&run, Type::INT8), (&owner, Type::TEXT)]).await?;
    let sql = "INSERT INTO stagemill.hold (run_id, owner, reason, until)
               SELECT run_id, $2, $3, pg_catalog.clock_timestamp() + $4 * interval '1 second' FROM stagemill.run
               WHERE run_id = $1 AND ended_at IS NULL
               ON CONFLICT (run_id, owner) WHERE ended_at IS NULL DO UPDATE SET reason = EXCLUDED.reason, until = EXCLUDED.until
               RETURNING 1";
    let lasts = lasts.map(|lasts| lasts.as_secs_f64());
    let params: [Param<'_>; 4] =
        [(&run, Type::INT8), (&owner, Type::TEXT), (&reason, Type::TEXT), (&lasts, Type::FLOAT8)];
    Ok(connection.query_opt(sql, &params).await?.is_some())
}

/// Lifts an owner's hold. Returns whether there was one.
///
/// # Errors
/// What the server or the connection says.
pub async fn lift(connection: &Connection, run: i64, owner: &str) -> Result<bool, Failure> {
    let sql = "UPDATE stagemill.hold SET ended_at = LEAST(until, pg_catalog.clock_timestamp())
               WHERE run_id = $1 AND owner = $2 AND ended_at IS NULL RETURNING 1";
    Ok(connection.query_opt(sql, &[(&run, Type::INT8), (&owner, Type::TEXT)]).await?.is_some())
}

/// Ends whatever holds a run that is closed.
///
/// # Errors
/// What the server or the connection says.
pub(super) async fn end(connection: &Connection, run: i64) -> Result<(), Failure> {
    let sql = "UPDATE stagemill.hold SET ended_at = LEAST(until, pg_catalog.clock_timestamp()) WHERE run_id = $1 AND ended_at IS NULL";
    connection.query(sql, &[(&run, Type::INT8)]).await?;
    Ok(())
}

/// The holds in force, the oldest first.
///
/// # Errors
/// What the server or the connection says.
pub async fn in_force(connection: &Connection, run: i64) -> Result<Vec<Hold>, Failure> {
    let sql = format!(
        "SELECT owner, reason, EXTRACT(epoch FROM until - pg_catalog.clock_timestamp())::float8
         FROM stagemill.hold h WHERE run_id = $1 AND {IN_FORCE} ORDER BY since"
    );
    let rows = connection.query(&sql, &[(&run, Type::INT8)]).await?;
    let left = |seconds: f64| Duration::try_from_secs_f64(seconds).unwrap_or_default();
    let hold = |row: &tokio_postgres::Row| Hold {
        owner: row.get(0),
        reason: row.get(1),
        left: row.get::<_, Option<f64>>(2).map(left),
    };
    Ok(rows.iter().map(hold).collect())
}
