//! Runs and their rounds: the run lock, the log table's rows, the answers that are given again.

mod open;
pub mod owner;
pub mod rerun;

use serde::Serialize;
use tokio_postgres::{Row, types::Type};

use super::{hold, lock_key};
use crate::{
    chunk::Item,
    failure::{Class, Failure},
    job::Job,
    mapping::Mapping,
    outcome::{Status, Tally},
    pg::{Connection, Param},
};
pub use open::{NewRun, OpenRun, Opened, open, open_run};

/// A run, as workers need it.
#[derive(Debug, Clone)]
pub struct Run {
    /// Its id.
    pub id: i64,
    /// Its job's name.
    pub job: String,
    /// Who may go on with it.
    pub owner: String,
    /// How it stands.
    pub status: Status,
    /// The job as it was when the run was planned.
    pub spec: Job,
    /// What the job means in this database.
    pub mapping: Mapping,
    /// The round that is open; 0 before the plan is written.
    pub round: i32,
    /// The last round there may be.
    pub round_limit: i32,
    /// How many chunks may be applied at a time.
    pub parallelism: u32,
    /// The status that a halt asked for.
    pub halted: Option<Status>,
    /// Staged rows that no chunk holds.
    pub outside: i64,
    /// Why it was halted or closed: the class's name.
    pub error_class: Option<String>,
    /// Why, in a text without row values.
    pub error: Option<String>,
    /// Whether a start came while it was open: its owner makes one more run.
    pub rerun_requested: bool,
    /// The jobs that its execution starts after it, in order.
    pub followed_by: Vec<String>,
}

impl Run {
    /// Whether its owner makes one more run of its job. What a person stopped stays so, and what took an abandoned run's place applies all
    /// that it would have.
    pub const fn has_rerun(&self) -> bool {
        self.rerun_requested && !self.status.is_open() && !matches!(self.status, Status::Stopped | Status::Abandoned)
    }
}

const RUN: &str = "SELECT run_id, job, status, spec, mapping, round, round_limit, parallelism, halted, error_class, error, outside, owner, rerun_requested, followed_by FROM stagemill.run";

fn run(row: &Row) -> Result<Run, Failure> {
    let unreadable = |what: &str| {
        Failure::new(Class::Ledger, format!("run {}: its {what} can't be read by this version", row.get::<_, i64>(0)))
    };
    Ok(Run {
        id: row.get(0),
        job: row.get(1),
        owner: row.get(12),
        status: Status::parse(row.get(2)).ok_or_else(|| unreadable("status"))?,
        spec: Job::from_value(row.get(3)).map_err(|_| unreadable("spec"))?,
        mapping: serde_json::from_value(row.get(4)).map_err(|_| unreadable("mapping"))?,
        round: row.get(5),
        round_limit: row.get(6),
        parallelism: u32::try_from(row.get::<_, i32>(7)).unwrap_or(1),
        halted: row.get::<_, Option<&str>>(8).and_then(Status::parse),
        error_class: row.get(9),
        error: row.get(10),
        outside: row.get(11),
        rerun_requested: row.get(13),
        followed_by: row.get(14),
    })
}

/// Reads a run.
///
/// # Errors
/// When there is none of that id, or it was written by another version.
pub async fn load(connection: &Connection, id: i64) -> Result<Run, Failure> {
    let row = connection.query_opt(&format!("{RUN} WHERE run_id = $1"), &[(&id, Type::INT8)]).await?;
    let Some(row) = row else {
        return Err(Failure::new(
            Class::BadJob,
            format!("there is no run {id}: `stagemill status` shows those there are"),
        ));
    };
    run(&row)
}

/// Reads the run that an owner started.
///
/// # Errors
/// What the server or the connection says.
pub async fn of_owner(connection: &Connection, owner: &str) -> Result<Option<Run>, Failure> {
    let row = connection.query_opt(&format!("{RUN} WHERE owner = $1"), &[(&owner, Type::TEXT)]).await?;
    row.as_ref().map(run).transpose()
}

/// Reads the open run of an execution, whichever of its runs that is; of a command line, the one it started.
///
/// # Errors
/// What the server or the connection says.
pub async fn open_of(connection: &Connection, owner: &str) -> Result<Option<Run>, Failure> {
    // None of an execution's names holds the mark, so that no other execution's runs begin like this.
    let sql = format!(
        "{RUN} WHERE ended_at IS NULL AND (owner = $1 OR pg_catalog.starts_with(owner, $1 || '{}'))",
        owner::MARK
    );
    let row = connection.query_opt(&sql, &[(&owner, Type::TEXT)]).await?;
    row.as_ref().map(run).transpose()
}

/// The newest run of an execution, whichever of its runs that is.
///
/// # Errors
/// What the server or the connection says.
pub async fn newest_of(connection: &Connection, execution: &str) -> Result<Option<i64>, Failure> {
    let sql = format!(
        "SELECT pg_catalog.max(run_id) FROM stagemill.run WHERE owner = $1 OR pg_catalog.starts_with(owner, $1 || '{}')",
        owner::MARK
    );
    Ok(connection.query_one(&sql, &[(&execution, Type::TEXT)]).await?.get(0))
}

/// The open runs of a state machine's executions, whose owners all begin alike.
///
/// # Errors
/// What the server or the connection says.
pub async fn open_ids(connection: &Connection, owners: &str) -> Result<Vec<i64>, Failure> {
    let sql =
        "SELECT run_id FROM stagemill.run WHERE ended_at IS NULL AND pg_catalog.starts_with(owner, $1) ORDER BY run_id";
    Ok(connection.query(sql, &[(&owners, Type::TEXT)]).await?.iter().map(|row| row.get(0)).collect())
}

/// How long what is in flight is waited for, and then the run's row.
pub const LONGEST_WAIT: std::time::Duration = std::time::Duration::from_secs(60);

/// Locks a run's row and, alone, its advisory lock: what is in flight has ended when this returns, and nothing starts until the
/// transaction ends.
///
/// # Errors
/// When a work transaction does not end in time, or there is no such run.
pub async fn lock(connection: &Connection, id: i64) -> Result<Run, Failure> {
    // What is written under the lock is told to people and programs, who go on from it: a crash must not take it back, nor what came before it.
    let settings = format!(
        "SET LOCAL lock_timeout = '{}s';
         SELECT pg_catalog.set_config('synchronous_commit', 'on', true) WHERE pg_catalog.current_setting('synchronous_commit') = 'off'",
        LONGEST_WAIT.as_secs()
    );
    connection.batch(&settings).await?;
    connection.query("SELECT pg_catalog.pg_advisory_xact_lock($1)", &[(&lock_key(id), Type::INT8)]).await?;
    connection.query("SELECT FROM stagemill.run WHERE run_id = $1 FOR UPDATE", &[(&id, Type::INT8)]).await?;
    load(connection, id).await
}

/// Writes what planning fixes.
///
/// # Errors
/// What the server or the connection says.
pub async fn set_plan(connection: &Connection, run: i64, mapping: &Mapping, outside: i64) -> Result<(), Failure> {
    let bounds = mapping.window.as_ref().and_then(|window| window.bounds.clone());
    let (low, high) = bounds.map_or((None, None), |bounds| (bounds.low, bounds.high));
    let mapping = to_json(mapping)?;
    let sql =
        "UPDATE stagemill.run SET mapping = $2, window_low = $3, window_high = $4, outside = $5 WHERE run_id = $1";
    let params: [Param<'_>; 5] =
        [(&run, Type::INT8), (&mapping, Type::JSONB), (&low, Type::TEXT), (&high, Type::TEXT), (&outside, Type::INT8)];
    connection.query(sql, &params).await?;
    Ok(())
}

/// Writes what was found of a run's stage.
///
/// # Errors
/// What the server or the connection says.
pub async fn set_evidence(
    connection: &Connection,
    run: i64,
    new_rows: Option<i64>,
    recounted: Option<i64>,
) -> Result<(), Failure> {
    let sql = "UPDATE stagemill.run SET new_rows = $2, recounted = $3 WHERE run_id = $1";
    connection.query(sql, &[(&run, Type::INT8), (&new_rows, Type::INT8), (&recounted, Type::INT8)]).await?;
    Ok(())
}

/// Up to where the last complete run of a job took its stage by this column; `None` without one, or without a ledger.
///
/// # Errors
/// What the server or the connection says.
pub async fn last_high(
    connection: &Connection,
    job: &str,
    stage: &str,
    column: &str,
) -> Result<Option<String>, Failure> {
    let there = connection.query_one("SELECT pg_catalog.to_regclass('stagemill.run') IS NOT NULL", &[]).await?;
    if !there.get::<_, bool>(0) {
        return Ok(None);
    }
    let sql = "SELECT window_high FROM stagemill.run
               WHERE job = $1 AND stage_table = $2 AND mapping #>> '{window,column,column}' = $3 AND window_high IS NOT NULL
                 AND status IN ('COMPLETE', 'COMPLETE_WITH_REJECTS') ORDER BY run_id DESC LIMIT 1";
    let params: [Param<'_>; 3] = [(&job, Type::TEXT), (&stage, Type::TEXT), (&column, Type::TEXT)];
    Ok(connection.query_opt(sql, &params).await?.map(|row| row.get(0)))
}

/// Opens a round: its items are stored, so that whoever asks again gets the same.
///
/// # Errors
/// What the server or the connection says.
pub async fn open_round(connection: &Connection, run: i64, round: i32, items: &[Item]) -> Result<(), Failure> {
    let items = to_json(&items)?;
    let sql = "INSERT INTO stagemill.round (run_id, round, items, parallelism)
               SELECT $1, $2, $3, parallelism FROM stagemill.run WHERE run_id = $1";
    connection.query(sql, &[(&run, Type::INT8), (&round, Type::INT4), (&items, Type::JSONB)]).await?;
    let sql = "UPDATE stagemill.run SET status = 'RUNNING', round = $2, planned_at = COALESCE(planned_at, pg_catalog.clock_timestamp())
               WHERE run_id = $1";
    connection.query(sql, &[(&run, Type::INT8), (&round, Type::INT4)]).await?;
    Ok(())
}

/// The items of a round, as they were first answered.
///
/// # Errors
/// What the server or the connection says.
pub async fn items(connection: &Connection, run: i64, round: i32) -> Result<Vec<Item>, Failure> {
    let sql = "SELECT items FROM stagemill.round WHERE run_id = $1 AND round = $2";
    let row = connection.query_one(sql, &[(&run, Type::INT8), (&round, Type::INT4)]).await?;
    serde_json::from_value(row.get(0))
        .map_err(|_| Failure::new(Class::Ledger, format!("run {run}: round {round} can't be read by this version")))
}

/// Asks that nothing more of a run is started. The first to ask is remembered; a worker of an earlier round has no say:
/// somebody may have resumed the run since. Returns whether it was halted by this.
///
/// # Errors
/// What the server or the connection says.
pub async fn halt(connection: &Connection, run: i64, round: i32, failure: &Failure) -> Result<bool, Failure> {
    let status = Status::of_halt(failure.class);
    let sql = "UPDATE stagemill.run SET halted = $2, error_class = $3, sqlstate = $4, error = $5
               WHERE run_id = $1 AND round = $6 AND halted IS NULL AND ended_at IS NULL RETURNING 1";
    let class = format!("{:?}", failure.class);
    let params: [Param<'_>; 6] = [
        (&run, Type::INT8),
        (&status.as_str(), Type::TEXT),
        (&class, Type::TEXT),
        (&failure.sqlstate, Type::TEXT),
        (&failure.message(), Type::TEXT),
        (&round, Type::INT4),
    ];
    Ok(connection.query_opt(sql, &params).await?.is_some())
}

/// Asks the same whatever round it is in. Whoever drives the run closes it when what is in flight has finished. Returns whether it was open.
///
/// # Errors
/// When there is no such run, or the server can't be asked.
pub async fn stop(connection: &Connection, id: i64, why: &Failure) -> Result<bool, Failure> {
    loop {
        let run = load(connection, id).await?;
        // Where a round was opened in this moment, the end is asked of that one.
        if !run.status.is_open() || run.halted.is_some() || halt(connection, id, run.round, why).await? {
            return Ok(run.status.is_open());
        }
    }
}

/// Marks a run that a person interrupted: nobody works on it, `resume` goes on. Not when it has gone to another owner.
///
/// # Errors
/// What the server or the connection says.
pub async fn interrupt(connection: &Connection, run: i64, owner: &str) -> Result<(), Failure> {
    connection
        .query(
            "UPDATE stagemill.run SET status = 'INTERRUPTED' WHERE run_id = $1 AND status = 'RUNNING' AND owner = $2",
            &[(&run, Type::INT8), (&owner, Type::TEXT)],
        )
        .await?;
    Ok(())
}

/// Closes an open run, with its totals. `why` says what kept it from being complete. Returns whether it was open.
///
/// # Errors
/// What the server or the connection says.
pub async fn close(
    connection: &Connection,
    run: i64,
    status: Status,
    tally: &Tally,
    why: Option<&Failure>,
) -> Result<bool, Failure> {
    let class = why.map(|failure| format!("{:?}", failure.class));
    let sql = "UPDATE stagemill.run SET status = $2, ended_at = pg_catalog.clock_timestamp(),
                   chunks = $3, chunks_processed = $4, chunks_failed = $5, retries = $6,
                   staged = $7, inserted = $8, updated = $9, deleted = $10, unchanged = $11, skipped = $12, rejected = $13, handed = $17,
                   error_class = COALESCE(error_class, $14), sqlstate = COALESCE(sqlstate, $15), error = COALESCE(error, $16)
               WHERE run_id = $1 AND ended_at IS NULL RETURNING run_id";
    let counts = &tally.counts;
    let (chunks, processed, failed) = (count(tally.chunks), count(tally.processed), count(tally.failed));
    let row = connection
        .query_opt(
            sql,
            &[
                (&run, Type::INT8),
                (&status.as_str(), Type::TEXT),
                (&chunks, Type::INT4),
                (&processed, Type::INT4),
                (&failed, Type::INT4),
                (&tally.retries, Type::INT8),
                (&counts.staged, Type::INT8),
                (&counts.inserted, Type::INT8),
                (&counts.updated, Type::INT8),
                (&counts.deleted, Type::INT8),
                (&counts.unchanged, Type::INT8),
                (&counts.skipped, Type::INT8),
                (&counts.rejected, Type::INT8),
                (&class, Type::TEXT),
                (&why.and_then(|failure| failure.sqlstate.as_deref()), Type::TEXT),
                (&why.map(Failure::message), Type::TEXT),
                (&counts.handed, Type::INT8),
            ],
        )
        .await?;
    if row.is_some() {
        hold::end(connection, run).await?;
    }
    Ok(row.is_some())
}

/// Opens a run again for a new owner, in a new round. Its chunks must have been made due before.
///
/// # Errors
/// When another run keeps it out.
pub async fn reopen(connection: &Connection, run: &Run, owner: &str) -> Result<(), Failure> {
    let round_limit = run.round + int(run.spec.retry.rounds);
    let sql =
        "UPDATE stagemill.run SET status = 'RUNNING', ended_at = NULL, owner = $2, round_limit = $3, halted = NULL, tuning = NULL,
                   -- What a limit had slowed down starts at its full pace: who looks after it now knows of no hold.
                   allowed = CASE WHEN auto THEN allowed END, error_class = NULL, sqlstate = NULL, error = NULL
               WHERE run_id = $1";
    let params: [Param<'_>; 3] = [(&run.id, Type::INT8), (&owner, Type::TEXT), (&round_limit, Type::INT4)];
    connection.query(sql, &params).await.map_err(|failure| match failure.sqlstate.as_deref() {
        Some("23505") => Failure::new(Class::AlreadyRunning, "another run of the job, or on its tables, is open"),
        _ => failure,
    })?;
    hold::lift(connection, run.id, hold::LIMITS).await?;
    Ok(())
}

/// The newest run of a job.
///
/// # Errors
/// What the server or the connection says.
pub async fn newest(connection: &Connection, job: &str) -> Result<Option<i64>, Failure> {
    let row = connection
        .query_one("SELECT pg_catalog.max(run_id) FROM stagemill.run WHERE job = $1", &[(&job, Type::TEXT)])
        .await?;
    Ok(row.get(0))
}

fn to_json(value: &impl Serialize) -> Result<serde_json::Value, Failure> {
    serde_json::to_value(value).map_err(|_| Failure::new(Class::Internal, "a value for the ledger is not JSON"))
}

fn int(n: u32) -> i32 {
    i32::try_from(n).unwrap_or(i32::MAX)
}

fn count(n: i64) -> i32 {
    i32::try_from(n).unwrap_or(i32::MAX)
}
