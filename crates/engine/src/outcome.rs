//! What was done, and what it means: counts that must add up, the verdict on a run, the decision at the end of a round.

use serde::{Deserialize, Serialize};

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
}

impl Counts {
    /// Whether every staged row is accounted for.
    pub const fn add_up(&self) -> bool {
        self.staged == self.inserted + self.updated + self.deleted + self.unchanged + self.skipped + self.rejected
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
    /// Some chunks were not applied; `resume` tries those again.
    Incomplete,
    /// Something stopped the whole run: the job, the server, a person.
    Failed,
    /// The stage table was rewritten under the run.
    SourceChanged,
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
            Self::Incomplete => "INCOMPLETE",
            Self::Failed => "FAILED",
            Self::SourceChanged => "SOURCE_CHANGED",
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
    /// The run ends, so.
    Close(Status),
}

/// Decides it. `halted` is the status that a halt asked for.
pub const fn decide(tally: &Tally, round: i32, round_limit: i32, halted: Option<Status>) -> Decision {
    if let Some(status) = halted {
        return Decision::Close(status);
    }
    if tally.left > 0 && round < round_limit {
        return Decision::AnotherRound;
    }
    let accounted = tally.left == 0 && tally.failed == 0 && tally.processed == tally.chunks && tally.counts.add_up();
    Decision::Close(if accounted { Status::Complete } else { Status::Incomplete })
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
            (tally(3, 0, 0), 1, None, Decision::Close(Status::Complete)),
            (tally(0, 0, 0), 1, None, Decision::Close(Status::Complete)),
            (tally(2, 0, 1), 1, None, Decision::AnotherRound),
            (tally(2, 1, 1), 1, None, Decision::AnotherRound),
            (tally(2, 0, 1), 3, None, Decision::Close(Status::Incomplete)),
            (tally(2, 1, 0), 1, None, Decision::Close(Status::Incomplete)),
            (tally(2, 0, 1), 1, Some(Status::Failed), Decision::Close(Status::Failed)),
        ] {
            assert_eq!(decide(&tally, round, 3, halted), expected, "{tally:?}");
        }
    }

    #[test]
    fn counts_that_do_not_add_up_are_never_complete() {
        let counts = Counts { staged: 5, inserted: 4, ..Counts::default() };
        let tally = Tally { counts, ..tally(1, 0, 0) };
        assert_eq!(decide(&tally, 1, 3, None), Decision::Close(Status::Incomplete));
    }

    #[test]
    fn status_words_read_back() {
        for status in [Status::Planning, Status::Interrupted, Status::SourceChanged, Status::Abandoned] {
            assert_eq!(Status::parse(status.as_str()), Some(status));
        }
        assert_eq!(Status::parse("nonsense"), None);
    }
}
