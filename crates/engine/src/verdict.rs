//! The verdict on a run in which nothing more is started: pure, from evidence, with magnitudes.

use crate::outcome::{Status, Tally};

/// What is known of a run in which nothing more is started.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Evidence {
    /// Its chunks and rows.
    pub tally: Tally,
    /// The status that a halt asked for.
    pub halted: Option<Status>,
    /// Rows of its window that came or changed since it was planned, where that was counted.
    pub new_rows: Option<i64>,
    /// Rows of its window now, where that was counted, and how many there should be.
    pub recounted: Option<(i64, i64)>,
    /// Whether the stage could not be looked at to the end, or should have been emptied and was not.
    pub unfinished: bool,
}

/// The verdict on a run, with magnitudes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Every staged row is accounted for, and the stage is as it was.
    Complete,
    /// The same, with so many rows set aside.
    CompleteWithRejects {
        /// Rows set aside.
        rejected: i64,
    },
    /// Not every chunk was applied.
    Incomplete {
        /// Chunks that were not.
        chunks: i64,
    },
    /// Every row is applied, and the stage was not looked at, or not emptied.
    Unfinished,
    /// Every chunk was applied, and the stage is not what was planned.
    SourceChanged {
        /// Rows that came or changed.
        new_rows: i64,
        /// Rows more than there should be; negative for rows that are gone.
        difference: i64,
    },
    /// A halt asked for it.
    Halted(Status),
}

impl Verdict {
    /// The word in the log table.
    pub const fn status(self) -> Status {
        match self {
            Self::Complete => Status::Complete,
            Self::CompleteWithRejects { .. } => Status::CompleteWithRejects,
            Self::Incomplete { .. } | Self::Unfinished => Status::Incomplete,
            Self::SourceChanged { .. } => Status::SourceChanged,
            Self::Halted(status) => status,
        }
    }
}

/// Judges a run. What keeps a row from being applied weighs more than a stage that changed, and this more than rows set aside.
pub const fn judge(evidence: &Evidence) -> Verdict {
    let tally = &evidence.tally;
    if let Some(status) = evidence.halted {
        return Verdict::Halted(status);
    }
    let missing = tally.chunks - tally.processed;
    if missing > 0 || tally.left > 0 || tally.failed > 0 || !tally.counts.add_up() {
        return Verdict::Incomplete { chunks: missing };
    }
    let new_rows = match evidence.new_rows {
        Some(rows) => rows,
        None => 0,
    };
    let difference = match evidence.recounted {
        Some((now, expected)) => now - expected,
        None => 0,
    };
    if new_rows > 0 || difference != 0 {
        return Verdict::SourceChanged { new_rows, difference };
    }
    if evidence.unfinished {
        return Verdict::Unfinished;
    }
    if tally.counts.rejected > 0 {
        return Verdict::CompleteWithRejects { rejected: tally.counts.rejected };
    }
    Verdict::Complete
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outcome::Counts;

    fn tally(processed: i64, failed: i64, left: i64) -> Tally {
        Tally { chunks: processed + failed + left, processed, failed, left, ..Tally::default() }
    }

    #[test]
    fn the_verdict_on_a_run() {
        let done = Evidence { tally: tally(3, 0, 0), ..Evidence::default() };
        let with = |counts| Evidence { tally: Tally { counts, ..done.tally }, ..done };
        let rejects = with(Counts { staged: 5, inserted: 3, rejected: 2, ..Counts::default() });
        for (evidence, verdict, status) in [
            (done, Verdict::Complete, Status::Complete),
            (Evidence { new_rows: Some(0), recounted: Some((7, 7)), ..done }, Verdict::Complete, Status::Complete),
            (rejects, Verdict::CompleteWithRejects { rejected: 2 }, Status::CompleteWithRejects),
            (Evidence { tally: tally(2, 1, 0), ..done }, Verdict::Incomplete { chunks: 1 }, Status::Incomplete),
            (Evidence { tally: tally(1, 0, 2), ..done }, Verdict::Incomplete { chunks: 2 }, Status::Incomplete),
            // Counts that don't add up are never complete.
            (
                with(Counts { staged: 5, inserted: 4, ..Counts::default() }),
                Verdict::Incomplete { chunks: 0 },
                Status::Incomplete,
            ),
            (
                Evidence { new_rows: Some(4), ..rejects },
                Verdict::SourceChanged { new_rows: 4, difference: 0 },
                Status::SourceChanged,
            ),
            (
                Evidence { recounted: Some((6, 9)), ..done },
                Verdict::SourceChanged { new_rows: 0, difference: -3 },
                Status::SourceChanged,
            ),
            (
                Evidence { new_rows: Some(4), tally: tally(2, 0, 1), ..done },
                Verdict::Incomplete { chunks: 1 },
                Status::Incomplete,
            ),
            (Evidence { unfinished: true, ..done }, Verdict::Unfinished, Status::Incomplete),
            (Evidence { halted: Some(Status::Stopped), ..rejects }, Verdict::Halted(Status::Stopped), Status::Stopped),
        ] {
            assert_eq!((judge(&evidence), judge(&evidence).status()), (verdict, status), "{evidence:?}");
        }
    }
}
