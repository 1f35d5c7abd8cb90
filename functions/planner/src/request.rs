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
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Request {
    /// `$$.Execution.Id`: the owner of the run.
    pub(crate) start: String,
    /// `$$.Execution.Input`.
    pub(crate) input: Input,
}

/// An execution's input.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Input {
    /// A name of the job table, or a whole job.
    job: Value,
    /// The event that started the execution.
    pub(crate) trigger: Option<Trigger>,
}

/// An event that starts executions.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Trigger {
    /// Its id: the same event delivered twice starts one run.
    pub(crate) id: String,
}

impl Input {
    /// The job that is meant.
    pub(crate) async fn job(&self, connection: &Connection) -> Result<Job, Failure> {
        match &self.job {
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
