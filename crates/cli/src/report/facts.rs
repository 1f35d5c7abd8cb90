//! What a run's chunks add up to: the figures that a report shows and its advice goes by.

use stagemill_engine::ledger::{
    hold::PEOPLE,
    timeline::{Hold, State, Timeline},
};

use super::{axis::Axis, histogram::quantile, lanes::span};

/// What a run's chunks add up to.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Facts {
    /// How long the chunks took that were applied, in seconds, the shortest first.
    pub(crate) durations: Vec<f64>,
    /// Rows of half of the chunks, or fewer.
    pub(crate) median_rows: i64,
    /// Chunks that were tried more than once.
    pub(crate) retried: usize,
    /// Chunks that were too slow, and split.
    pub(crate) split: usize,
    /// Seconds in which something went on.
    pub(crate) seconds: f64,
    /// Seconds in which it was held back, holds that overlap counted once.
    pub(crate) held: f64,
    /// Of these, seconds in which it was not a person who held it back.
    pub(crate) limited: f64,
    /// Chunks in flight, on average.
    pub(crate) in_flight: f64,
    /// The most chunks at a time.
    pub(crate) parallelism: u32,
    /// Seconds at the end in which half of the workers had nothing left to do.
    pub(crate) tail: f64,
}

/// Adds them up.
pub(crate) fn facts(timeline: &Timeline, axis: &Axis) -> Facts {
    let spans: Vec<(f64, f64)> = timeline.chunks.iter().filter_map(|chunk| span(chunk, timeline)).collect();
    let applied = || timeline.chunks.iter().filter(|chunk| chunk.state == State::Processed);
    let mut durations: Vec<f64> =
        applied().filter_map(|chunk| span(chunk, timeline)).map(|(since, until)| until - since).collect();
    durations.sort_by(f64::total_cmp);
    let mut rows: Vec<i64> = applied().filter_map(|chunk| chunk.staged).collect();
    rows.sort_unstable();
    let seconds = axis.seconds();
    Facts {
        median_rows: rows.get(rows.len() / 2).copied().unwrap_or(0),
        retried: applied().filter(|chunk| chunk.attempts > 1).count(),
        split: timeline.chunks.iter().filter(|chunk| chunk.state == State::Split).count(),
        seconds,
        held: held(timeline.holds.iter(), timeline.until),
        limited: held(timeline.holds.iter().filter(|hold| hold.owner != PEOPLE), timeline.until),
        in_flight: spans.iter().map(|(since, until)| until - since).sum::<f64>() / seconds.max(1e-9),
        parallelism: u32::try_from(timeline.run.parallelism).unwrap_or(1),
        tail: if timeline.run.status.is_open() { 0.0 } else { tail(timeline) },
        durations,
    }
}

impl Facts {
    /// How long half of the chunks took, or less.
    pub(crate) fn median(&self) -> f64 {
        quantile(&self.durations, 0.5)
    }
}

fn held<'a>(holds: impl Iterator<Item = &'a Hold>, until: f64) -> f64 {
    let mut spans: Vec<(f64, f64)> =
        holds.map(|hold| (hold.since, hold.until.unwrap_or(until))).filter(|(since, end)| end > since).collect();
    spans.sort_by(|one, other| one.0.total_cmp(&other.0));
    let (mut total, mut reached) = (0.0, f64::NEG_INFINITY);
    for (since, end) in spans {
        total += (end - since.max(reached)).max(0.0);
        reached = reached.max(end);
    }
    total
}

/// From when half of the workers that were allowed last were done, to the end of the last chunk.
fn tail(timeline: &Timeline) -> f64 {
    let last_round = timeline.rounds.last().copied().unwrap_or(0.0);
    let mut done = vec![f64::NEG_INFINITY; timeline.workers.len()];
    for chunk in &timeline.chunks {
        if let (Some(worker), Some((since, until))) = (chunk.worker, span(chunk, timeline))
            && since >= last_round
            && let Some(done) = done.get_mut(worker)
        {
            *done = done.max(until);
        }
    }
    done.retain(|at| at.is_finite());
    done.sort_by(|one, other| other.total_cmp(one));
    // Those that had to leave since fewer were allowed were not idle.
    done.truncate(usize::try_from(timeline.run.allowed).unwrap_or(1));
    match (done.first(), done.get(done.len() / 2)) {
        (Some(last), Some(half)) => last - half,
        _ => 0.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hold(since: f64, until: Option<f64>) -> Hold {
        Hold { owner: "limits".into(), reason: "busy".into(), since, until }
    }

    #[test]
    fn of_holds_that_overlap_the_time_counts_once() {
        let holds = [hold(10.0, Some(30.0)), hold(20.0, Some(25.0)), hold(28.0, Some(40.0)), hold(90.0, None)];
        assert_eq!(held(holds.iter(), 100.0), 40.0);
        assert_eq!(held([].iter(), 100.0), 0.0);
    }
}
