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
    fn status_words_read_back() {
        for status in [Status::Planning, Status::Interrupted, Status::SourceChanged, Status::Abandoned] {
            assert_eq!(Status::parse(status.as_str()), Some(status));
        }
        assert_eq!(Status::parse("nonsense"), None);
    }
}
