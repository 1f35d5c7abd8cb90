//! Runs as people see them, while they run and afterwards.

use serde::Serialize;
use tokio_postgres::{Row, types::Type};

use crate::{
    failure::{Class, Failure},
    outcome::{Counts, Status, Tally},
    pg::Connection,
};

/// A run as people see it.
#[derive(Debug, Clone, Serialize)]
pub struct Summary {
    /// Its id.
    pub run: i64,
    /// Its job's name.
    pub job: String,
    /// How it stands.
    pub status: Status,
    /// The role that started it.
    pub started_by: String,
    /// When it started, ISO 8601.
    pub started_at: String,
    /// When it ended, ISO 8601.
    pub ended_at: Option<String>,
    /// Seconds from its start to its end, or until now.
    pub seconds: f64,
    /// Seconds since its last sign of life; `None` when it has ended.
    pub silent_seconds: Option<f64>,
    /// The round it is in.
    pub round: i32,
    /// How many chunks may be applied at a time.
    pub parallelism: i32,
    /// Whether the run finds the best number itself.
    pub auto: bool,
    /// How many may be applied at a time now.
    pub allowed: i32,
    /// Why nothing is started now.
    pub held: Option<String>,
    /// Seconds for which it has been held back, in all.
    pub held_seconds: f64,
    /// When it has to be done, ISO 8601.
    pub deadline_at: Option<String>,
    /// When it will probably be done, ISO 8601.
    pub predicted_end: Option<String>,
    /// Seconds by which it will probably miss its deadline, or has; below 0 for time to spare.
    pub late_seconds: Option<f64>,
    /// Whether it was done in time; of an open run, `false` when it can't be any more.
    pub deadline_met: Option<bool>,
    /// Whether another start came meanwhile, so that one more run follows.
    pub rerun_requested: bool,
    /// The stage table.
    pub stage: String,
    /// The target table.
    pub target: String,
    /// Its chunks.
    #[serde(flatten)]
    pub tally: Tally,
    /// Of a job with statements of its own: the rows that each of them reported.
    pub statement_rows: Option<Vec<i64>>,
    /// Of a job with a watermark: its rows are above this.
    pub window_low: Option<String>,
    /// Of a job with a watermark: its rows are up to and including this.
    pub window_high: Option<String>,
    /// Staged rows that no chunk holds: the job's own ranges leave them out.
    pub outside: i64,
    /// Rows of its window that came or changed since it was planned, where that was counted.
    pub new_rows: Option<i64>,
    /// Rows of its window, counted again at its end where the job asks for that.
    pub recounted: Option<i64>,
    /// Why it is not complete: the class's name.
    pub error_class: Option<String>,
    /// The server's code for it.
    pub sqlstate: Option<String>,
    /// Why, in a text without row values.
    pub error: Option<String>,
}

const SUMMARY: &str = "
SELECT run_id, job, status, started_by,
       pg_catalog.to_char(started_at AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"'),
       pg_catalog.to_char(ended_at AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"'),
       EXTRACT(epoch FROM COALESCE(ended_at, pg_catalog.clock_timestamp()) - started_at)::float8,
       CASE WHEN ended_at IS NULL THEN EXTRACT(epoch FROM pg_catalog.clock_timestamp() - heartbeat_at)::float8 END,
       round, parallelism, stage_table, target_table,
       chunks, processed, failed, remaining, retries, staged, inserted, updated, deleted, unchanged, skipped, rejected, handed,
       window_low, window_high, outside, new_rows, recounted, error_class, sqlstate, error, statement_rows,
       auto, allowed, held, held_seconds,
       pg_catalog.to_char(deadline_at AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"'),
       pg_catalog.to_char(predicted_end AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"'),
       EXTRACT(epoch FROM COALESCE(ended_at, GREATEST(predicted_end, pg_catalog.clock_timestamp())) - deadline_at)::float8,
       deadline_met, rerun_requested
FROM stagemill.run_status";

fn summary(row: &Row) -> Summary {
    Summary {
        run: row.get(0),
        job: row.get(1),
        status: Status::parse(row.get(2)).unwrap_or(Status::Failed),
        started_by: row.get(3),
        started_at: row.get(4),
        ended_at: row.get(5),
        seconds: row.get(6),
        silent_seconds: row.get(7),
        round: row.get(8),
        parallelism: row.get(9),
        auto: row.get(34),
        allowed: row.get(35),
        held: row.get(36),
        held_seconds: row.get(37),
        deadline_at: row.get(38),
        predicted_end: row.get(39),
        late_seconds: row.get(40),
        deadline_met: row.get(41),
        rerun_requested: row.get(42),
        stage: row.get(10),
        target: row.get(11),
        tally: tally(row, 12),
        statement_rows: row.get(33),
        window_low: row.get(25),
        window_high: row.get(26),
        outside: row.get(27),
        new_rows: row.get(28),
        recounted: row.get(29),
        error_class: row.get(30),
        sqlstate: row.get(31),
        error: row.get(32),
    }
}

fn tally(row: &Row, at: usize) -> Tally {
    let n = |offset: usize| row.get::<_, i64>(at + offset);
    Tally {
        chunks: n(0),
        processed: n(1),
        failed: n(2),
        left: n(3),
        retries: n(4),
        counts: Counts {
            staged: n(5),
            inserted: n(6),
            updated: n(7),
            deleted: n(8),
            unchanged: n(9),
            skipped: n(10),
            rejected: n(11),
            handed: n(12),
        },
    }
}

/// A run as people see it.
///
/// # Errors
/// When there is none of that id.
pub async fn of_run(connection: &Connection, id: i64) -> Result<Summary, Failure> {
    let row = connection.query_opt(&format!("{SUMMARY} WHERE run_id = $1"), &[(&id, Type::INT8)]).await?;
    row.as_ref().map(summary).ok_or_else(|| {
        Failure::new(Class::BadJob, format!("there is no run {id}: `stagemill status` shows those there are"))
    })
}

/// The newest runs, of one job or of all.
///
/// # Errors
/// What the server or the connection says.
pub async fn list(connection: &Connection, job: Option<&str>, limit: i64) -> Result<Vec<Summary>, Failure> {
    let sql = format!("{SUMMARY} WHERE $1 IS NULL OR job = $1 ORDER BY run_id DESC LIMIT $2");
    Ok(connection.query(&sql, &[(&job, Type::TEXT), (&limit, Type::INT8)]).await?.iter().map(summary).collect())
}
