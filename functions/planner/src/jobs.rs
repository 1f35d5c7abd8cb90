//! The jobs of an execution, in order.

use serde_json::Value;
use stagemill_engine::{
    failure::{Class, Failure},
    finding,
    job::Job,
    ledger::{self, run::Run},
    pg::Connection,
};

use crate::request::quoted;

/// More jobs than this are no list that somebody typed.
const MOST_JOBS: usize = 100;

/// What an execution starts, one after the other.
#[derive(Debug, Clone)]
pub(crate) struct Jobs {
    first: First,
    /// Names of the job table.
    rest: Vec<String>,
}

/// The first job, or the only one.
#[derive(Debug, Clone)]
enum First {
    /// A name of the job table, or a whole job, and what is changed of it.
    Typed(Value, Changes),
    /// As it was in an earlier run.
    Known(Box<Job>),
}

/// What an execution may change of a job.
#[derive(Debug, Clone, Default)]
pub(crate) struct Changes {
    pub(crate) parallelism: Option<Value>,
    pub(crate) rows: Option<Value>,
}

impl Changes {
    pub(crate) const fn are_none(&self) -> bool {
        self.parallelism.is_none() && self.rows.is_none()
    }

    /// The job with them, checked as any other.
    fn apply(&self, job: Job) -> Result<Job, Failure> {
        if self.are_none() {
            return Ok(job);
        }
        let mut value = job.to_value();
        if let Some(parallelism) = &self.parallelism {
            value["parallelism"] = parallelism.clone();
        }
        if let Some(rows) = &self.rows {
            value["chunks"]["rows"] = rows.clone();
        }
        whole(value)
    }
}

impl Jobs {
    /// One job: a name, or all of it.
    pub(crate) fn one(job: Value, changes: Changes) -> Result<Self, String> {
        if let Value::String(name) = &job {
            require_name("`job`", name)?;
        }
        Ok(Self { first: First::Typed(job, changes), rest: Vec::new() })
    }

    /// Several of the job table.
    pub(crate) fn named(mut names: Vec<String>) -> Result<Self, String> {
        if names.is_empty() || names.len() > MOST_JOBS {
            return Err(format!("the input's `jobs` has {} names; give 1 to {MOST_JOBS}", names.len()));
        }
        for (at, name) in names.iter().enumerate() {
            require_name("`jobs`", name)?;
            if names[..at].contains(name) {
                return Err(format!(
                    "the input's `jobs` names {name:?} twice; a run takes every staged row, so once is enough"
                ));
            }
        }
        let first = names.remove(0);
        Ok(Self { first: First::Typed(Value::String(first), Changes::default()), rest: names })
    }

    /// What an execution goes on with that has resumed a run.
    pub(crate) fn of(run: Run) -> Self {
        Self { first: First::Known(Box::new(run.spec)), rest: run.followed_by }
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.rest.len() + 1
    }

    /// The jobs after one.
    pub(crate) fn after(&self, position: usize) -> &[String] {
        self.rest.get(position..).unwrap_or_default()
    }

    /// The job at a place.
    pub(crate) async fn at(&self, position: usize, connection: &Connection) -> Result<Job, Failure> {
        let name = match (position.checked_sub(1), &self.first) {
            (None, First::Known(job)) => return Ok(job.as_ref().clone()),
            (None, First::Typed(Value::String(name), changes)) => {
                return changes.apply(by_name(connection, name).await?);
            }
            (None, First::Typed(inline, changes)) => return changes.apply(allowed(inline)?),
            (Some(at), _) => self.rest.get(at),
        };
        let beyond = || {
            Failure::new(Class::Internal, format!("an execution of {} jobs has none at place {position}", self.count()))
        };
        by_name(connection, name.ok_or_else(beyond)?).await
    }
}

fn require_name(field: &str, name: &str) -> Result<(), String> {
    if Job::is_name(name) {
        return Ok(());
    }
    let name = quoted(&Value::String(name.to_owned()));
    Err(format!("the input's {field} is {name}, which is not a job's name; `stagemill job list` shows those there are"))
}

async fn by_name(connection: &Connection, name: &str) -> Result<Job, Failure> {
    ledger::schema::require(connection).await?;
    ledger::job::get(connection, name).await
}

/// A job's expressions are code: who may start executions may not therefore run any SQL.
fn allowed(inline: &Value) -> Result<Job, Failure> {
    if inline.is_object() && std::env::var("ALLOW_INLINE_JOBS").as_deref() != Ok("true") {
        return Err(Failure::new(
            Class::BadJob,
            "inline jobs are refused here: put the job into the job table (`stagemill job put`) and name it, or set the stack's AllowInlineJobs",
        ));
    }
    whole(inline.clone())
}

fn whole(job: Value) -> Result<Job, Failure> {
    Job::from_value(job)
        .map_err(|findings| Failure::new(Class::BadJob, format!("the job can't be used: {}", finding::join(&findings))))
}
