//! What the executor answers: its item again, with what is left of it.

use std::{
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use serde::Serialize;
use stagemill_engine::{
    apply::{Left, Report},
    chunk::Item,
    failure::{Class, Failure},
    retry::Next,
};
use stagemill_lambda::metric::Metrics;

/// How long an executor waits that is held back, seconds: soon enough for whoever lifts the hold, and a few state transitions a minute.
const HELD_BACK_WAIT_S: u32 = 10;

/// Answers in a row that moved nothing, before something must be wrong.
const PATIENCE: u32 = 3;

/// The executor's answer has its event's shape, so that the state machine hands it back as the next event.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Answer {
    #[serde(flatten)]
    item: Item,
    /// Chunks that were not reached.
    remaining: usize,
    /// Seconds to wait before the next call.
    wait_s: u32,
}

impl Answer {
    /// What is left of an item after a call that applied or split so many chunks.
    pub(crate) fn new(item: &Item, left: &Left, moved: u32) -> Result<Self, Failure> {
        let stalled =
            if moved > 0 || left.chunks.is_empty() || left.held_back { 0 } else { item.stalled.saturating_add(1) };
        if stalled >= PATIENCE {
            return Err(Failure::new(
                Class::NoProgress,
                format!(
                    "{PATIENCE} calls in a row applied no chunk of {} to {}: is there time for one before the deadline?",
                    item.first, item.last
                ),
            ));
        }
        let first = left.chunks.first().copied().unwrap_or(item.first);
        let wait_s = if left.held_back { HELD_BACK_WAIT_S } else { 0 };
        Ok(Self { item: Item { first, stalled, ..*item }, remaining: left.chunks.len(), wait_s })
    }
}

/// Counts and logs what a call does.
pub(crate) struct Meter<'a> {
    moved: AtomicU32,
    metrics: &'a Metrics,
    job: &'a str,
}

impl<'a> Meter<'a> {
    /// Nothing was done yet.
    pub(crate) const fn new(metrics: &'a Metrics, job: &'a str) -> Self {
        Self { moved: AtomicU32::new(0), metrics, job }
    }

    /// One line for a chunk that failed; those that are applied are in the ledger.
    pub(crate) fn report(&self, run: i64, event: &Report<'_>) {
        match event {
            Report::Applied { chunk, counts, took } => {
                self.moved.fetch_add(1, Ordering::Relaxed);
                let took_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
                tracing::debug!(run, chunk, staged_rows = counts.staged, took_ms, "chunk applied");
            }
            Report::Failed { chunk, attempt, failure, next } => {
                if *next == Next::Split {
                    self.moved.fetch_add(1, Ordering::Relaxed);
                }
                tracing::warn!(run, chunk, attempt, class = ?failure.class, sqlstate = failure.sqlstate, next = ?next, "chunk failed: {}", failure.message());
            }
            // Whoever changed it has said so in the ledger.
            Report::Pace { .. } => {}
            Report::AtRisk(at_risk) => {
                tracing::warn!(run, late_s = at_risk.late_seconds, "the run will probably miss its deadline");
                let late = Duration::try_from_secs_f64(at_risk.late_seconds).unwrap_or_default();
                self.metrics.at_risk(run, self.job, late);
            }
        }
    }

    /// Chunks applied or split so far.
    pub(crate) fn moved(&self) -> u32 {
        self.moved.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};
    use serde_json::json;
    use stagemill_fuzz::{is_fit_to_be_read, json::mutation, run};
    use stagemill_lambda::boot;

    use super::*;

    const ITEM: Item = Item { run: 7, round: 1, first: 3, last: 9, stalled: 0 };

    fn left(chunks: &[i32]) -> Left {
        Left { chunks: chunks.to_vec(), held_back: false }
    }

    #[test]
    fn the_answer_is_the_next_event() {
        let answer = Answer::new(&ITEM, &left(&[6, 8, 9]), 3).unwrap();
        let json = serde_json::to_value(&answer).unwrap();
        assert_eq!(
            json,
            serde_json::json!({"run": 7, "round": 1, "first": 6, "last": 9, "stalled": 0, "remaining": 3, "wait_s": 0})
        );
        assert_eq!(serde_json::from_value::<Item>(json).unwrap(), Item { first: 6, ..ITEM });
    }

    #[test]
    fn three_answers_without_progress_are_an_error() {
        let stalled = |n| Answer::new(&Item { stalled: n, ..ITEM }, &left(&[3]), 0);
        assert_eq!(stalled(0).unwrap().item.stalled, 1);
        assert_eq!(stalled(2).unwrap_err().class, Class::NoProgress);
        assert_eq!(Answer::new(&Item { stalled: 2, ..ITEM }, &left(&[3]), 1).unwrap().item.stalled, 0);
    }

    #[test]
    fn whoever_is_held_back_waits_and_loses_no_patience() {
        let left = Left { held_back: true, ..left(&[3, 4]) };
        let answer = Answer::new(&Item { stalled: 2, ..ITEM }, &left, 0).unwrap();
        assert_eq!((answer.wait_s, answer.remaining, answer.item.stalled), (HELD_BACK_WAIT_S, 2, 0));
    }

    #[test]
    fn any_event_is_read_or_refused_with_a_reason() {
        const NAMES: [&str; 6] = ["run", "round", "first", "last", "stalled", "remaining"];
        let right = (any::<i64>(), any::<i32>(), any::<i32>(), any::<i32>(), any::<u32>()).prop_map(
            |(run, round, first, last, stalled)| json!({"run": run, "round": round, "first": first, "last": last, "stalled": stalled}),
        );
        let events = (right, vec(mutation(&NAMES), 0..3), vec(any::<i32>(), 0..3), 0..3_u32);
        run("the executor's items", 800, events, |(mut event, mutations, left, moved)| {
            mutations.iter().for_each(|mutation| mutation.apply(&mut event));
            let item: Item = match boot::event(event) {
                Ok(item) => item,
                Err(refused) => {
                    prop_assert_eq!(refused.class, Class::BadJob);
                    is_fit_to_be_read(refused.message())?;
                    return Ok(false);
                }
            };
            prop_assert_eq!(boot::event::<Item>(serde_json::to_value(item).unwrap()).ok(), Some(item));
            match Answer::new(&item, &self::left(&left), moved) {
                Ok(answer) => prop_assert!(answer.item.stalled < PATIENCE && answer.remaining == left.len()),
                Err(refused) => {
                    prop_assert_eq!(refused.class, Class::NoProgress);
                    is_fit_to_be_read(refused.message())?;
                }
            }
            Ok(true)
        });
    }
}
