//! The gate: looks after a run while it goes, so that it neither runs the server over nor its deadline out.
//!
//! Workers ask nobody here: each claim of a chunk looks at holds and at how many are allowed (`ledger::chunk::claim`). What is decided here is
//! what they find there: a hold while one of the job's limits is exceeded, fewer chunks at a time afterwards, the best number for
//! `"parallelism": "auto"`. The local driver looks after its run in a task of its own, executors do before a chunk, whoever comes when it is time.

mod limits;
mod tuner;

use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio_postgres::types::Type;

pub use limits::check as check_limits;
pub use tuner::Tuner;

use crate::{
    failure::{Class, Failure},
    ledger::{self, hold, pace::Pace, run::Run},
    pg::Connection,
};

/// Limits are looked at this often.
const LIMITS_EVERY: f64 = 1.0;

/// A hold of the limits outlives whoever looks after the run by so long.
const HOLD_LASTS: Duration = Duration::from_secs(60);

/// After a hold the run goes on at half its pace, and gains a quarter each time this long has passed without another one.
const FASTER_AFTER: f64 = 30.0;

/// The predicted end is looked at this often.
const DEADLINE_EVERY: f64 = 10.0;

/// How often it is time to look after a run.
pub const EVERY: Duration = Duration::from_secs(1);

/// As [`EVERY`], while the best number of chunks at a time is still to be found.
pub const EVERY_WHILE_TUNING: Duration = Duration::from_millis(50);

/// What whoever looks after the run next has to know; stored with the run.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
struct Memory {
    /// When the limits were looked at.
    limits_at: f64,
    /// Since when they hold the run back.
    held_since: Option<f64>,
    /// When it may go faster again.
    faster_at: Option<f64>,
    /// When the predicted end was looked at.
    deadline_at: f64,
    tuner: Tuner,
}

/// A deadline that will probably be missed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AtRisk {
    /// Seconds by which it will be missed.
    pub late_seconds: f64,
}

/// What looking after a run came to.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Tended {
    /// Set when its deadline is found to be at risk, once a run.
    pub at_risk: Option<AtRisk>,
    /// Whether the best number of chunks at a time is being looked for.
    pub tuning: bool,
}

/// Looks after a run. `None` where there is nothing to look after, or somebody has in the last `every`.
///
/// # Errors
/// What the server or the connection says, or that limits have held the run back for longer than its job allows: then it was halted.
pub async fn tend(connection: &Connection, run: &Run, every: Duration) -> Result<Option<Tended>, Failure> {
    if run.spec.limits.is_none() && !run.spec.parallelism.is_auto() && run.spec.deadline_minutes.is_none() {
        return Ok(None);
    }
    let Some(mut turn) = Turn::take(connection, run.id, every).await? else { return Ok(None) };
    let before = turn.memory.clone();
    if !run.spec.limits.is_none() && turn.now - turn.memory.limits_at >= LIMITS_EVERY {
        turn.limits(connection, run).await?;
    }
    if turn.tunes() {
        turn.tune(connection, run).await?;
    }
    let mut at_risk = None;
    if turn.watches_deadline && turn.now - turn.memory.deadline_at >= DEADLINE_EVERY {
        turn.memory.deadline_at = turn.now;
        at_risk = look_at_deadline(connection, run.id).await?;
    }
    if turn.memory != before {
        let memory = serde_json::to_value(&turn.memory).unwrap_or_default();
        let sql = "UPDATE stagemill.run SET tuning = $2 WHERE run_id = $1";
        connection.query(sql, &[(&run.id, Type::INT8), (&memory, Type::JSONB)]).await?;
    }
    Ok(Some(Tended { at_risk, tuning: turn.tunes() }))
}

/// The right to look after a run, and how it stands.
struct Turn {
    /// The server's clock, seconds.
    now: f64,
    pace: Pace,
    memory: Memory,
    /// Whether there is a deadline that nobody has been warned of.
    watches_deadline: bool,
}

impl Turn {
    async fn take(connection: &Connection, run: i64, every: Duration) -> Result<Option<Self>, Failure> {
        let sql = "UPDATE stagemill.run r SET tended_at = pg_catalog.clock_timestamp()
                   FROM (SELECT run_id FROM stagemill.run
                         WHERE run_id = $1 AND status = 'RUNNING'
                           AND (tended_at IS NULL OR tended_at <= pg_catalog.clock_timestamp() - $2 * interval '1 second')
                         FOR UPDATE SKIP LOCKED) due
                   WHERE r.run_id = due.run_id
                   RETURNING EXTRACT(epoch FROM pg_catalog.clock_timestamp())::float8, r.tuning,
                             r.deadline_at IS NOT NULL AND r.at_risk_at IS NULL";
        let row = connection.query_opt(sql, &[(&run, Type::INT8), (&every.as_secs_f64(), Type::FLOAT8)]).await?;
        let Some(row) = row else { return Ok(None) };
        // A memory of another version is worth nothing: it is made anew.
        let memory = row.get::<_, Option<serde_json::Value>>(1).and_then(|memory| serde_json::from_value(memory).ok());
        Ok(Some(Self {
            now: row.get(0),
            pace: ledger::pace::read(connection, run).await?,
            memory: memory.unwrap_or_default(),
            watches_deadline: row.get(2),
        }))
    }

    /// Sets a hold while a limit is exceeded; afterwards the run goes on slower, and gains speed step by step.
    async fn limits(&mut self, connection: &Connection, run: &Run) -> Result<(), Failure> {
        self.memory.limits_at = self.now;
        let exceeded = limits::exceeded(connection, run.id, &run.spec.limits, &run.mapping.settings).await?;
        if let Some(reason) = exceeded {
            let since = *self.memory.held_since.get_or_insert(self.now);
            hold::set(connection, run.id, hold::LIMITS, &reason, Some(HOLD_LASTS)).await?;
            return self.abort_if_asked(connection, run, since, &reason).await;
        }
        if self.memory.held_since.take().is_some() {
            hold::lift(connection, run.id, hold::LIMITS).await?;
            self.memory.faster_at = Some(self.now + FASTER_AFTER);
            // Rows a second that were counted across the hold would say nothing.
            self.memory.tuner = Tuner::default();
            let half = (self.pace.allowed.unwrap_or(self.pace.parallelism) / 2).max(1);
            return self.allow(connection, run.id, Some(half), "slower after a limit held it back").await;
        }
        if self.memory.faster_at.is_some_and(|at| self.now >= at) {
            let now = self.pace.allowed.unwrap_or(self.pace.parallelism);
            let faster = now + (now / 4).max(1);
            let whole = faster >= self.pace.parallelism;
            // A run that finds the number itself goes on from here by itself.
            self.memory.faster_at = (!whole && !self.pace.auto).then_some(self.now + FASTER_AFTER);
            if !self.pace.auto {
                let reason = "faster again: no limit was exceeded for 30 s";
                return self.allow(connection, run.id, (!whole).then_some(faster), reason).await;
            }
        }
        Ok(())
    }

    async fn abort_if_asked(
        &self,
        connection: &Connection,
        run: &Run,
        since: f64,
        reason: &str,
    ) -> Result<(), Failure> {
        let Some(minutes) = run.spec.limits.abort_after_minutes else { return Ok(()) };
        if self.now - since < f64::from(minutes) * 60.0 {
            return Ok(());
        }
        let text = format!("held back for {minutes} min by its limits ({reason}), after which its job asks for an end");
        let failure = Failure::new(Class::Stopped, text);
        ledger::run::stop(connection, run.id, &failure).await?;
        Err(failure)
    }

    /// Whether the best number of chunks at a time is being looked for: not while a limit holds the run back or has just slowed it down, nor for
    /// a while after one was found.
    fn tunes(&self) -> bool {
        let Memory { held_since, faster_at, tuner, .. } = &self.memory;
        self.pace.auto && held_since.is_none() && faster_at.is_none() && !tuner.keeps(self.now)
    }

    async fn tune(&mut self, connection: &Connection, run: &Run) -> Result<(), Failure> {
        let allowed = self.pace.allowed.unwrap_or(self.pace.parallelism);
        let seen = tuner::look(connection, run.id, self.now).await?;
        if let Some((to, reason)) = self.memory.tuner.step(allowed, self.pace.parallelism, &seen) {
            self.allow(connection, run.id, Some(to), &reason).await?;
        }
        Ok(())
    }

    async fn allow(
        &mut self,
        connection: &Connection,
        run: i64,
        allowed: Option<u32>,
        reason: &str,
    ) -> Result<(), Failure> {
        ledger::pace::allow(connection, run, &self.pace, allowed, reason).await?;
        self.pace.allowed = allowed;
        tracing::info!(run, allowed = allowed.unwrap_or(self.pace.parallelism), "{reason}");
        Ok(())
    }
}

/// Whether the run will miss its deadline; the first to find it says so.
async fn look_at_deadline(connection: &Connection, run: i64) -> Result<Option<AtRisk>, Failure> {
    // A guess from the first few chunks of many would cry wolf.
    let sql = "UPDATE stagemill.run r SET at_risk_at = pg_catalog.clock_timestamp()
               FROM (SELECT run_id, EXTRACT(epoch FROM COALESCE(predicted_end, pg_catalog.clock_timestamp()) - deadline_at)::float8 AS late
                     FROM stagemill.run_status
                     WHERE run_id = $1 AND ended_at IS NULL AND (processed * 20 >= chunks OR pg_catalog.clock_timestamp() > deadline_at)) s
               WHERE r.run_id = s.run_id AND s.late > 0 AND r.at_risk_at IS NULL RETURNING s.late";
    let row = connection.query_opt(sql, &[(&run, Type::INT8)]).await?;
    Ok(row.map(|row| AtRisk { late_seconds: row.get(0) }))
}
