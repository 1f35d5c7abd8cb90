//! How many chunks of a run may be in flight.

use tokio_postgres::types::Type;

use crate::{
    failure::Failure,
    pg::{Connection, Param},
};

/// Where a run that finds the number itself begins.
pub const FIRST_TRIED: i32 = 4;

/// How fast a run may go now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// The most chunks at a time.
    pub parallelism: u32,
    /// How many may be in flight now; `None` for as many as there are workers.
    pub allowed: Option<u32>,
    /// Whether the run finds the number itself.
    pub auto: bool,
    /// Whether workers may start chunks at all: the run is open, and nobody halted it.
    pub open: bool,
}

/// Reads it.
///
/// # Errors
/// What the server or the connection says, or that there is no such run.
pub async fn read(connection: &Connection, run: i64) -> Result<Pace, Failure> {
    let sql =
        "SELECT parallelism, allowed, auto, status = 'RUNNING' AND halted IS NULL FROM stagemill.run WHERE run_id = $1";
    let row = connection.query_one(sql, &[(&run, Type::INT8)]).await?;
    let count = |n: i32| u32::try_from(n).unwrap_or(1);
    Ok(Pace {
        parallelism: count(row.get(0)),
        allowed: row.get::<_, Option<i32>>(1).map(count),
        auto: row.get(2),
        open: row.get(3),
    })
}

/// Allows so many, as many as there are workers for `None`, and remembers since when and why. Does nothing where a person has fixed the number
/// since it was read as `from`.
///
/// # Errors
/// What the server or the connection says.
pub async fn allow(
    connection: &Connection,
    run: i64,
    from: &Pace,
    allowed: Option<u32>,
    reason: &str,
) -> Result<(), Failure> {
    let sql = "WITH changed AS (UPDATE stagemill.run SET allowed = $2 WHERE run_id = $1 AND ended_at IS NULL AND auto = $4 AND parallelism = $5
                                RETURNING COALESCE(allowed, parallelism) AS allowed)
               INSERT INTO stagemill.pace (run_id, allowed, reason) SELECT $1, allowed, $3 FROM changed";
    let (allowed, parallelism) = (allowed.map(int), int(from.parallelism));
    let params: [Param<'_>; 5] = [
        (&run, Type::INT8),
        (&allowed, Type::INT4),
        (&reason, Type::TEXT),
        (&from.auto, Type::BOOL),
        (&parallelism, Type::INT4),
    ];
    connection.query(sql, &params).await?;
    Ok(())
}

/// Fixes the number for an open run. Returns how many workers its round was started with; `None` when the run is not open.
///
/// # Errors
/// What the server or the connection says.
pub async fn fix(connection: &Connection, run: i64, parallelism: u32, reason: &str) -> Result<Option<u32>, Failure> {
    let sql = "WITH changed AS (UPDATE stagemill.run SET parallelism = $2, allowed = $2, auto = false
                                WHERE run_id = $1 AND ended_at IS NULL RETURNING run_id, round),
                    told AS (INSERT INTO stagemill.pace (run_id, allowed, reason) SELECT run_id, $2, $3 FROM changed)
               SELECT COALESCE(o.parallelism, $2) FROM changed c LEFT JOIN stagemill.round o USING (run_id, round)";
    let parallelism = int(parallelism);
    let params: [Param<'_>; 3] = [(&run, Type::INT8), (&parallelism, Type::INT4), (&reason, Type::TEXT)];
    let row = connection.query_opt(sql, &params).await?;
    Ok(row.map(|row| u32::try_from(row.get::<_, i32>(0)).unwrap_or(1)))
}

fn int(n: u32) -> i32 {
    i32::try_from(n).unwrap_or(i32::MAX)
}
