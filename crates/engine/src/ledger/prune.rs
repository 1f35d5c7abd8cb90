//! Deleting old runs. A run goes as a whole, with its rounds and chunks, so that what is left of the ledger is always true.

use std::time::Duration;

use serde::Serialize;
use tokio_postgres::{Row, types::Type};

use crate::{
    failure::Failure,
    outcome::Status,
    pg::{Connection, Param},
};

/// Runs are deleted, and committed, until their chunks are as many as this together; a run has at most 500,000.
const CHUNKS_A_BATCH: i64 = 50_000;

/// And no more runs than this at a time.
const RUNS_A_BATCH: i64 = 1_000;

/// What is old: runs that ended before a moment, of one job or of all. The moment is the server's, and the same for every batch.
#[derive(Debug, Clone)]
pub struct Old {
    /// Runs of this job only.
    pub job: Option<String>,
    /// The moment, in seconds since 1970.
    before: f64,
}

/// Runs that were deleted, or would be.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Pruned {
    /// How many runs.
    pub runs: i64,
    /// How many chunks they had.
    pub chunks: i64,
    /// When the first of them started, ISO 8601.
    pub from: Option<String>,
    /// When the last of them ended, ISO 8601.
    pub to: Option<String>,
}

impl Pruned {
    /// Adds a later batch.
    fn add(&mut self, batch: Self) {
        self.runs += batch.runs;
        self.chunks += batch.chunks;
        // Texts in UTC of one length: their order is that of time.
        self.from = [self.from.take(), batch.from].into_iter().flatten().min();
        self.to = self.to.take().max(batch.to);
    }
}

/// A run that is old and stays all the same.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Kept {
    /// Its id.
    pub run: i64,
    /// Its job's name.
    pub job: String,
    /// How it ended. A complete one is the job's last one that is, or the last one of a watermark; any other is the job's newest run, which `resume` may go on with.
    pub status: Status,
}

/// The runs that may go. Each has a newer one of its job, so that none can be resumed and none becomes the newest; and what a job last
/// completed, and up to where a watermark was taken (`ledger::run::last_high`), stays known.
const PRUNABLE: &str = "r.ended_at < pg_catalog.to_timestamp($1) AND ($2::text IS NULL OR r.job = $2)
    AND EXISTS (SELECT FROM stagemill.run n WHERE n.job = r.job AND n.run_id > r.run_id)
    AND (r.status NOT IN ('COMPLETE', 'COMPLETE_WITH_REJECTS')
         OR EXISTS (SELECT FROM stagemill.run n
                    WHERE n.job = r.job AND n.run_id > r.run_id AND n.status IN ('COMPLETE', 'COMPLETE_WITH_REJECTS')
                      AND (r.window_high IS NULL
                           OR (n.window_high IS NOT NULL AND n.stage_table = r.stage_table
                               AND n.mapping #>> '{window,column,column}' = r.mapping #>> '{window,column,column}'))))";

const TOTALS: &str = "pg_catalog.count(*), COALESCE(pg_catalog.sum(chunks), 0)::int8,
    pg_catalog.to_char(pg_catalog.min(started_at) AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"'),
    pg_catalog.to_char(pg_catalog.max(ended_at) AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"')";

fn totals(row: &Row) -> Pruned {
    Pruned { runs: row.get(0), chunks: row.get(1), from: row.get(2), to: row.get(3) }
}

impl Old {
    /// What is older than this now, by the server's clock.
    ///
    /// # Errors
    /// What the server or the connection says.
    pub async fn than(connection: &Connection, age: Duration, job: Option<String>) -> Result<Self, Failure> {
        let sql = "SELECT EXTRACT(epoch FROM pg_catalog.clock_timestamp())::float8 - $1";
        let before = connection.query_one(sql, &[(&age.as_secs_f64(), Type::FLOAT8)]).await?.get(0);
        Ok(Self { job, before })
    }

    fn params(&self) -> [Param<'_>; 2] {
        [(&self.before, Type::FLOAT8), (&self.job, Type::TEXT)]
    }

    /// Counts what would be deleted.
    ///
    /// # Errors
    /// What the server or the connection says.
    pub async fn count(&self, connection: &Connection) -> Result<Pruned, Failure> {
        let sql = format!("SELECT {TOTALS} FROM stagemill.run r WHERE {PRUNABLE}");
        Ok(totals(&connection.query_one(&sql, &self.params()).await?))
    }

    /// Deletes it, oldest first, batch by batch: what was deleted stays so when a later batch fails.
    ///
    /// # Errors
    /// What the server or the connection says.
    pub async fn delete(&self, connection: &Connection) -> Result<Pruned, Failure> {
        let mut all = Pruned::default();
        loop {
            let batch = self.delete_batch(connection).await?;
            if batch.runs == 0 {
                return Ok(all);
            }
            tracing::debug!(runs = batch.runs, chunks = batch.chunks, "runs deleted");
            all.add(batch);
        }
    }

    async fn delete_batch(&self, connection: &Connection) -> Result<Pruned, Failure> {
        let sql = format!(
            "WITH old AS (SELECT r.run_id, pg_catalog.sum(COALESCE(r.chunks, 0)) OVER (ORDER BY r.run_id) - COALESCE(r.chunks, 0) AS chunks_before
                          FROM stagemill.run r WHERE {PRUNABLE} ORDER BY r.run_id LIMIT {RUNS_A_BATCH}),
                  gone AS (DELETE FROM stagemill.run r USING old
                           WHERE r.run_id = old.run_id AND old.chunks_before < {CHUNKS_A_BATCH} AND r.ended_at IS NOT NULL
                           RETURNING r.chunks, r.started_at, r.ended_at)
             SELECT {TOTALS} FROM gone"
        );
        Ok(totals(&connection.query_one(&sql, &self.params()).await?))
    }

    /// The runs that are old and stay.
    ///
    /// # Errors
    /// What the server or the connection says.
    pub async fn kept(&self, connection: &Connection) -> Result<Vec<Kept>, Failure> {
        let sql = format!(
            "SELECT r.run_id, r.job, r.status FROM stagemill.run r
             WHERE r.ended_at < pg_catalog.to_timestamp($1) AND ($2::text IS NULL OR r.job = $2) AND NOT ({PRUNABLE}) ORDER BY r.run_id"
        );
        let kept = |row: &Row| Kept {
            run: row.get(0),
            job: row.get(1),
            status: Status::parse(row.get(2)).unwrap_or(Status::Failed),
        };
        Ok(connection.query(&sql, &self.params()).await?.iter().map(kept).collect())
    }
}
