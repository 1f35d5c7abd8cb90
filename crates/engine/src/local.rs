//! The local driver: does on one machine what the state machine does on AWS, with the same planner, executor and recorder.

mod board;

use std::time::{Duration, Instant};

use futures_util::{StreamExt, stream::FuturesUnordered};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::{
    answer::{Answer, Step},
    apply::{self, Left, Report, Stop, Worker},
    chunk::Item,
    failure::{Class, Failure},
    gate::{self, Tended},
    ledger::{self, run::Run, summary::Summary},
    pg::{Connection, Server},
    record,
    retry::Backoff,
};
use board::Board;

/// Tries of one item, or of one call to the recorder, that move nothing, before it is left to the next round.
const TRIES: u32 = 8;

/// How a driven run ended.
#[derive(Debug)]
pub enum Ended {
    /// It was closed.
    Closed(Box<Summary>),
    /// Somebody asked for an end: what was in flight has finished, and `resume` goes on.
    Interrupted(Box<Summary>),
}

/// What became of an item.
enum Worked {
    /// It is done, or left to the next round.
    Done,
    /// The worker has to wait.
    HeldBack,
    /// The worker works no more.
    Leaves,
}

/// Where and how a run is driven.
pub struct Driver<'a> {
    /// The server.
    pub server: &'a Server,
    /// The name of this process in the ledger: the run's owner.
    pub worker: &'a str,
    /// Cancelled to ask for an end.
    pub stop: CancellationToken,
    /// Told of each chunk.
    pub report: &'a (dyn Fn(Report<'_>) + Sync),
}

impl Driver<'_> {
    /// Drives a run from an answer of the planner (or of resume) to its end.
    ///
    /// # Errors
    /// When the server could not be reached for long.
    pub async fn run(&self, mut answer: Answer) -> Result<Ended, Failure> {
        // Its session tells others that somebody drives this run.
        let control = self.connect(answer.run, "driver").await?;
        let run = ledger::run::load(&control, answer.run).await?;
        let mut control = Some(control);
        while answer.status == Step::Round {
            self.round(&run, &answer, &mut control).await;
            if self.stop.is_cancelled()
                && let Some(summary) = self.interrupted(&run).await?
            {
                return Ok(Ended::Interrupted(summary));
            }
            answer = self.record(&run, answer.round).await?;
        }
        let control = self.connect(run.id, "driver").await?;
        Ok(Ended::Closed(Box::new(ledger::summary::of_run(&control, run.id).await?)))
    }

    async fn connect(&self, run: i64, role: &str) -> Result<Connection, Failure> {
        persist(async || self.server.connect(&format!("stagemill:{run}:{role}")).await, &self.stop).await
    }

    /// The Map: items are taken by as many workers as are allowed. What a worker could not do is left to the recorder's judgement.
    async fn round(&self, run: &Run, answer: &Answer, control: &mut Option<Connection>) {
        // Until the first look at the ledger, a moment later.
        let first = if run.spec.parallelism.is_auto() { 1 } else { answer.max_concurrency };
        let (board, _) = watch::channel(Board::new(&answer.items, first));
        tokio::join!(self.workers(run, &board), self.look_after(run, &board, control));
    }

    /// As many workers as there should be at any time.
    async fn workers(&self, run: &Run, board: &watch::Sender<Board>) {
        let mut seen = board.subscribe();
        let mut working = FuturesUnordered::new();
        let mut started = 0;
        loop {
            let (wanted, over) = {
                let board = seen.borrow_and_update();
                (board.wanted(), board.is_over())
            };
            while started < wanted {
                started += 1;
                working.push(self.worker(run, started, board));
            }
            tokio::select! {
                ended = working.next(), if !working.is_empty() => {
                    if ended.is_some() && working.is_empty() {
                        // Whatever is left has nobody any more.
                        board.send_modify(|board| board.closed = true);
                        return;
                    }
                }
                _ = seen.changed(), if !over => {}
                else => return,
            }
        }
    }

    async fn worker(&self, run: &Run, rank: u32, board: &watch::Sender<Board>) {
        let name = format!("{}/{rank}", self.worker);
        let mut session = None;
        while let Some((item, place)) = self.take(rank, board, &mut session).await {
            match self.item(run, &name, place, &item, &mut session).await {
                Worked::Done => board.send_modify(Board::finish),
                Worked::HeldBack => {
                    board.send_modify(|board| board.give_back(item));
                    // Soon the driver's own look at the ledger tells the board.
                    tokio::time::sleep(gate::EVERY / 4).await;
                }
                Worked::Leaves => return board.send_modify(|board| board.leave(rank)),
            }
        }
    }

    /// The next item of a worker, and its rank among those that are there; none at the end of the round.
    async fn take(
        &self,
        rank: u32,
        board: &watch::Sender<Board>,
        session: &mut Option<Connection>,
    ) -> Option<(Item, u32)> {
        let mut seen = board.subscribe();
        loop {
            let mut taken = None;
            board.send_if_modified(|board| {
                taken = board.take(rank);
                taken.is_some()
            });
            if taken.is_some() {
                return taken;
            }
            if board.borrow().is_over() || self.stop.is_cancelled() {
                return None;
            }
            // Whoever waits keeps no session from others.
            *session = None;
            tokio::select! {
                changed = seen.changed() => changed.ok()?,
                () = self.stop.cancelled() => {}
            }
        }
    }

    /// Looks after the run, and tells the board how fast it may go, until the round is over.
    async fn look_after(&self, run: &Run, board: &watch::Sender<Board>, control: &mut Option<Connection>) {
        let mut seen = board.subscribe();
        let (mut failed, mut tuning) = (0, run.spec.parallelism.is_auto());
        while !board.borrow().is_over() && !self.stop.is_cancelled() {
            let began = Instant::now();
            match self.look(run, board, control).await {
                Ok(tended) => {
                    failed = 0;
                    tuning = tended.map_or(tuning, |tended| tended.tuning);
                }
                Err(failure) => {
                    tracing::warn!(run = run.id, failure = %failure, "the run could not be looked after");
                    *control = None;
                    failed += 1;
                }
            }
            if failed > TRIES {
                // Workers that wait would wait for ever.
                board.send_modify(|board| board.closed = true);
            }
            // Where there are very many chunks, or the processors are busy, a look takes a while: it may use a seventh of the time while there is
            // something to find, otherwise a twentieth.
            let took = began.elapsed();
            let searches = tuning && !board.borrow().is_held();
            let pause = if searches { gate::EVERY_WHILE_TUNING.max(took * 6) } else { gate::EVERY.max(took * 20) };
            let over = seen.wait_for(Board::is_over);
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                _ = over => {}
                () = self.stop.cancelled() => {}
            }
        }
    }

    async fn look(
        &self,
        run: &Run,
        board: &watch::Sender<Board>,
        control: &mut Option<Connection>,
    ) -> Result<Option<Tended>, Failure> {
        let connection = match control.take().filter(|control| !control.is_closed()) {
            Some(connection) => connection,
            None => self.server.connect(&format!("stagemill:{}:driver", run.id)).await?,
        };
        let tended = match gate::tend(&connection, run, gate::EVERY_WHILE_TUNING / 2).await {
            Ok(tended) => tended,
            Err(failure) if failure.class == Class::ConnectionLost => return Err(failure),
            Err(failure) => {
                tracing::warn!(run = run.id, "{failure}");
                None
            }
        };
        if let Some(at_risk) = tended.and_then(|tended| tended.at_risk) {
            (self.report)(Report::AtRisk(at_risk));
        }
        let pace = ledger::pace::read(&connection, run.id).await?;
        let hold = ledger::hold::in_force(&connection, run.id).await?.into_iter().next().map(|hold| hold.reason);
        *control = Some(connection);
        let allowed = pace.allowed.unwrap_or(pace.parallelism);
        let changed = board.send_if_modified(|board| board.is_told(allowed, hold.clone(), !pace.open));
        if changed {
            (self.report)(Report::Pace { allowed, held: hold.as_deref() });
        }
        Ok(tended)
    }

    /// Works on one item until it is done, given up for this round, or the worker has to wait or leave.
    async fn item(&self, run: &Run, name: &str, rank: u32, item: &Item, session: &mut Option<Connection>) -> Worked {
        let mut tries = 0;
        let applied = std::sync::atomic::AtomicU32::new(0);
        let report = |event: Report<'_>| {
            if matches!(event, Report::Applied { .. }) {
                applied.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            }
            (self.report)(event);
        };
        loop {
            let failure = match self.attempt(run, (name, rank), item, session, &report).await {
                Ok(left) if left.chunks.is_empty() => return Worked::Done,
                Ok(left) if left.held_back => return Worked::HeldBack,
                Ok(_) => return Worked::Leaves,
                Err(failure) => failure,
            };
            if failure.class == Class::ConnectionLost {
                // Not always closed: a demoted writer still answers, and a new connection resolves the host again.
                *session = None;
            }
            if !failure.class.is_retryable() {
                tracing::info!(run = run.id, worker = name, failure = %failure, "a worker stops");
                return Worked::Leaves;
            }
            // Progress earns new patience.
            tries = if applied.swap(0, std::sync::atomic::Ordering::Relaxed) > 0 { 1 } else { tries + 1 };
            if tries > TRIES {
                tracing::warn!(run = run.id, worker = name, failure = %failure, "chunks are left to the next round");
                return Worked::Done;
            }
            if session.is_none() {
                // Nobody reports a chunk that was not begun: without a word, a run without a server looks like a slow one.
                tracing::warn!(run = run.id, worker = name, failure = %failure, "a worker has no session and tries again");
            }
            if wait(failure.class, tries, &self.stop).await.is_break() {
                return Worked::Leaves;
            }
        }
    }

    async fn attempt(
        &self,
        run: &Run,
        (name, rank): (&str, u32),
        item: &Item,
        session: &mut Option<Connection>,
        report: &dyn Fn(Report<'_>),
    ) -> Result<Left, Failure> {
        let connection = match session.take().filter(|connection| !connection.is_closed()) {
            Some(connection) => connection,
            None => self.server.connect(&format!("stagemill:{}:worker", run.id)).await?,
        };
        let connection = session.insert(connection);
        let stop = Stop { deadline: None, asked: self.stop.clone() };
        apply::item(Worker { connection, run, name, rank: Some(rank) }, item, &stop, report).await
    }

    async fn record(&self, run: &Run, round: i32) -> Result<Answer, Failure> {
        let recorded = persist(
            async || {
                let connection = self.server.connect(&format!("stagemill:{}:driver", run.id)).await?;
                record::round_of(&connection, &run.owner, run.id, round).await
            },
            &self.stop,
        );
        Ok(recorded.await?.answer)
    }

    /// Leaves a run of which something is left. Where nothing is, it can be closed as well.
    async fn interrupted(&self, run: &Run) -> Result<Option<Box<Summary>>, Failure> {
        let connection = self.server.connect("stagemill").await?;
        let tally = ledger::summary::of_run(&connection, run.id).await?.tally;
        if tally.processed == tally.chunks {
            return Ok(None);
        }
        ledger::run::interrupt(&connection, run.id, self.worker).await?;
        Ok(Some(Box::new(ledger::summary::of_run(&connection, run.id).await?)))
    }
}

/// Tries again what failed for a passing reason.
///
/// # Errors
/// The last failure, when it is not passing, has not passed in time, or somebody asks for an end.
pub async fn persist<T>(attempt: impl AsyncFn() -> Result<T, Failure>, stop: &CancellationToken) -> Result<T, Failure> {
    let mut tries = 0;
    loop {
        match attempt().await {
            Err(failure) if failure.class.is_retryable() && tries < TRIES => {
                tries += 1;
                tracing::warn!(failure = %failure, "trying again");
                if wait(failure.class, tries, stop).await.is_break() {
                    return Err(failure);
                }
            }
            result => return result,
        }
    }
}

/// Waits before a retry; breaks off when somebody asks for an end.
async fn wait(class: Class, tries: u32, stop: &CancellationToken) -> std::ops::ControlFlow<()> {
    let pause: Duration = Backoff::of(class).wait(tries.saturating_sub(1), fastrand::f64());
    tokio::select! {
        () = tokio::time::sleep(pause) => std::ops::ControlFlow::Continue(()),
        () = stop.cancelled() => std::ops::ControlFlow::Break(()),
    }
}
