//! How a run ended, in a sentence and a few figures.

use stagemill_engine::{ledger::timeline::Timeline, outcome::Status};

use super::facts::Facts;
use crate::table::{self, count, duration, many, whole_duration};

/// How it ended, in a sentence.
pub(crate) struct Headline {
    /// What it asks of the reader: `good`, `warn`, `bad` or `live`.
    pub(crate) tone: &'static str,
    pub(crate) verdict: String,
    /// Rows by what became of them.
    pub(crate) rows: String,
    pub(crate) error: Option<String>,
}

/// A figure, what it is, and what there is to say beside it.
pub(crate) struct Tile {
    pub(crate) name: &'static str,
    pub(crate) value: String,
    pub(crate) note: String,
}

/// Says how a run ended, or how it stands.
pub(crate) fn headline(timeline: &Timeline) -> Headline {
    let run = &timeline.run;
    let (left, chunks) = (run.tally.chunks - run.tally.processed, many(run.tally.chunks, "chunk", "chunks"));
    let not_applied = format!("{} of {chunks} not applied.", count(left));
    let verdict = match run.status {
        Status::Complete => "Every staged row is accounted for.".to_owned(),
        Status::CompleteWithRejects => {
            format!("Complete, but for {} set aside.", many(run.tally.counts.rejected, "row", "rows"))
        }
        Status::Planning => "It is being planned.".to_owned(),
        Status::Running => format!("{} of {chunks} applied so far.", count(run.tally.processed)),
        Status::Interrupted => format!("Interrupted, {not_applied}"),
        Status::Incomplete if left == 0 => "Every chunk is applied; its end is not.".to_owned(),
        Status::Incomplete => format!("Not complete: {not_applied}"),
        Status::SourceChanged => "The stage changed under the run.".to_owned(),
        Status::Stopped => format!("Stopped, {not_applied}"),
        Status::Failed => format!("Failed, {not_applied}"),
        Status::Abandoned => format!("Abandoned, {not_applied}"),
    };
    let held_now = run.held.as_ref().filter(|_| run.status.is_open()).map(|why| format!(" Held back now: {why}."));
    Headline {
        tone: tone(run.status),
        verdict: verdict + &held_now.unwrap_or_default(),
        rows: table::rows(run),
        error: run.error.as_ref().map(|error| table::with_code(run, error)),
    }
}

const fn tone(status: Status) -> &'static str {
    match status {
        Status::Complete => "good",
        Status::CompleteWithRejects | Status::Interrupted | Status::Abandoned => "warn",
        Status::Planning | Status::Running => "live",
        Status::Incomplete | Status::Failed | Status::SourceChanged | Status::Stopped => "bad",
    }
}

/// The figures at the top.
pub(crate) fn tiles(timeline: &Timeline, facts: &Facts) -> Vec<Tile> {
    let run = &timeline.run;
    let tally = &run.tally;
    let tile = |name, value, note: String| Tile { name, value, note };
    let left_out = timeline.until - facts.seconds > 1.0;
    let time_note =
        if left_out { format!("{} from start to end", whole_duration(timeline.until)) } else { String::new() };
    let aside =
        if tally.counts.rejected > 0 { format!("{} set aside", count(tally.counts.rejected)) } else { String::new() };
    let rate = tally.counts.staged as f64 / facts.seconds.max(0.001);
    let failed = if tally.failed > 0 { format!("; {} failed", count(tally.failed)) } else { String::new() };
    let splits = if facts.split > 0 { many(facts.split as i64, "split", "splits") } else { String::new() };
    let mut tiles = vec![
        tile("Time", duration(facts.seconds), time_note),
        tile("Rows", count(tally.counts.staged), aside),
        tile("Rows/s", count(rate as i64), String::new()),
        tile("Chunks", count(tally.processed), format!("of {}{failed}", count(tally.chunks))),
        tile("Retries", count(tally.retries), splits),
        tile("In flight", format!("{:.1}", facts.in_flight), format!("on average, {}", table::sessions(run))),
    ];
    if facts.held >= 0.5 {
        let part = facts.held / facts.seconds.max(1e-9) * 100.0;
        tiles.push(tile("Held back", whole_duration(facts.held), format!("{:.0} % of the time", part.min(100.0))));
    }
    if let (Some(_), Some(late)) = (&run.deadline_at, run.late_seconds) {
        let (value, note) = match (run.deadline_met, late > 0.0) {
            (Some(true), _) => ("met", format!("{} before it", whole_duration(-late))),
            (Some(false), true) => ("missed", format!("by {}", whole_duration(late))),
            (Some(false), false) => ("not met", "the run is not complete".to_owned()),
            (None, true) => ("at risk", format!("{} late, as it goes", whole_duration(late))),
            (None, false) => ("ahead", format!("{} to spare", whole_duration(-late))),
        };
        tiles.push(tile("Deadline", value.to_owned(), note));
    }
    tiles
}
