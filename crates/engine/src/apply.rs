//! The executor: applies chunks, each in one transaction that also writes the chunk's ledger row.
//!
//! A worker can die at any point. Before COMMIT nothing has happened, and the chunk's row shows an attempt that nobody is alive on; after
//! COMMIT the row says PROCESSED with the counts, whether the answer arrived or not. So a retry begins by claiming the chunk anew: the ledger
//! knows, and nobody has to guess.

use std::time::{Duration, Instant};

use tokio_postgres::SimpleQueryMessage;

use crate::{
    chunk::Item,
    failure::{self, Class, Failure},
    job::{Existing, Operation},
    ledger::{
        self,
        chunk::{Claim, Claimed},
        run::Run,
    },
    mapping::Mapping,
    outcome::Counts,
    pg::Connection,
    plan::duplicate_keys,
    retry::{self, Next},
    settings, statement,
};

/// A worker: a session, the run it works on, and its name in the ledger.
#[derive(Debug, Clone, Copy)]
pub struct Worker<'a> {
    /// Its session.
    pub connection: &'a Connection,
    /// The run.
    pub run: &'a Run,
    /// Its name, for people.
    pub name: &'a str,
}

/// When a worker stops by itself.
#[derive(Debug, Clone, Default)]
pub struct Stop {
    /// No chunk is started, and no statement runs, after this.
    pub deadline: Option<Instant>,
    /// Set when somebody asks for an end.
    pub asked: Option<tokio::sync::watch::Receiver<bool>>,
}

/// Without a deadline a statement's own timeout is the bound.
const NO_DEADLINE: Duration = Duration::from_secs(24 * 3600);

/// Less time than this is not worth a claim.
const SHORTEST_START: Duration = Duration::from_millis(250);

impl Stop {
    /// The time that is left; `None` when no chunk should be started any more.
    pub fn time_left(&self) -> Option<Duration> {
        if self.asked.as_ref().is_some_and(|asked| *asked.borrow()) {
            return None;
        }
        match self.deadline {
            Some(deadline) => deadline.checked_duration_since(Instant::now()).filter(|left| *left >= SHORTEST_START),
            None => Some(NO_DEADLINE),
        }
    }
}

/// What a worker reports as it goes.
#[derive(Debug)]
pub enum Report<'a> {
    /// A chunk was applied.
    Applied {
        /// Its id.
        chunk: i32,
        /// Its rows.
        counts: Counts,
        /// From claim to COMMIT.
        took: Duration,
    },
    /// An attempt failed.
    Failed {
        /// The chunk's id.
        chunk: i32,
        /// Which attempt it was.
        attempt: i32,
        /// Why.
        failure: &'a Failure,
        /// What follows.
        next: Next,
    },
}

/// Applies the chunks of an item that are due, until they are done or it is time to stop. Returns the chunks it did not reach.
///
/// # Errors
/// A failure that calls for a fresh start: retryable ones are tried again by the caller (what is done stays done), others end the run.
pub async fn item(
    worker: Worker<'_>,
    item: &Item,
    stop: &Stop,
    report: &dyn Fn(Report<'_>),
) -> Result<Vec<i32>, Failure> {
    let due = ledger::chunk::due(worker.connection, item.run, item.round, item.first, item.last).await?;
    let mut held = None;
    for (n, id) in due.iter().enumerate() {
        let Some(time_left) = stop.time_left() else {
            return Ok(left(held, due.get(n..)));
        };
        match chunk(worker, *id, item.round, time_left, report).await? {
            Step::GoOn => {}
            Step::Held => held = Some(*id),
            Step::OutOfTime => return Ok(left(held, due.get(n..))),
        }
    }
    match held {
        // Last, so that it kept no other chunk waiting.
        Some(id) => {
            Err(Failure::new(Class::StillRunning, format!("another worker is alive on chunk {id} of run {}", item.run)))
        }
        None => Ok(Vec::new()),
    }
}

/// What was not reached: the chunks from here on, and one before them that somebody held.
fn left(held: Option<i32>, from_here: Option<&[i32]>) -> Vec<i32> {
    held.into_iter().chain(from_here.unwrap_or_default().iter().copied()).collect()
}

enum Step {
    GoOn,
    Held,
    /// The deadline cut the statement off.
    OutOfTime,
}

/// One attempt at one chunk.
async fn chunk(
    worker: Worker<'_>,
    id: i32,
    round: i32,
    time_left: Duration,
    report: &dyn Fn(Report<'_>),
) -> Result<Step, Failure> {
    let started = Instant::now();
    let claimed = match ledger::chunk::claim(worker.connection, worker.run.id, id, round, worker.name).await? {
        Claim::Ours(claimed) => *claimed,
        Claim::NotDue | Claim::UsedUp => return Ok(Step::GoOn),
        Claim::Held => return Ok(Step::Held),
        Claim::RunClosed => return Err(closed(worker.run.id)),
    };
    match work(worker.connection, &worker.run.mapping, &claimed, time_left).await {
        Ok(Some(counts)) => {
            report(Report::Applied { chunk: id, counts, took: started.elapsed() });
            Ok(Step::GoOn)
        }
        Ok(None) => Ok(Step::Held),
        Err(failure)
            if failure.class == Class::TimedOut && settings::is_cut_short(&worker.run.mapping.settings, time_left) =>
        {
            // Not the chunk's fault: it is due in this round, and the next call has all its time for it.
            ledger::chunk::fail(worker.connection, &claimed, &failure, Next::Retry, round).await?;
            Ok(Step::OutOfTime)
        }
        Err(failure) => attempt_failed(worker, &claimed, round, failure, report).await,
    }
}

fn closed(run: i64) -> Failure {
    Failure::new(Class::RunClosed, format!("run {run} was closed, halted or taken over"))
}

/// The work transaction. `None` when the chunk went to another worker, or the run is being closed.
async fn work(
    connection: &Connection,
    mapping: &Mapping,
    chunk: &Claimed,
    time_left: Duration,
) -> Result<Option<Counts>, Failure> {
    // Behind a pooler the claim's process id is not the worker's: only the name tells who is at work.
    let name = format!("SET LOCAL application_name = 'stagemill:{}:{}:{}';\n", chunk.run, chunk.id, chunk.attempt);
    let settings = settings::set_local(&mapping.settings, time_left);
    let lock = ledger::chunk::lock_run(chunk.run);
    let begun =
        connection.batch(&format!("BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE;\n{name}{settings}{lock}")).await;
    let counts = match begun {
        Ok(answers) if !said_yes(&answers) => Ok(None),
        Ok(_) => in_transaction(connection, mapping, chunk, time_left).await,
        Err(failure) => Err(failure),
    };
    connection.end(counts).await
}

/// The answer to the last statement of a batch: `t` for true.
fn said_yes(answers: &[SimpleQueryMessage]) -> bool {
    let rows = answers.iter().filter_map(|answer| match answer {
        SimpleQueryMessage::Row(row) => row.get(0),
        _ => None,
    });
    rows.last() == Some("t")
}

async fn in_transaction(
    connection: &Connection,
    mapping: &Mapping,
    chunk: &Claimed,
    time_left: Duration,
) -> Result<Option<Counts>, Failure> {
    if !ledger::chunk::fence(connection, chunk).await? {
        return Ok(None);
    }
    let sql = statement::apply(mapping, &chunk.range);
    let started = Instant::now();
    let row = connection.query_one(&sql, &[]).await.map_err(|failure| match failure.sqlstate.as_deref() {
        Some("57014") => {
            let limit = settings::statement_timeout(&mapping.settings, time_left);
            let class = failure::cancelled(started.elapsed(), limit);
            failure.as_class(class)
        }
        _ => failure,
    })?;
    let counts = reconcile(mapping, row.get("staged"), row.get("inserted"), row.get("updated"), row.get("duplicates"))?;
    if ledger::chunk::finish(connection, chunk, &counts).await? {
        Ok(Some(counts))
    } else {
        let text =
            format!("{} was rewritten since the run was planned (VACUUM FULL, CLUSTER or TRUNCATE)", mapping.stage);
        Err(Failure::new(Class::SourceChanged, text))
    }
}

/// Accounts for every staged row of a chunk, or says why that can't be done.
fn reconcile(mapping: &Mapping, staged: i64, inserted: i64, updated: i64, duplicates: i64) -> Result<Counts, Failure> {
    if duplicates > 0 {
        return Err(duplicate_keys(mapping, duplicates));
    }
    let skipped = match mapping.operation {
        Operation::Update => staged - updated,
        Operation::Insert if mapping.existing == Existing::Skip => staged - inserted,
        Operation::Insert | Operation::Upsert => 0,
    };
    let counts = Counts { staged, inserted, updated, skipped, ..Counts::default() };
    if counts.add_up() && skipped >= 0 {
        Ok(counts)
    } else {
        let text = format!(
            "{staged} rows staged, {inserted} inserted and {updated} updated do not add up: another session wrote the same keys, a trigger suppressed rows, or a key changes when it is stored"
        );
        Err(Failure::new(Class::Contention, text))
    }
}

/// Records an attempt that failed, and says whether the worker goes on with the next chunk.
async fn attempt_failed(
    worker: Worker<'_>,
    chunk: &Claimed,
    round: i32,
    failure: Failure,
    report: &dyn Fn(Report<'_>),
) -> Result<Step, Failure> {
    let deferred = chunk.last_class.as_deref() == Some(format!("{:?}", failure.class).as_str()) && round > 1;
    let next = retry::next(failure.class, chunk.attempt, chunk.attempt_limit, deferred);
    report(Report::Failed { chunk: chunk.id, attempt: chunk.attempt, failure: &failure, next });
    if worker.connection.is_closed() {
        return Err(failure.as_class(Class::ConnectionLost));
    }
    if !ledger::chunk::fail(worker.connection, chunk, &failure, next, round).await? {
        // It went to another worker, whose run a failure of ours must not halt.
        return Ok(Step::Held);
    }
    match next {
        Next::NextRound | Next::Fail => Ok(Step::GoOn),
        Next::Retry => Err(failure),
        Next::Halt => {
            ledger::run::halt(worker.connection, chunk.run, round, &failure).await?;
            Err(failure)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mapping(operation: Operation, existing: Existing) -> Mapping {
        use crate::ident::{Ident, TableName};
        let table = TableName { schema: None, name: Ident::exact("t") };
        Mapping {
            stage: table.clone(),
            stage_columns: vec![],
            stage_leaves: vec![],
            target: table,
            filter: None,
            operation,
            existing,
            key: vec![],
            assignments: vec![],
            cut: vec![],
            keys_are_unique: false,
            overrides_identity: false,
            settings: settings::Settings::new(),
        }
    }

    #[test]
    fn every_staged_row_is_accounted_for_or_the_chunk_is_rolled_back() {
        let class = |operation, existing, [staged, inserted, updated, duplicates]: [i64; 4]| {
            reconcile(&mapping(operation, existing), staged, inserted, updated, duplicates)
                .map(|c| c.skipped)
                .map_err(|f| f.class)
        };
        assert_eq!(class(Operation::Upsert, Existing::Skip, [5, 2, 3, 0]), Ok(0));
        assert_eq!(class(Operation::Upsert, Existing::Skip, [5, 2, 2, 0]), Err(Class::Contention));
        assert_eq!(class(Operation::Upsert, Existing::Skip, [5, 2, 3, 1]), Err(Class::DuplicateKeys));
        assert_eq!(class(Operation::Update, Existing::Skip, [5, 0, 3, 0]), Ok(2));
        assert_eq!(class(Operation::Update, Existing::Skip, [5, 0, 6, 0]), Err(Class::Contention));
        assert_eq!(class(Operation::Insert, Existing::Skip, [5, 4, 0, 0]), Ok(1));
        assert_eq!(class(Operation::Insert, Existing::Error, [5, 5, 0, 0]), Ok(0));
        assert_eq!(class(Operation::Insert, Existing::Error, [5, 4, 0, 0]), Err(Class::Contention));
    }
}
