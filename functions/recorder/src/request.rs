//! What the recorder is asked.

use serde::Deserialize;
use stagemill_engine::finding;
use stagemill_lambda::turn::Turn;

use crate::alarm::Alarm;

/// What the ledger and the execution's own error hold of somebody else's words.
const LONGEST_ERROR: usize = 200;
const LONGEST_CAUSE: usize = 20_000;

/// The recorder's event.
#[derive(Deserialize)]
#[serde(untagged, expecting = "expected {start, run, round}, {start, failure}, {execution_ended} or {control}")]
pub(crate) enum Request {
    /// A round's Map has ended.
    Round {
        start: String,
        run: i64,
        round: i32,
        #[serde(default)]
        turn: Turn,
    },
    /// The planner failed for good.
    PlanFailed {
        start: String,
        failure: Caught,
        #[serde(default)]
        turn: Turn,
    },
    /// An execution was aborted, timed out or failed.
    ExecutionEnded { execution_ended: Ended },
    /// An alarm on the database changed its state.
    Control { control: Alarm },
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

impl Ended {
    /// What is written down as the run's cause.
    pub(crate) fn cause(&self) -> String {
        let status = finding::shown(self.status.as_str(), LONGEST_ERROR);
        format!("its execution ended {status}; what was applied stays, `stagemill resume` goes on")
    }
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
        (finding::shown(self.error, LONGEST_ERROR), finding::shown(cause, LONGEST_CAUSE))
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};
    use serde_json::{Value, json};
    use stagemill_engine::failure::Class;
    use stagemill_fuzz::{is_fit_to_be_read, json::mutation, run, text::any_text};
    use stagemill_lambda::boot;

    use super::*;

    #[test]
    fn lambdas_wrapping_is_taken_off_a_cause() {
        let caught = |cause: &str| Caught { error: "Stagemill.BadJob".into(), cause: cause.into() }.read().1;
        assert_eq!(caught(r#"{"errorType":"Stagemill.BadJob","errorMessage":"no such job"}"#), "no such job");
        assert_eq!(caught("timed out"), "timed out");
    }

    fn read_well(event: &Value) -> Result<bool, TestCaseError> {
        match boot::event::<Request>(event.clone()) {
            Err(refused) => {
                prop_assert_eq!(refused.class, Class::BadJob);
                is_fit_to_be_read(refused.message())?;
                prop_assert!(refused.message().contains("{start, run, round}"), "no remedy: {}", refused);
                Ok(false)
            }
            Ok(Request::PlanFailed { failure, .. }) => {
                let (error, cause) = failure.read();
                // They are written to the ledger and into the execution's own error.
                prop_assert!(!error.contains('\0') && !cause.contains('\0'));
                prop_assert!(error.len() <= 256 && cause.len() <= 32_768, "{} {}", error.len(), cause.len());
                Ok(true)
            }
            Ok(Request::ExecutionEnded { execution_ended: ended }) => {
                is_fit_to_be_read(&ended.cause())?;
                Ok(true)
            }
            Ok(Request::Round { .. } | Request::Control { .. }) => Ok(true),
        }
    }

    #[test]
    fn any_event_is_read_or_refused_with_a_reason() {
        const NAMES: [&str; 12] = [
            "start",
            "run",
            "round",
            "failure",
            "Error",
            "Cause",
            "execution_ended",
            "status",
            "turn",
            "control",
            "alarm",
            "state",
        ];
        let right = prop_oneof![
            (any::<i64>(), any::<i32>()).prop_map(|(run, round)| json!({"start": "arn", "run": run, "round": round})),
            (any_text(), any_text())
                .prop_map(|(error, cause)| json!({"start": "arn", "failure": {"Error": error, "Cause": cause}})),
            any_text().prop_map(|message| {
                let cause = json!({"errorType": "Stagemill.BadJob", "errorMessage": message}).to_string();
                json!({"start": "arn", "failure": {"Error": "Stagemill.BadJob", "Cause": cause}})
            }),
            any_text().prop_map(|status| json!({"execution_ended": {"execution": "arn", "status": status}})),
            (any::<u32>(), any::<usize>(), any::<bool>()).prop_map(|(sequence, position, rerun)| {
                json!({"start": "arn", "run": 1, "round": 1, "turn": {"sequence": sequence, "position": position, "rerun": rerun}})
            }),
            (any_text(), any_text()).prop_map(|(alarm, machine)| {
                json!({"control": {"alarm": alarm, "state": "ALARM", "state_machine": machine}})
            }),
        ];
        let events = (right, vec(mutation(&NAMES), 0..3)).prop_map(|(mut event, mutations)| {
            mutations.iter().for_each(|mutation| mutation.apply(&mut event));
            event
        });
        run("the recorder's events", 800, events, |event| read_well(&event));
    }

    #[test]
    fn the_corpus_is_read_or_refused_with_a_reason() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/fuzz/corpus/recorder");
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let event = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
            let expected = path.file_name().unwrap().to_str().unwrap().starts_with("right-");
            assert_eq!(read_well(&event).unwrap(), expected, "{}", path.display());
        }
    }
}
