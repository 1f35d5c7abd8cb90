//! What the planner is asked: the execution's id and input.

use std::borrow::Cow;

use serde::{Deserialize, Deserializer, de::Error};
use serde_json::Value;
use stagemill_engine::{failure::Failure, finding, ledger, pg::Connection};
use stagemill_lambda::turn::Turn;

use crate::jobs::{Changes, Jobs};

/// The planner's event.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Request {
    /// `$$.Execution.Id`: the owner of its runs.
    #[serde(deserialize_with = "id")]
    pub(crate) start: String,
    /// `$$.Execution.Input`.
    pub(crate) input: Input,
    /// Which run of the execution is to be planned.
    #[serde(default)]
    pub(crate) turn: Turn,
}

/// An execution's input.
#[derive(Debug, Deserialize)]
#[serde(try_from = "Fields")]
pub(crate) enum Input {
    /// Start runs.
    Start {
        /// Names of the job table, or a whole job.
        jobs: Jobs,
        /// The event that started the execution.
        trigger: Option<Trigger>,
    },
    /// Go on with this run.
    Resume(i64),
}

/// The input as it is typed.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Fields {
    job: Option<Value>,
    jobs: Option<Vec<String>>,
    resume: Option<Value>,
    trigger: Option<Trigger>,
    parallelism: Option<Value>,
    rows: Option<Value>,
    #[serde(rename = "where")]
    filter: Option<Value>,
}

/// An event that starts executions.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Trigger {
    /// Its id: the same event delivered twice starts one run.
    #[serde(deserialize_with = "id")]
    pub(crate) id: String,
}

/// No id of an execution or an event is longer.
const LONGEST_ID: usize = 1_024;

/// An id that tells one thing from another: an empty one would make every event after the first a duplicate.
fn id<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let id = String::deserialize(deserializer)?;
    if id.is_empty() || id.len() > LONGEST_ID || id.contains('\0') {
        return Err(D::Error::custom(format!("an id has 1 to {LONGEST_ID} bytes, none of them NUL")));
    }
    Ok(id)
}

const EITHER: &str = r#"{"job": "NAME"} starts a run of a job, {"jobs": ["A", "B"]} runs of several in order, {"resume": 12} goes on with run 12"#;

impl TryFrom<Fields> for Input {
    type Error = String;

    fn try_from(fields: Fields) -> Result<Self, String> {
        if fields.filter.is_some() {
            return Err("the input can't change a job's `where`: which rows are applied stands in the job table alone (`stagemill job put`); `parallelism` and `rows` can be changed for one execution".to_owned());
        }
        let changes = Changes { parallelism: fields.parallelism, rows: fields.rows };
        match (fields.job, fields.jobs, fields.resume) {
            (Some(job), None, None) => Ok(Self::Start { jobs: Jobs::one(job, changes)?, trigger: fields.trigger }),
            (None, _, _) if !changes.are_none() => {
                Err("the input's `parallelism` and `rows` go with `job` only; leave them out".to_owned())
            }
            (None, Some(names), None) => Ok(Self::Start { jobs: Jobs::named(names)?, trigger: fields.trigger }),
            // A run is complete when it was resumed once: there is nothing that a repeated event could start twice.
            (None, None, Some(_)) if fields.trigger.is_some() => {
                Err("the input's `trigger` goes with `job` or `jobs` only; leave it out".to_owned())
            }
            (None, None, Some(run)) => Ok(Self::Resume(run_id(&run)?)),
            (None, None, None) => Err(format!("the input has neither `job`, `jobs` nor `resume`: {EITHER}")),
            _ => Err(format!("the input has more than one of `job`, `jobs` and `resume`; give one: {EITHER}")),
        }
    }
}

impl Input {
    /// What starts the execution's runs, in order.
    pub(crate) async fn jobs(&self, connection: &Connection) -> Result<Cow<'_, Jobs>, Failure> {
        match self {
            Self::Start { jobs, .. } => Ok(Cow::Borrowed(jobs)),
            // Its job as it was, one more time, and what followed it.
            Self::Resume(run) => Ok(Cow::Owned(Jobs::of(ledger::run::load(connection, *run).await?))),
        }
    }

    /// The event's id.
    pub(crate) fn trigger(&self) -> Option<&str> {
        match self {
            Self::Start { trigger, .. } => trigger.as_ref().map(|trigger| trigger.id.as_str()),
            Self::Resume(_) => None,
        }
    }
}

/// A run's number; people type it in quotes as well.
fn run_id(value: &Value) -> Result<i64, String> {
    let number = value.as_i64().or_else(|| value.as_str()?.trim().parse().ok());
    number.filter(|run| *run > 0).ok_or_else(|| {
        format!("the input's `resume` is {}; give a run's number, as `stagemill status` lists them", quoted(value))
    })
}

/// A value as it was typed, or its beginning.
pub(crate) fn quoted(value: &Value) -> String {
    finding::shown(value.to_string(), 200)
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};
    use serde_json::json;
    use stagemill_engine::failure::Class;
    use stagemill_fuzz::{
        is_fit_to_be_read,
        json::{self as odd, mutation},
        run,
        text::any_text,
    };
    use stagemill_lambda::boot;

    use super::*;

    fn read(input: Value) -> Result<Input, String> {
        serde_json::from_value(input).map_err(|error| error.to_string())
    }

    #[test]
    fn a_run_to_resume_is_named_by_a_number_or_its_text() {
        for input in [json!({"resume": 12}), json!({"resume": "12"}), json!({"resume": " 12 "})] {
            assert!(matches!(read(input.clone()), Ok(Input::Resume(12))), "{input}");
        }
        for wrong in [json!("twelve"), json!(0), json!(-1), json!(1.5), json!([12]), json!(true)] {
            let refused = read(json!({"resume": wrong})).unwrap_err();
            assert!(refused.contains(&wrong.to_string()) && refused.contains("stagemill status"), "{refused}");
        }
    }

    #[test]
    fn an_input_either_starts_or_resumes() {
        assert!(matches!(read(json!({"job": "orders"})), Ok(Input::Start { trigger: None, .. })));
        for (input, said) in [
            (json!({"job": "orders", "resume": 12}), "more than one of `job`, `jobs` and `resume`"),
            (json!({}), "neither `job`, `jobs` nor `resume`"),
            (json!({"job": null}), "neither `job`, `jobs` nor `resume`"),
            (json!({"trigger": {"id": "e"}}), "neither `job`, `jobs` nor `resume`"),
            (json!({"resume": 12, "trigger": {"id": "e"}}), "goes with `job` or `jobs` only"),
            (json!({"resume": 12, "force": true}), "unknown field `force`"),
            (json!({"job": "a", "jobs": ["b"]}), "more than one of `job`, `jobs` and `resume`"),
            (json!({"jobs": []}), "`jobs` has 0 names"),
            (json!({"jobs": ["a", "b", "a"]}), "names \"a\" twice"),
            (json!({"jobs": ["a", "no job"]}), "which is not a job's name"),
            (json!({"jobs": ["a"], "rows": 5}), "go with `job` only"),
            (json!({"resume": 12, "parallelism": 5}), "go with `job` only"),
            (json!({"job": "a", "where": "true"}), "can't change a job's `where`"),
            (
                json!({"Comment": "Insert your JSON here"}),
                "unknown field `Comment`, expected one of `job`, `jobs`, `resume`",
            ),
        ] {
            let refused = read(input).unwrap_err();
            assert!(refused.contains(said), "{refused}");
        }
    }

    /// An event as Lambda hands it over.
    fn read_well(event: &Value) -> Result<bool, TestCaseError> {
        match boot::event::<Request>(event.clone()) {
            Err(refused) => {
                prop_assert_eq!(refused.class, Class::BadJob);
                is_fit_to_be_read(refused.message())?;
                prop_assert!(refused.message().contains("events/"), "no remedy: {}", refused);
                Ok(false)
            }
            Ok(request) => {
                prop_assert!(!request.start.is_empty() && !request.start.contains('\0'));
                match request.input {
                    Input::Resume(run) => prop_assert!(run > 0),
                    Input::Start { trigger: Some(trigger), .. } => {
                        prop_assert!(!trigger.id.is_empty() && trigger.id.len() <= 1_024 && !trigger.id.contains('\0'));
                    }
                    Input::Start { jobs, .. } => {
                        for name in jobs.after(0) {
                            prop_assert!(!name.contains('\0') && name.len() <= 63);
                        }
                    }
                }
                Ok(true)
            }
        }
    }

    #[test]
    fn any_event_is_read_or_refused_with_a_reason() {
        const NAMES: [&str; 11] =
            ["start", "input", "job", "jobs", "resume", "trigger", "id", "force", "turn", "parallelism", "rows"];
        let right = prop_oneof![
            any_text().prop_map(|job| json!({"job": job})),
            any_text().prop_map(|id| json!({"job": "orders", "trigger": {"id": id}})),
            vec(any_text(), 0..3).prop_map(|jobs| json!({"jobs": jobs})),
            (odd::value(), odd::value())
                .prop_map(|(rows, most)| json!({"job": "orders", "rows": rows, "parallelism": most})),
            any::<i64>().prop_map(|run| json!({"resume": run})),
            any_text().prop_map(|run| json!({"resume": run})),
            odd::value().prop_map(|run| json!({"resume": run})),
            Just(json!({"job": {"name": "orders", "stage": {"table": "s"}}})),
        ];
        let events = (right, vec(mutation(&NAMES), 0..3)).prop_map(|(input, mutations)| {
            let mut event = json!({"start": "arn:aws:states:eu-central-1:1:execution:apply:e", "input": input});
            mutations.iter().for_each(|mutation| mutation.apply(&mut event));
            event
        });
        run("the planner's events", 800, events, |event| read_well(&event));
    }

    #[test]
    fn the_corpus_is_read_or_refused_with_a_reason() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/fuzz/corpus/planner");
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let event = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
            let expected = path.file_name().unwrap().to_str().unwrap().starts_with("right-");
            assert_eq!(read_well(&event).unwrap(), expected, "{}", path.display());
        }
    }
}
