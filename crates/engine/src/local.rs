//! The local driver: does on one machine what the state machine does on AWS, with the same planner, executor and recorder.

use std::{collections::VecDeque, sync::Mutex, time::Duration};

use futures_util::future::join_all;

use crate::{
    answer::{Answer, Step},
    apply::{self, Report, Stop, Worker},
    chunk::Item,
    failure::{Class, Failure},
    ledger::{self, run::Run, summary::Summary},
    pg::{Connection, Server},
    record,
    retry::Backoff,
};

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

/// Where and how a run is driven.
pub struct Driver<'a> {
    /// The server.
    pub server: &'a Server,
    /// The name of this process in the ledger: the run's owner.
    pub worker: &'a str,
    /// Set to true to ask for an end.
    pub stop: tokio::sync::watch::Receiver<bool>,
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
        while answer.status == Step::Round {
            self.round(&run, &answer).await;
            if *self.stop.borrow()
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

    /// The Map: items are taken by as many workers as the answer allows. What a worker could not do is left to the recorder's judgement.
    async fn round(&self, run: &Run, answer: &Answer) {
        let queue = Mutex::new(answer.items.iter().copied().collect::<VecDeque<_>>());
        let sessions = (answer.max_concurrency as usize).min(answer.items.len());
        join_all((1..=sessions).map(|n| self.worker(run, n, &queue))).await;
    }

    async fn worker(&self, run: &Run, number: usize, queue: &Mutex<VecDeque<Item>>) {
        let name = format!("{}/{number}", self.worker);
        let mut session = None;
        loop {
            // A poisoned queue means that another worker panicked: what is left is then done in the next round.
            let Some(item) = queue.lock().ok().and_then(|mut queue| queue.pop_front()) else { return };
            if self.item(run, &name, &item, &mut session).await.is_break() {
                return;
            }
        }
    }

    /// Works on one item until it is done, given up for this round, or the worker has to stop.
    async fn item(
        &self,
        run: &Run,
        name: &str,
        item: &Item,
        session: &mut Option<Connection>,
    ) -> std::ops::ControlFlow<()> {
        use std::ops::ControlFlow::{Break, Continue};
        let mut tries = 0;
        let applied = std::sync::atomic::AtomicU32::new(0);
        let report = |event: Report<'_>| {
            if matches!(event, Report::Applied { .. }) {
                applied.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            }
            (self.report)(event);
        };
        let stop = Stop { deadline: None, asked: Some(self.stop.clone()) };
        loop {
            let failure = match self.attempt(run, name, item, session, &stop, &report).await {
                Ok(left) if left.is_empty() => return Continue(()),
                Ok(_) => return Break(()),
                Err(failure) => failure,
            };
            if failure.class == Class::ConnectionLost {
                // Not always closed: a demoted writer still answers, and a new connection resolves the host again.
                *session = None;
            }
            if !failure.class.is_retryable() {
                tracing::info!(run = run.id, worker = name, failure = %failure, "a worker stops");
                return Break(());
            }
            // Progress earns new patience.
            tries = if applied.swap(0, std::sync::atomic::Ordering::Relaxed) > 0 { 1 } else { tries + 1 };
            if tries > TRIES {
                tracing::warn!(run = run.id, worker = name, failure = %failure, "chunks are left to the next round");
                return Continue(());
            }
            if session.is_none() {
                // Nobody reports a chunk that was not begun: without a word, a run without a server looks like a slow one.
                tracing::warn!(run = run.id, worker = name, failure = %failure, "a worker has no session and tries again");
            }
            if wait(failure.class, tries, &self.stop).await.is_break() {
                return Break(());
            }
        }
    }

    async fn attempt(
        &self,
        run: &Run,
        name: &str,
        item: &Item,
        session: &mut Option<Connection>,
        stop: &Stop,
        report: &dyn Fn(Report<'_>),
    ) -> Result<Vec<i32>, Failure> {
        let connection = match session.take().filter(|connection| !connection.is_closed()) {
            Some(connection) => connection,
            None => self.server.connect(&format!("stagemill:{}:worker", run.id)).await?,
        };
        let connection = session.insert(connection);
        apply::item(Worker { connection, run, name }, item, stop, report).await
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
pub async fn persist<T>(
    attempt: impl AsyncFn() -> Result<T, Failure>,
    stop: &tokio::sync::watch::Receiver<bool>,
) -> Result<T, Failure> {
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
async fn wait(class: Class, tries: u32, stop: &tokio::sync::watch::Receiver<bool>) -> std::ops::ControlFlow<()> {
    let pause: Duration = Backoff::of(class).wait(tries.saturating_sub(1), fastrand::f64());
    let mut stop = stop.clone();
    // A sender that is gone can't ask any more: then the pause alone decides.
    let asked = async {
        if stop.wait_for(|asked| *asked).await.is_err() {
            std::future::pending::<()>().await;
        }
    };
    tokio::select! {
        () = tokio::time::sleep(pause) => std::ops::ControlFlow::Continue(()),
        () = asked => std::ops::ControlFlow::Break(()),
    }
}
