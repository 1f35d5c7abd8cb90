//! What planner and recorder answer, in one shape, so that the state machine and the local driver go on from either alike.

use serde::{Deserialize, Serialize};

use crate::{chunk::Item, failure::Class, outcome::Status};

/// What comes next for a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// The run.
    pub run: i64,
    /// The round that the items belong to; the last one when there is none.
    pub round: i32,
    /// How many items may be worked on at a time; at least 1.
    pub max_concurrency: u32,
    /// The ranges of chunk ids to apply.
    pub items: Vec<Item>,
    /// What is to be done.
    pub status: Step,
    /// For [`Step::Failed`]: the error's stable name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// For [`Step::Failed`]: what happened and what to do, without row values.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cause: Option<String>,
}

/// The step after an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Step {
    /// Apply the items, then record the round.
    Round,
    /// The run is complete.
    Complete,
    /// The run has ended otherwise.
    Failed,
    /// A run has ended, and its owner makes another: one more of its job, or one of the next job.
    Next,
    /// Another run keeps this start out, and will not do its work: ask again later.
    Wait,
    /// Another run of the job is open, and one more follows it; this start did nothing.
    Coalesced,
    /// The same trigger came before; this start did nothing.
    Duplicate,
}

impl Answer {
    /// Items to apply.
    pub const fn round(run: i64, round: i32, max_concurrency: u32, items: Vec<Item>) -> Self {
        Self { run, round, max_concurrency, items, status: Step::Round, error: None, cause: None }
    }

    /// Nothing to apply.
    pub const fn end(run: i64, round: i32, status: Step) -> Self {
        Self { run, round, max_concurrency: 1, items: Vec::new(), status, error: None, cause: None }
    }

    /// A run that ended otherwise than complete.
    pub fn failed(run: i64, round: i32, error: String, cause: String) -> Self {
        Self { error: Some(error), cause: Some(cause), ..Self::end(run, round, Step::Failed) }
    }

    /// The answer about a run that has ended.
    pub fn closed(run: i64, round: i32, status: Status, class: Option<&str>, cause: &str) -> Self {
        if status.is_success() {
            return Self::end(run, round, Step::Complete);
        }
        let error = class.map_or_else(|| Class::Incomplete.error_name(), |class| format!("Stagemill.{class}"));
        Self::failed(run, round, error, cause.to_owned())
    }
}
