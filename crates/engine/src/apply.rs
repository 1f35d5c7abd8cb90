//! The executor: applies chunks, each in one transaction that also writes the chunk's ledger row.
//!
//! A worker can die at any point. Before COMMIT nothing has happened, and the chunk's row shows an attempt that nobody is alive on; after
//! COMMIT the row says PROCESSED with the counts, whether the answer arrived or not. So a retry begins by claiming the chunk anew: the ledger
//! knows, and nobody has to guess.

mod bisect;
mod middle;
mod work;

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use tokio_util::sync::CancellationToken;

use crate::{
    chunk::Item,
    failure::{Class, Failure},
    gate::{self, AtRisk},
    ledger::{
        self,
        chunk::{Claim, Claimed, Done, Due},
        run::Run,
    },
    outcome::Counts,
    pg::Connection,
    retry::{self, Next, Tried},
};
use work::{Clock, Work};

/// A worker: a session, the run it works on, and its name in the ledger.
#[derive(Debug, Clone, Copy)]
pub struct Worker<'a> {
    /// Its session.
    pub connection: &'a Connection,
    /// The run.
    pub run: &'a Run,
    /// Its name, for people.
    pub name: &'a str,
    /// Its number among the workers of one process, from 1, which looks after the run itself. `None` for one that knows of no others: it counts
    /// what is in flight, and looks after the run when nobody else has.
    pub rank: Option<u32>,
}

/// When a worker stops by itself.
#[derive(Debug, Clone, Default)]
pub struct Stop {
    /// No chunk is started, and no statement runs, after this.
    pub deadline: Option<Instant>,
    /// Cancelled when somebody asks for an end.
    pub asked: CancellationToken,
}

/// Without a deadline a statement's own timeout is the bound.
const NO_DEADLINE: Duration = Duration::from_secs(24 * 3600);

/// Less time than this is not worth a claim.
const SHORTEST_START: Duration = Duration::from_millis(250);

impl Stop {
    /// The time that is left; `None` when no chunk should be started any more.
    pub fn time_left(&self) -> Option<Duration> {
        if self.asked.is_cancelled() {
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
    /// The run's deadline will probably be missed.
    AtRisk(AtRisk),
    /// The run goes faster or slower, is held back, or goes on.
    Pace {
        /// How many chunks may be in flight.
        allowed: u32,
        /// Why none is started.
        held: Option<&'a str>,
    },
}

/// What is left of an item.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Left {
    /// The planned chunks of which something was not reached.
    pub chunks: Vec<i32>,
    /// Whether that is because the run is held back.
    pub held_back: bool,
}

/// Applies the chunks of an item that are due, until they are done, it is time to stop, or the run is held back.
///
/// # Errors
/// A failure that calls for a fresh start: retryable ones are tried again by the caller (what is done stays done), others end the run.
pub async fn item(worker: Worker<'_>, item: &Item, stop: &Stop, report: &dyn Fn(Report<'_>)) -> Result<Left, Failure> {
    let due = ledger::chunk::due(worker.connection, item.run, item.round, item.first, item.last).await?;
    let mut queue = VecDeque::from(due);
    let (mut held, mut fresh, mut tended) = (Vec::new(), true, None);
    while let Some(due) = queue.pop_front() {
        tend(worker, &mut tended, report).await?;
        let step = match stop.time_left() {
            Some(left) => chunk(worker, due.id, item.round, Clock::start(left, fresh), report).await?,
            None => Step::OutOfTime,
        };
        fresh = false;
        match step {
            Step::GoOn => {}
            Step::Held => held.push(due),
            Step::Halves(halves) => halves.into_iter().rev().for_each(|id| queue.push_front(Due { id, ..due })),
            Step::OutOfTime | Step::HeldBack => {
                let mut chunks: Vec<i32> = held.into_iter().chain([due]).chain(queue).map(|due| due.root).collect();
                chunks.sort_unstable();
                chunks.dedup();
                return Ok(Left { chunks, held_back: matches!(step, Step::HeldBack) });
            }
        }
    }
    match held.first() {
        // Last, so that it kept no other chunk waiting.
        Some(Due { id, .. }) => {
            Err(Failure::new(Class::StillRunning, format!("another worker is alive on chunk {id} of run {}", item.run)))
        }
        None => Ok(Left::default()),
    }
}

/// Looks after the run, where nobody else does for this worker and it is time again.
async fn tend(worker: Worker<'_>, tended: &mut Option<Instant>, report: &dyn Fn(Report<'_>)) -> Result<(), Failure> {
    if worker.rank.is_some() || tended.is_some_and(|at| at.elapsed() < gate::EVERY) {
        return Ok(());
    }
    *tended = Some(Instant::now());
    if let Some(at_risk) =
        gate::tend(worker.connection, worker.run, gate::EVERY).await?.and_then(|tended| tended.at_risk)
    {
        report(Report::AtRisk(at_risk));
    }
    Ok(())
}

enum Step {
    GoOn,
    Held,
    /// It was too slow, and these are in its place.
    Halves([i32; 2]),
    /// The deadline cut the statement off.
    OutOfTime,
    /// Nothing is to be started now.
    HeldBack,
}

/// One attempt at one chunk.
async fn chunk(
    worker: Worker<'_>,
    id: i32,
    round: i32,
    clock: Clock,
    report: &dyn Fn(Report<'_>),
) -> Result<Step, Failure> {
    let claim = ledger::chunk::claim(worker.connection, worker.run.id, (id, round), worker.name, worker.rank);
    let claimed = match claim.await? {
        Claim::Ours(claimed) => *claimed,
        Claim::NotDue | Claim::UsedUp => return Ok(Step::GoOn),
        Claim::Held => return Ok(Step::Held),
        Claim::HeldBack => return Ok(Step::HeldBack),
        Claim::RunClosed => return Err(closed(worker.run.id)),
    };
    let mapping = &worker.run.mapping;
    let work = Work { connection: worker.connection, mapping, chunk: &claimed, clock };
    let mut applied = work::whole(work).await;
    if let Err(failure) = &applied
        && failure.class.is_of_rows()
        && mapping.reject_limit.is_some()
        && next(worker, &claimed, round, failure.class, false) == Next::Fail
    {
        applied = bisect::apply(work).await;
    }
    match applied {
        Ok(Some(Done { counts, .. })) => {
            report(Report::Applied { chunk: id, counts, took: clock.elapsed() });
            Ok(Step::GoOn)
        }
        Ok(None) => Ok(Step::Held),
        // Not the chunk's fault, unless it had the whole time for itself: it is due in this round, and the next call has all its time for it.
        Err(failure) if failure.class == Class::TimedOut && !clock.fresh && clock.is_cut_short(&mapping.settings) => {
            ledger::chunk::give_back(worker.connection, &claimed).await?;
            Ok(Step::OutOfTime)
        }
        Err(failure) => attempt_failed(worker, &claimed, round, failure, report).await,
    }
}

fn closed(run: i64) -> Failure {
    Failure::new(Class::RunClosed, format!("run {run} was closed, halted or taken over"))
}

fn next(worker: Worker<'_>, chunk: &Claimed, round: i32, class: Class, divisible: bool) -> Next {
    let deferred = chunk.last_class.as_deref() == Some(format!("{class:?}").as_str()) && round > 1;
    let last_round = round >= worker.run.round_limit;
    let (attempt, attempt_limit) = (chunk.attempt, chunk.attempt_limit);
    retry::next(class, Tried { attempt, attempt_limit, deferred, last_round, divisible })
}

/// Records an attempt that failed, and says whether the worker goes on with the next chunk.
async fn attempt_failed(
    worker: Worker<'_>,
    chunk: &Claimed,
    round: i32,
    failure: Failure,
    report: &dyn Fn(Report<'_>),
) -> Result<Step, Failure> {
    if worker.connection.is_closed() {
        report(Report::Failed { chunk: chunk.id, attempt: chunk.attempt, failure: &failure, next: Next::Retry });
        return Err(failure.as_class(Class::ConnectionLost));
    }
    let halves = match failure.class {
        Class::TimedOut => middle::halves(worker.connection, &worker.run.mapping, chunk).await?,
        _ => None,
    };
    let next = next(worker, chunk, round, failure.class, halves.is_some());
    report(Report::Failed { chunk: chunk.id, attempt: chunk.attempt, failure: &failure, next });
    if let (Next::Split, Some(halves)) = (next, halves) {
        let halves = ledger::chunk::split(worker.connection, chunk, halves, &failure).await?;
        return Ok(halves.map_or(Step::Held, Step::Halves));
    }
    if !ledger::chunk::fail(worker.connection, chunk, &failure, next, round).await? {
        // It went to another worker, whose run a failure of ours must not halt.
        return Ok(Step::Held);
    }
    match next {
        Next::NextRound | Next::Fail | Next::Split => Ok(Step::GoOn),
        Next::Retry => Err(failure),
        Next::Halt => {
            ledger::run::halt(worker.connection, chunk.run, round, &failure).await?;
            Err(failure)
        }
    }
}
