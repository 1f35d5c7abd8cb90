//! What was done, and what it means: counts that must add up, the verdict on a run, the decision at the end of a round.

use serde::{Deserialize, Serialize};

use crate::failure::Class;

/// Rows of a chunk or of a run, by what became of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Rows read from the stage.
    pub staged: i64,
    /// Rows that the target did not have.
    pub inserted: i64,
    /// Target rows that were updated.
    pub updated: i64,
    /// Target rows that were deleted.
    pub deleted: i64,
    /// Rows that were already as they should be.
    pub unchanged: i64,
    /// Rows passed over by a rule: `insert` of a key that is there, `update` of one that is not.
    pub skipped: i64,
    /// Rows set aside.
    pub rejected: i64,
    /// Rows handed to the job's own statements, which alone know what became of them.
    pub handed: i64,
}

impl Counts {
    /// Whether every staged row is accounted for.
    pub const fn add_up(&self) -> bool {
        self.staged
            == self.inserted + self.updated + self.deleted + self.unchanged + self.skipped + self.rejected + self.handed
    }

    /// Rows written to the target.
    pub const fn written(&self) -> i64 {
        self.inserted + self.updated + self.deleted
    }
}

impl std::ops::AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.staged += other.staged;
        self.inserted += other.inserted;
        self.updated += other.updated;
        self.deleted += other.deleted;
        self.unchanged += other.unchanged;
        self.skipped += other.skipped;
        self.rejected += other.rejected;
        self.handed += other.handed;
    }
}

/// How a run stands. The words are the log table's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Status {
    /// Its chunks are being cut.
    Planning,
    /// Its chunks are being applied, or nobody came back to apply them.
    Running,
    /// A person stopped it; `resume` goes on.
    Interrupted,
    /// Every staged row is accounted for.
    Complete,
    /// Every staged row is accounted for; some were set aside.
    CompleteWithRejects,
    /// Some chunks were not applied; `resume` tries those again.
    Incomplete,
    /// The stage table changed under the run.
    SourceChanged,
    /// A person ended it, or the server can't go on; `resume` goes on.
    Stopped,
    /// Something else keeps the whole run from going on: the job, a limit.
    Failed,
    /// Its owner died, and another run was started instead.
    Abandoned,
}

impl Status {
    /// The word in the log table.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Planning => "PLANNING",
            Self::Running => "RUNNING",
            Self::Interrupted => "INTERRUPTED",
            Self::Complete => "COMPLETE",
            Self::CompleteWithRejects => "COMPLETE_WITH_REJECTS",
            Self::Incomplete => "INCOMPLETE",
            Self::SourceChanged => "SOURCE_CHANGED",
            Self::Stopped => "STOPPED",
            Self::Failed => "FAILED",
            Self::Abandoned => "ABANDONED",
        }
    }

    /// Reads the word of the log table.
    pub fn parse(word: &str) -> Option<Self> {
        serde_json::from_value(serde_json::Value::String(word.to_owned())).ok()
    }

    /// Whether the run can still change: its row has no end.
    pub const fn is_open(self) -> bool {
        matches!(self, Self::Planning | Self::Running | Self::Interrupted)
    }

    /// Whether every staged row is accounted for: what a caller may take for success.
    pub const fn is_success(self) -> bool {
        matches!(self, Self::Complete | Self::CompleteWithRejects)
    }

    /// The status of a run that a failure ends.
    pub const fn of_halt(class: Class) -> Self {
        match class {
            Class::SourceChanged => Self::SourceChanged,
            Class::Stopped => Self::Stopped,
            _ => Self::Failed,
        }
    }
}

/// The chunks of a run, by state.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// All chunks.
    pub chunks: i64,
    /// PROCESSED.
    pub processed: i64,
    /// PROCESSED_WITH_ERROR.
    pub failed: i64,
    /// UNASSIGNED or ASSIGNED: still to be done.
    pub left: i64,
    /// Attempts beyond the first of each chunk.
    pub retries: i64,
    /// The rows of the processed chunks.
    pub counts: Counts,
}

/// What happens at the end of a round.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// Once more over what is left.
    AnotherRound,
    /// Nothing more is started: the evidence is taken, and judged.
    Judge,
}

/// Decides it.
pub const fn decide(tally: &Tally, round: i32, round_limit: i32, halted: Option<Status>) -> Decision {
    if halted.is_none() && tally.left > 0 && round < round_limit { Decision::AnotherRound } else { Decision::Judge }
}

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
    /// Whether the stage should have been emptied and was not.
    pub not_emptied: bool,
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
    /// Every row is applied, and the stage was not emptied.
    NotEmptied,
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
            Self::Incomplete { .. } | Self::NotEmptied => Status::Incomplete,
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
    if evidence.not_emptied {
        return Verdict::NotEmptied;
    }
    if tally.counts.rejected > 0 {
        return Verdict::CompleteWithRejects { rejected: tally.counts.rejected };
    }
    Verdict::Complete
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally(processed: i64, failed: i64, left: i64) -> Tally {
        Tally { chunks: processed + failed + left, processed, failed, left, ..Tally::default() }
    }

    #[test]
    fn a_round_ends_in_another_one_or_in_a_verdict() {
        for (tally, round, halted, expected) in [
            (tally(3, 0, 0), 1, None, Decision::Judge),
            (tally(0, 0, 0), 1, None, Decision::Judge),
            (tally(2, 0, 1), 1, None, Decision::AnotherRound),
            (tally(2, 1, 1), 1, None, Decision::AnotherRound),
            (tally(2, 0, 1), 3, None, Decision::Judge),
            (tally(2, 1, 0), 1, None, Decision::Judge),
            (tally(2, 0, 1), 1, Some(Status::Failed), Decision::Judge),
        ] {
            assert_eq!(decide(&tally, round, 3, halted), expected, "{tally:?}");
        }
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
            (Evidence { not_emptied: true, ..done }, Verdict::NotEmptied, Status::Incomplete),
            (Evidence { halted: Some(Status::Stopped), ..rejects }, Verdict::Halted(Status::Stopped), Status::Stopped),
        ] {
            assert_eq!((judge(&evidence), judge(&evidence).status()), (verdict, status), "{evidence:?}");
        }
    }

    #[test]
    fn status_words_read_back() {
        for status in [Status::Planning, Status::Interrupted, Status::SourceChanged, Status::Abandoned] {
            assert_eq!(Status::parse(status.as_str()), Some(status));
        }
        assert_eq!(Status::parse("nonsense"), None);
    }
}
