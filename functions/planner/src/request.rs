//! What the planner is asked: the execution's id and input.

use serde::{Deserialize, Deserializer, de::Error};
use serde_json::Value;
use stagemill_engine::{
    failure::{Class, Failure},
    finding,
    job::Job,
    ledger,
    pg::Connection,
};

/// The planner's event.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Request {
    /// `$$.Execution.Id`: the owner of the run.
    #[serde(deserialize_with = "id")]
    pub(crate) start: String,
    /// `$$.Execution.Input`.
    pub(crate) input: Input,
}

/// An execution's input.
#[derive(Debug, Deserialize)]
#[serde(try_from = "Fields")]
pub(crate) enum Input {
    /// Start a run.
    Start {
        /// A name of the job table, or a whole job.
        job: JobInput,
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
    resume: Option<Value>,
    trigger: Option<Trigger>,
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

/// A name of the job table, or a whole job.
#[derive(Debug)]
pub(crate) struct JobInput(Value);

const EITHER: &str = r#"{"job": "NAME"} starts a run of a job, {"resume": 12} goes on with run 12"#;

impl TryFrom<Fields> for Input {
    type Error = String;

    fn try_from(fields: Fields) -> Result<Self, String> {
        match (fields.job, fields.resume, fields.trigger) {
            (Some(Value::String(name)), None, _) if !Job::is_name(&name) => Err(format!(
                "the input's `job` is {}, which is not a job's name; `stagemill job list` shows those there are: {EITHER}",
                quoted(&Value::String(name))
            )),
            (Some(job), None, trigger) => Ok(Self::Start { job: JobInput(job), trigger }),
            (None, Some(run), None) => Ok(Self::Resume(run_id(&run)?)),
            (Some(_), Some(_), _) => Err(format!("the input has both `job` and `resume`; give one: {EITHER}")),
            (None, None, _) => Err(format!("the input has neither `job` nor `resume`: {EITHER}")),
            // A run is complete when it was resumed once: there is nothing that a repeated event could start twice.
            (None, Some(_), Some(_)) => Err("the input's `trigger` goes with `job` only; leave it out".to_owned()),
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
fn quoted(value: &Value) -> String {
    finding::shown(value.to_string(), 200)
}

impl JobInput {
    /// The job that is meant.
    pub(crate) async fn job(&self, connection: &Connection) -> Result<Job, Failure> {
        match &self.0 {
            Value::String(name) => {
                ledger::schema::require(connection).await?;
                ledger::job::get(connection, name).await
            }
            // A job's expressions are code: who may start executions may not therefore run any SQL.
            Value::Object(_) if std::env::var("ALLOW_INLINE_JOBS").as_deref() != Ok("true") => Err(Failure::new(
                Class::BadJob,
                "inline jobs are refused here: put the job into the job table (`stagemill job put`) and name it, or set the stack's AllowInlineJobs",
            )),
            inline => Job::from_value(inline.clone()).map_err(|findings| {
                Failure::new(Class::BadJob, format!("the job can't be used: {}", finding::join(&findings)))
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};
    use serde_json::json;
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
            (json!({"job": "orders", "resume": 12}), "both `job` and `resume`"),
            (json!({}), "neither `job` nor `resume`"),
            (json!({"job": null}), "neither `job` nor `resume`"),
            (json!({"trigger": {"id": "e"}}), "neither `job` nor `resume`"),
            (json!({"resume": 12, "trigger": {"id": "e"}}), "goes with `job` only"),
            (json!({"resume": 12, "force": true}), "unknown field `force`"),
            (json!({"Comment": "Insert your JSON here"}), "unknown field `Comment`, expected one of `job`, `resume`"),
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
                    Input::Start { trigger: None, job: JobInput(Value::String(name)) } => {
                        prop_assert!(!name.contains('\0') && name.len() <= 63);
                    }
                    Input::Start { .. } => {}
                }
                Ok(true)
            }
        }
    }

    #[test]
    fn any_event_is_read_or_refused_with_a_reason() {
        const NAMES: [&str; 7] = ["start", "input", "job", "resume", "trigger", "id", "force"];
        let right = prop_oneof![
            any_text().prop_map(|job| json!({"job": job})),
            any_text().prop_map(|id| json!({"job": "orders", "trigger": {"id": id}})),
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
