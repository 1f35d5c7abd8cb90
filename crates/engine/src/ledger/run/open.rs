//! Opening a run, and the open run that keeps another one out.

use std::time::Duration;

use tokio_postgres::types::Type;

use super::{super::pace, int, to_json};
use crate::{
    failure::{Class, Failure},
    job::Job,
    mapping::Mapping,
    outcome::Status,
    pg::{Connection, Param},
};

/// An execution's run without a sign of life for so long has lost its owner: longer than a Lambda's 15 minutes and the longest wait
/// between two calls, when no session is there.
const EXECUTION_STALE_AFTER: Duration = Duration::from_secs(20 * 60);

/// A command line keeps a session while it plans and drives; this is longer than its reconnecting takes.
const SESSION_STALE_AFTER: Duration = Duration::from_secs(60);

/// A run to be opened.
#[derive(Debug)]
pub struct NewRun<'a> {
    /// Who may go on with it.
    pub owner: &'a str,
    /// The event that started it, if one did.
    pub trigger_id: Option<&'a str>,
    /// The jobs that its execution starts after it.
    pub followed_by: &'a [String],
    /// The job.
    pub job: &'a Job,
    /// What it means here.
    pub mapping: &'a Mapping,
}

/// What opening a run came to.
#[derive(Debug)]
pub enum Opened {
    /// A new run.
    New(i64),
    /// The run that this trigger started before.
    Duplicate(i64),
    /// An open run that keeps this one out.
    Taken(OpenRun),
}

/// An open run, as the next one finds it.
#[derive(Debug, Clone)]
pub struct OpenRun {
    /// Its id.
    pub id: i64,
    /// Its job's name.
    pub job: String,
    /// Its owner.
    pub owner: String,
    /// How it stands.
    pub status: Status,
    /// Seconds since it gave a sign of life, by the server's clock.
    pub silent: Duration,
    /// A session that works on it.
    pub backend: Option<i32>,
}

impl OpenRun {
    /// Whether somebody is working on it, or may come back to.
    pub fn is_alive(&self) -> bool {
        self.backend.is_some() || (self.status != Status::Interrupted && self.silent < self.stale_after())
    }

    /// Whether a state machine's execution owns it, rather than a command line.
    pub fn is_execution(&self) -> bool {
        super::owner::execution(&self.owner).is_some()
    }

    /// The silence after which a run without a session counts as dead.
    pub fn stale_after(&self) -> Duration {
        if self.is_execution() { EXECUTION_STALE_AFTER } else { SESSION_STALE_AFTER }
    }
}

/// Opens a run. Its row is committed before planning starts: a second start would otherwise wait for the first one's plan.
///
/// # Errors
/// What the server or the connection says.
pub async fn open(connection: &Connection, new: &NewRun<'_>) -> Result<Opened, Failure> {
    let (stage, target) = (new.mapping.stage.to_string(), new.mapping.target.to_string());
    let mapping = to_json(new.mapping)?;
    let (parallelism, rounds) = (int(new.job.parallelism.most()), int(new.job.retry.rounds));
    let auto = new.job.parallelism.is_auto();
    let allowed = auto.then(|| parallelism.min(pace::FIRST_TRIED));
    let deadline = new.job.deadline_minutes.map(f64::from);
    let params: [Param<'_>; 14] = [
        (&new.job.name, Type::TEXT),
        (&new.owner, Type::TEXT),
        (&new.trigger_id, Type::TEXT),
        (&new.job.to_value(), Type::JSONB),
        (&mapping, Type::JSONB),
        (&stage, Type::TEXT),
        (&target, Type::TEXT),
        (&new.job.share_tables, Type::BOOL),
        (&parallelism, Type::INT4),
        (&rounds, Type::INT4),
        (&auto, Type::BOOL),
        (&allowed, Type::INT4),
        (&deadline, Type::FLOAT8),
        (&new.followed_by, Type::TEXT_ARRAY),
    ];
    if let Some(other) = in_the_way(connection, new, &stage, &target).await? {
        return Ok(other);
    }
    // Asked first and not only caught, since a refused insert uses up an id.
    let sql = "INSERT INTO stagemill.run (job, owner, trigger_id, spec, mapping, stage_table, target_table, shares_tables, parallelism, round_limit,
                                      auto, allowed, deadline_at, followed_by)
               VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, pg_catalog.clock_timestamp() + $13 * interval '1 minute', $14)
               ON CONFLICT DO NOTHING RETURNING run_id";
    if let Some(row) = connection.query_opt(sql, &params).await? {
        return Ok(Opened::New(row.get(0)));
    }
    // Another start was quicker in this moment. When it has ended since, the caller may try again at once.
    let gone = || Failure::new(Class::Contention, "another run of the job ended at this moment");
    in_the_way(connection, new, &stage, &target).await?.ok_or_else(gone)
}

/// The run that keeps a new one out.
async fn in_the_way(
    connection: &Connection,
    new: &NewRun<'_>,
    stage: &str,
    target: &str,
) -> Result<Option<Opened>, Failure> {
    let sql = "SELECT run_id FROM stagemill.run WHERE job = $1 AND (trigger_id = $2 OR $2 = ANY (coalesced_triggers)) LIMIT 1";
    if let Some(row) = connection.query_opt(sql, &[(&new.job.name, Type::TEXT), (&new.trigger_id, Type::TEXT)]).await? {
        return Ok(Some(Opened::Duplicate(row.get(0))));
    }
    let sql = "SELECT run_id FROM stagemill.run
               WHERE ended_at IS NULL AND (job = $1 OR (stage_table = $2 AND target_table = $3 AND NOT shares_tables AND NOT $4))
               ORDER BY job = $1 DESC LIMIT 1";
    let params: [Param<'_>; 4] =
        [(&new.job.name, Type::TEXT), (&stage, Type::TEXT), (&target, Type::TEXT), (&new.job.share_tables, Type::BOOL)];
    match connection.query_opt(sql, &params).await? {
        Some(row) => Ok(Some(Opened::Taken(open_run(connection, row.get(0)).await?))),
        None => Ok(None),
    }
}

/// Reads how an open run looks to another one that wants its place.
///
/// # Errors
/// What the server or the connection says.
pub async fn open_run(connection: &Connection, id: i64) -> Result<OpenRun, Failure> {
    let sql = "SELECT s.run_id, s.job, s.owner, s.status,
                      GREATEST(0, EXTRACT(epoch FROM pg_catalog.clock_timestamp() - s.heartbeat_at))::float8,
                      (SELECT a.pid FROM pg_catalog.pg_stat_activity a
                       WHERE a.datname = pg_catalog.current_database() AND a.pid <> pg_catalog.pg_backend_pid()
                         AND pg_catalog.starts_with(a.application_name, 'stagemill:' || s.run_id || ':') LIMIT 1)
               FROM stagemill.run_status s WHERE s.run_id = $1";
    let row = connection.query_one(sql, &[(&id, Type::INT8)]).await?;
    Ok(OpenRun {
        id: row.get(0),
        job: row.get(1),
        owner: row.get(2),
        status: Status::parse(row.get(3)).unwrap_or(Status::Running),
        silent: Duration::try_from_secs_f64(row.get(4)).unwrap_or_default(),
        backend: row.get(5),
    })
}
