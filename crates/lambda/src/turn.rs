//! Which run of an execution it is: the state machine hands it from answer to answer, and planner and recorder alone read it.

use serde::{Deserialize, Serialize};
use stagemill_engine::{
    answer::{Answer, Step},
    ledger::run::{Run, owner},
};

/// A turn of an execution: one run of one of its jobs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Turn {
    /// The how-manieth run of the execution, from 1.
    pub sequence: u32,
    /// The job's place in the execution's list, from 0.
    pub position: usize,
    /// Whether it is one more run of the job, which another start asked for.
    pub rerun: bool,
}

/// Where the state machine begins.
impl Default for Turn {
    fn default() -> Self {
        Self { sequence: 1, position: 0, rerun: false }
    }
}

impl Turn {
    /// The owner of the turn's run.
    pub fn owner(self, execution: &str) -> String {
        owner::of_execution(execution, self.sequence)
    }

    /// The turn after a run that has ended; `None` when the execution ends with it.
    pub fn after(self, run: &Run) -> Option<Self> {
        let sequence = self.sequence.saturating_add(1);
        if run.has_rerun() {
            return Some(Self { sequence, rerun: true, ..self });
        }
        (run.status.is_success() && !run.followed_by.is_empty()).then_some(Self {
            sequence,
            position: self.position + 1,
            rerun: false,
        })
    }
}

/// An answer of planner or recorder, and the turn that it is about.
#[derive(Debug, Serialize)]
pub struct InTurn {
    #[serde(flatten)]
    answer: Answer,
    turn: Turn,
}

impl InTurn {
    /// An answer in its turn.
    pub const fn new(answer: Answer, turn: Turn) -> Self {
        Self { answer, turn }
    }

    /// What comes after a run that has ended: the next turn, or the execution's end with what it leaves undone.
    pub fn ended(answer: Answer, turn: Turn, run: &Run) -> Self {
        if let Some(next) = turn.after(run) {
            return Self::new(Answer::end(answer.run, answer.round, Step::Next), next);
        }
        let cause = answer.cause.map(|cause| format!("{cause}{}", not_started(&run.followed_by)));
        Self::new(Answer { cause, ..answer }, turn)
    }
}

/// The end of a sentence: which jobs of the execution will not be started.
pub fn not_started(jobs: &[String]) -> String {
    if jobs.is_empty() { String::new() } else { format!("; not started: {}", jobs.join(", ")) }
}
