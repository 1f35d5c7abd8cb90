//! Looks for the bad rows of a chunk, sets them aside, and applies the others, all in the chunk's one transaction.
//!
//! Halves are tried in savepoints, each released or rolled back before the next: of n rows one bad one costs at most 2 * log2(n) statements.

use tokio_postgres::types::Type;

use super::work::{self, Work, retried};
use crate::{
    account::{self, Found},
    failure::{Class, Failure, WANTS_ANOTHER_ROW},
    job::StageRows,
    ledger::{self, chunk::Done, reject::Rejected},
    outcome::Counts,
    statement::{self, FROZEN, Source},
};

/// No more rows than this are kept waiting in a chunk: one in which all are bad is to be given up in time.
const MOST_WAITING: usize = 1_000;

/// Applies a chunk that holds bad rows. `None` when it went to another worker, or the run is being closed.
pub(super) async fn apply(work: Work<'_>) -> Result<Option<Done>, Failure> {
    work::transaction(work, async |work| in_transaction(work).await).await
}

async fn in_transaction(work: Work<'_>) -> Result<Done, Failure> {
    let Work { connection, mapping, chunk, .. } = work;
    let again = work.take_rejects().await?;
    work.timed(connection.batch(&statement::freeze(mapping, &chunk.range))).await?;
    let numbers = connection.query(&format!("SELECT \"stagemill number\" FROM {FROZEN} ORDER BY 1"), &[]).await?;
    let staged = numbers.len();
    let numbers: Vec<i64> = numbers.iter().filter_map(|row| row.get(0)).collect();
    refuse_contradictions(work).await?;

    let superseded = i64::try_from(staged - numbers.len()).unwrap_or(i64::MAX);
    // As far as it is known now, so that the search ends in time; it is counted again before anything is set aside.
    let before = ledger::reject::count(connection, chunk.run).await?;
    let allowed = mapping.reject_limit.unwrap_or(0) - before;
    let mut search =
        Search { work, numbers, allowed, waiting: Vec::new(), rejected: Vec::new(), counts: Counts::default() };
    Box::pin(search.among(0, search.numbers.len(), true)).await?;
    search.again().await?;

    let Search { rejected, mut counts, .. } = search;
    if !rejected.is_empty() {
        let limit = mapping.reject_limit.unwrap_or(0);
        let before = ledger::reject::open(connection, chunk.run).await?;
        if before + i64::try_from(rejected.len()).unwrap_or(i64::MAX) > limit {
            return Err(too_many(limit, &rejected));
        }
    }
    counts.rejected = i64::try_from(rejected.len()).unwrap_or(i64::MAX);
    counts.staged += counts.rejected + superseded;
    counts.skipped += superseded;
    ledger::reject::write(connection, mapping, chunk, &rejected).await?;
    if mapping.stage_rows == StageRows::Delete {
        empty_stage(work, &rejected, counts.staged - counts.rejected).await?;
    }
    if let Some(taken) = again {
        counts = retried(counts, superseded, taken)?;
    }
    work.finish(Done { counts, statement_rows: None }).await
}

/// What no row by itself is to blame for: it would not be seen in halves.
async fn refuse_contradictions(work: Work<'_>) -> Result<(), Failure> {
    let Some(sql) = statement::contradictions(work.mapping) else { return Ok(()) };
    let row = work.timed(work.connection.query_one(&sql, &[])).await?;
    let found = Found { duplicates: row.get("duplicates"), ties: row.get("ties"), ..Found::default() };
    match account::contradiction(work.mapping, &found) {
        Some(failure) => Err(failure),
        None => Ok(()),
    }
}

struct Search<'a> {
    work: Work<'a>,
    /// The numbers of the frozen rows that are tried.
    numbers: Vec<i64>,
    /// So many more rows may be set aside.
    allowed: i64,
    /// Rows that may want others, which come later.
    waiting: Vec<(usize, Failure)>,
    rejected: Vec<Rejected>,
    counts: Counts,
}

impl Search<'_> {
    /// Applies the rows from the `first` to before the `end`-th, and sets the bad ones aside. `known_bad` says that a bad one must be among them.
    /// Returns whether one was.
    async fn among(&mut self, first: usize, end: usize, known_bad: bool) -> Result<bool, Failure> {
        if first >= end {
            return Ok(false);
        }
        let alone = end - first == 1;
        if !known_bad || alone {
            match self.attempt(first, end).await? {
                Ok(counts) => {
                    self.counts += counts;
                    return Ok(false);
                }
                Err(failure) if alone && may_fit_later(&failure) && self.waiting.len() < MOST_WAITING => {
                    self.waiting.push((first, failure));
                    return Ok(true);
                }
                Err(failure) if alone => {
                    self.set_aside(first, failure)?;
                    return Ok(true);
                }
                Err(_) => {}
            }
        }
        let middle = first + (end - first) / 2;
        let in_first_half = Box::pin(self.among(first, middle, false)).await?;
        Box::pin(self.among(middle, end, !in_first_half)).await?;
        Ok(true)
    }

    /// Tries rows again that may have wanted others, until that gets no more of them in: as a whole the chunk had its children and their parents
    /// at one time.
    async fn again(&mut self) -> Result<(), Failure> {
        let mut before = usize::MAX;
        while !self.waiting.is_empty() && self.waiting.len() < before {
            before = self.waiting.len();
            for (at, _) in std::mem::take(&mut self.waiting) {
                match self.attempt(at, at + 1).await? {
                    Ok(counts) => self.counts += counts,
                    Err(failure) => self.waiting.push((at, failure)),
                }
            }
        }
        for (at, failure) in std::mem::take(&mut self.waiting) {
            self.set_aside(at, failure)?;
        }
        Ok(())
    }

    /// Applies rows in a savepoint. A failure that no row is to blame for is the outer error.
    async fn attempt(&self, first: usize, end: usize) -> Result<Result<Counts, Failure>, Failure> {
        let connection = self.work.connection;
        self.work.reset_timeout("SAVEPOINT stagemill;\n").await?;
        let source = Source::Frozen(self.numbers[first], self.numbers[end - 1]);
        match self.work.apply(source).await {
            Ok((counts, _)) => {
                connection.batch("RELEASE SAVEPOINT stagemill").await?;
                Ok(Ok(counts))
            }
            Err(failure) if failure.class.is_of_rows() => {
                connection.batch("ROLLBACK TO SAVEPOINT stagemill; RELEASE SAVEPOINT stagemill").await?;
                Ok(Err(failure))
            }
            Err(failure) => Err(failure),
        }
    }

    fn set_aside(&mut self, at: usize, failure: Failure) -> Result<(), Failure> {
        self.rejected.push(Rejected { number: self.numbers[at], failure });
        if i64::try_from(self.rejected.len()).unwrap_or(i64::MAX) <= self.allowed {
            return Ok(());
        }
        Err(too_many(self.work.mapping.reject_limit.unwrap_or(0), &self.rejected))
    }
}

fn may_fit_later(failure: &Failure) -> bool {
    failure.sqlstate.as_deref().is_some_and(|code| WANTS_ANOTHER_ROW.contains(&code))
}

fn too_many(limit: i64, rejected: &[Rejected]) -> Failure {
    let last = rejected.last().map(|rejected| rejected.failure.to_string()).unwrap_or_default();
    let text = format!("more than max_rejects ({limit}) rows would have to be set aside; the last one: {last}");
    Failure::new(Class::LimitExceeded, text)
}

/// Deletes what was applied from the stage: the very rows that were frozen, or none.
async fn empty_stage(work: Work<'_>, rejected: &[Rejected], expected: i64) -> Result<(), Failure> {
    let numbers: Vec<i64> = rejected.iter().map(|rejected| rejected.number).collect();
    let mut deleted = 0;
    for leaf in &work.mapping.stage_leaves {
        let sql = statement::delete_frozen(leaf);
        work.reset_timeout("").await?;
        let rows = work.timed(work.connection.query(&sql, &[(&numbers, Type::INT8_ARRAY)])).await?;
        deleted += i64::try_from(rows.len()).unwrap_or(i64::MAX);
    }
    if deleted == expected {
        return Ok(());
    }
    let text =
        format!("{expected} staged rows were applied, {deleted} of them are still there: another session changed them");
    Err(Failure::new(Class::Contention, text))
}
