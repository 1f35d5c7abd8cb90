//! What the planner is asked: the execution's id and input.

use serde::Deserialize;
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
    pub(crate) id: String,
}

/// A name of the job table, or a whole job.
#[derive(Debug)]
pub(crate) struct JobInput(Value);

const EITHER: &str = r#"{"job": "NAME"} starts a run of a job, {"resume": 12} goes on with run 12"#;

impl TryFrom<Fields> for Input {
    type Error = String;

    fn try_from(fields: Fields) -> Result<Self, String> {
        match (fields.job, fields.resume, fields.trigger) {
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
        format!("the input's `resume` is {value}; give a run's number, as `stagemill status` lists them")
    })
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
    use serde_json::json;

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
}
