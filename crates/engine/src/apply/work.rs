//! The work transaction: fence, statement, counts and PROCESSED, COMMIT.

use std::time::{Duration, Instant};

use tokio_postgres::Row;

use crate::{
    account::{Found, account},
    chunk::Range,
    failure::{self, Class, Failure},
    job::Operation,
    ledger::{
        self,
        chunk::{Claimed, Done},
    },
    mapping::Mapping,
    outcome::Counts,
    pg::Connection,
    settings::{self, Settings},
    statement::{self, Source},
};

/// From this attempt on a chunk that met others on its rows locks them first.
const LOCKED_FIRST_FROM: i32 = 3;

/// The time that a chunk has.
#[derive(Debug, Clone, Copy)]
pub(super) struct Clock {
    started: Instant,
    limit: Duration,
    /// Whether the chunk is the first of its call, and has all the time there can be.
    pub(super) fresh: bool,
}

impl Clock {
    pub(super) fn start(limit: Duration, fresh: bool) -> Self {
        Self { started: Instant::now(), limit, fresh }
    }

    pub(super) fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    fn left(&self) -> Duration {
        self.limit.saturating_sub(self.elapsed())
    }

    /// Whether the time that is left, and not the job, sets the statement timeout.
    pub(super) fn is_cut_short(&self, settings: &Settings) -> bool {
        settings::is_cut_short(settings, self.limit)
    }
}

/// What goes on inside the transaction of one chunk.
#[derive(Debug, Clone, Copy)]
pub(super) struct Work<'a> {
    pub(super) connection: &'a Connection,
    pub(super) mapping: &'a Mapping,
    pub(super) chunk: &'a Claimed,
    pub(super) clock: Clock,
}

/// Applies a chunk as a whole. `None` when it went to another worker, or the run is being closed.
pub(super) async fn whole(work: Work<'_>) -> Result<Option<Done>, Failure> {
    transaction(work, async |work| work.all().await).await
}

/// Runs what is done with a chunk in its transaction, once the fence is passed; `None` when it is not.
pub(super) async fn transaction(
    work: Work<'_>,
    inside: impl AsyncFnOnce(Work<'_>) -> Result<Done, Failure>,
) -> Result<Option<Done>, Failure> {
    let done = match work.begin().await {
        Ok(true) => inside(work).await.map(Some),
        Ok(false) => Ok(None),
        Err(failure) => Err(failure),
    };
    work.connection.end(done).await
}

impl Work<'_> {
    /// Opens the transaction and passes the fence; false when the chunk is no longer ours, or the run is being closed.
    async fn begin(&self) -> Result<bool, Failure> {
        let chunk = self.chunk;
        // Behind a pooler the claim's process id is not the worker's: only the name tells who is at work.
        let name = format!("SET LOCAL application_name = 'stagemill:{}:{}:{}';\n", chunk.run, chunk.id, chunk.attempt);
        let settings = settings::set_local(&self.mapping.settings, self.clock.left());
        let begin = format!("BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE;\n{name}{settings}");
        ledger::chunk::fence(self.connection, &begin, chunk).await
    }

    async fn all(&self) -> Result<Done, Failure> {
        let again = self.take_rejects().await?;
        if self.mapping.operation == Operation::Sql {
            return self.statements().await;
        }
        if self.deadlocks() {
            let sql = statement::lock(self.mapping, &self.chunk.range);
            self.timed(self.connection.query(&sql, &[])).await?;
            self.reset_timeout("").await?;
        }
        let (mut counts, superseded) = self.apply(Source::Chunk(&self.chunk.range)).await?;
        if let Some(taken) = again {
            counts = retried(counts, superseded, taken)?;
        }
        self.finish(Done { counts, statement_rows: None }).await
    }

    /// Whether the chunk has met others on its rows again and again: then they are locked first, in an order that no plan changes.
    fn deadlocks(&self) -> bool {
        self.mapping.operation.updates()
            && self.chunk.attempt >= LOCKED_FIRST_FROM
            && self.chunk.last_class == Some(format!("{:?}", Class::Contention))
    }

    /// Marks the rows that this chunk tries again, where it is one for rows that were set aside. Returns how many.
    pub(super) async fn take_rejects(&self) -> Result<Option<i64>, Failure> {
        match self.chunk.range {
            Range::Rejects { .. } => ledger::reject::take(self.connection, self.mapping, self.chunk).await.map(Some),
            _ => Ok(None),
        }
    }

    /// Applies rows of the chunk, and accounts for them. Returns also how many of them a newer change superseded.
    pub(super) async fn apply(&self, source: Source<'_>) -> Result<(Counts, i64), Failure> {
        let sql = statement::apply(self.mapping, source);
        let rows = self.timed(self.connection.query(&sql, &[])).await?;
        let found = rows.first().map(found).unwrap_or_default();
        Ok((account(self.mapping, &found)?, found.superseded))
    }

    /// The user's own statements, each sent alone.
    async fn statements(&self) -> Result<Done, Failure> {
        let sql = statement::count_rows(self.mapping, &self.chunk.range);
        let staged: i64 = self.timed(self.connection.query_one(&sql, &[])).await?.get(0);
        let mut statement_rows = Vec::new();
        for sql in statement::statements(self.mapping, &self.chunk.range) {
            self.reset_timeout("").await?;
            let rows = self.timed(self.connection.execute(&sql)).await?;
            statement_rows.push(i64::try_from(rows).unwrap_or(i64::MAX));
        }
        let counts = Counts { staged, handed: staged, ..Counts::default() };
        self.finish(Done { counts, statement_rows: Some(statement_rows) }).await
    }

    /// Cuts the statement timeout to the time that is left now: it is per statement. Sent behind `first`.
    pub(super) async fn reset_timeout(&self, first: &str) -> Result<(), Failure> {
        let limit = settings::statement_timeout(&self.mapping.settings, self.clock.left());
        self.connection.batch(&format!("{first}SET LOCAL statement_timeout = '{}ms'", limit.as_millis())).await?;
        Ok(())
    }

    /// Tells our own timeout from a person's cancel.
    pub(super) async fn timed<T>(&self, statement: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
        let (started, limit) = (Instant::now(), settings::statement_timeout(&self.mapping.settings, self.clock.left()));
        statement.await.map_err(|failure| match failure.sqlstate.as_deref() {
            Some("57014") if failure.class == Class::Stopped => {
                failure.as_class(failure::cancelled(started.elapsed(), limit))
            }
            _ => failure,
        })
    }

    /// Writes the counts, unless they are not what the plan allows.
    pub(super) async fn finish(&self, done: Done) -> Result<Done, Failure> {
        if let Some(limit) = self.chunk.delete_limit.filter(|limit| done.counts.deleted > *limit) {
            let text = format!(
                "the chunk would delete {} rows, {limit} were counted when the run was planned: {} has changed since",
                done.counts.deleted, self.mapping.stage
            );
            return Err(Failure::new(Class::SourceChanged, text));
        }
        if ledger::chunk::finish(self.connection, self.chunk, &done).await? {
            return Ok(done);
        }
        let text = format!(
            "{} was rewritten since the run was planned (VACUUM FULL, CLUSTER or TRUNCATE)",
            self.mapping.stage
        );
        Err(Failure::new(Class::SourceChanged, text))
    }
}

/// The counts of rows that were set aside before: what a newer change of theirs superseded was counted then.
pub(super) fn retried(counts: Counts, superseded: i64, taken: i64) -> Result<Counts, Failure> {
    let counts = Counts { staged: counts.staged - superseded, skipped: counts.skipped - superseded, ..counts };
    if counts.staged == taken {
        return Ok(counts);
    }
    let text =
        format!("{taken} rows were to be tried again, {} were found: the stage changed at this moment", counts.staged);
    Err(Failure::new(Class::Contention, text))
}

fn found(row: &Row) -> Found {
    Found {
        staged: row.get("staged"),
        superseded: row.get("superseded"),
        unusable: row.get("unusable"),
        ties: row.get("ties"),
        duplicates: row.get("duplicates"),
        deletes: row.get("deletes"),
        missing: row.get("missing"),
        kept: row.get("kept"),
        stale: row.get("stale"),
        same: row.get("same"),
        inserted: row.get("inserted"),
        updated: row.get("updated"),
        deleted: row.get("deleted"),
    }
}
