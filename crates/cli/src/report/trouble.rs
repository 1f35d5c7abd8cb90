//! The chunks to look at: those that failed, and the slowest.

use std::collections::BTreeMap;

use stagemill_engine::ledger::timeline::{Chunk, State, Timeline};

use super::{advice, axis::clock, histogram::length, lanes::span};
use crate::table::count;

/// Failed chunks that are listed one by one.
pub(crate) const SHOWN: usize = 20;

/// Slow chunks that are listed.
const SLOWEST: usize = 10;

/// Chunks that failed alike.
pub(crate) struct Cause {
    pub(crate) class: String,
    pub(crate) sqlstate: String,
    pub(crate) chunks: i64,
    pub(crate) error: String,
    pub(crate) advice: String,
}

/// A chunk that failed.
pub(crate) struct Failed {
    pub(crate) chunk: i32,
    pub(crate) state: &'static str,
    pub(crate) attempts: i32,
    pub(crate) error: String,
}

/// A chunk that took long.
pub(crate) struct Slow {
    pub(crate) chunk: i32,
    pub(crate) at: String,
    pub(crate) took: String,
    /// Of the longest, in percent.
    pub(crate) part: f64,
    pub(crate) rows: String,
    pub(crate) attempts: i32,
    pub(crate) class: &'static str,
}

fn not_applied(timeline: &Timeline) -> impl Iterator<Item = (&Chunk, &str)> {
    let open = timeline.chunks.iter().filter(|chunk| !matches!(chunk.state, State::Processed | State::Split));
    open.filter_map(|chunk| Some((chunk, chunk.error_class.as_deref()?)))
}

/// Why chunks were not applied, the commonest first.
pub(crate) fn causes(timeline: &Timeline) -> Vec<Cause> {
    let mut causes: BTreeMap<(&str, &str), Cause> = BTreeMap::new();
    for (chunk, class) in not_applied(timeline) {
        let sqlstate = chunk.sqlstate.as_deref().unwrap_or("");
        let cause = causes.entry((class, sqlstate)).or_insert_with(|| Cause {
            class: class.to_owned(),
            sqlstate: sqlstate.to_owned(),
            chunks: 0,
            error: chunk.error.clone().unwrap_or_default(),
            advice: advice::of_class(class).replace("RUN", &timeline.run.run.to_string()),
        });
        cause.chunks += 1;
    }
    let mut causes: Vec<Cause> = causes.into_values().collect();
    causes.sort_by_key(|cause| std::cmp::Reverse(cause.chunks));
    causes
}

/// The chunks that failed.
pub(crate) fn failed(timeline: &Timeline) -> Vec<Failed> {
    let failed = not_applied(timeline).map(|(chunk, class)| Failed {
        chunk: chunk.chunk,
        state: if chunk.state == State::ProcessedWithError { "failed" } else { "to be tried again" },
        attempts: chunk.attempts,
        error: match &chunk.error {
            Some(error) => format!("{class}: {error}"),
            None => class.to_owned(),
        },
    });
    failed.collect()
}

/// The slowest, of those that are done or in flight.
pub(crate) fn slowest(timeline: &Timeline) -> Vec<Slow> {
    let mut spans: Vec<(&Chunk, (f64, f64))> =
        timeline.chunks.iter().filter_map(|chunk| Some((chunk, span(chunk, timeline)?))).collect();
    spans.sort_by(|(_, one), (_, other)| (other.1 - other.0).total_cmp(&(one.1 - one.0)));
    let longest = spans.first().map_or(0.0, |(_, (since, until))| until - since).max(1e-9);
    let slow = spans.into_iter().take(SLOWEST).map(|(chunk, (since, until))| Slow {
        chunk: chunk.chunk,
        at: clock((since * 10.0).round() / 10.0),
        took: length(until - since),
        part: (until - since) / longest * 100.0,
        rows: chunk.staged.map(count).unwrap_or_default(),
        attempts: chunk.attempts,
        class: super::lanes::class(chunk),
    });
    slow.collect()
}
