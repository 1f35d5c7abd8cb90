//! What the recorder is asked.

use serde::Deserialize;

/// The recorder's event.
#[derive(Deserialize)]
#[serde(untagged, expecting = "expected {start, run, round}, {start, failure} or {execution_ended}")]
pub(crate) enum Request {
    /// A round's Map has ended.
    Round { start: String, run: i64, round: i32 },
    /// The planner failed for good.
    PlanFailed { start: String, failure: Caught },
    /// An execution was aborted, timed out or failed.
    ExecutionEnded { execution_ended: Ended },
}

/// What a Catch of the state machine caught.
#[derive(Deserialize)]
pub(crate) struct Caught {
    #[serde(rename = "Error")]
    error: String,
    #[serde(rename = "Cause", default)]
    cause: String,
}

/// An execution that ended without its Record.
#[derive(Deserialize)]
pub(crate) struct Ended {
    /// Its ARN: the owner of its run.
    pub(crate) execution: String,
    /// How it ended.
    pub(crate) status: String,
}

impl Caught {
    /// Error and message; Lambda wraps its errors' messages in JSON.
    pub(crate) fn read(self) -> (String, String) {
        #[derive(Deserialize)]
        struct Wrapped {
            #[serde(rename = "errorMessage")]
            message: String,
        }
        let cause = serde_json::from_str::<Wrapped>(&self.cause).map_or(self.cause, |wrapped| wrapped.message);
        (self.error, cause)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lambdas_wrapping_is_taken_off_a_cause() {
        let caught = |cause: &str| Caught { error: "Stagemill.BadJob".into(), cause: cause.into() }.read().1;
        assert_eq!(caught(r#"{"errorType":"Stagemill.BadJob","errorMessage":"no such job"}"#), "no such job");
        assert_eq!(caught("timed out"), "timed out");
    }
}
