//! The three functions, and how a test wants them.

use super::{ACCOUNT, REGION};
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Which of the three functions.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FunctionName {
    /// Cuts the stage into chunks.
    Planner,
    /// Applies chunks.
    Executor,
    /// Judges from the ledger.
    Recorder,
}

/// As published for the first time.
const VERSION: &str = "1";

impl FunctionName {
    /// All three.
    pub const ALL: [Self; 3] = [Self::Planner, Self::Executor, Self::Recorder];

    /// The name of the function, and of its binary.
    pub fn name(self) -> &'static str {
        match self {
            Self::Planner => "planner",
            Self::Executor => "executor",
            Self::Recorder => "recorder",
        }
    }

    /// What stands for its ARN in the state machine's file.
    pub(super) fn placeholder(self) -> &'static str {
        match self {
            Self::Planner => "${PlannerFunctionArn}",
            Self::Executor => "${ExecutorFunctionArn}",
            Self::Recorder => "${RecorderFunctionArn}",
        }
    }

    fn arn(self) -> String {
        format!("arn:aws:lambda:{REGION}:{ACCOUNT}:function:{}", self.name())
    }

    /// The only ARN under which the cloud knows the function: one with its version.
    pub fn versioned_arn(self) -> String {
        format!("{}:{VERSION}", self.arn())
    }
}

/// A function as its stack would define it.
#[derive(Clone, Debug)]
pub struct Function {
    /// What to run.
    pub binary: PathBuf,
    /// Its own variables, beside those that Lambda sets.
    pub environment: BTreeMap<String, String>,
    /// Its time limit: the deadline it is told, and when it is killed.
    pub timeout: Duration,
    /// The size it is told.
    pub memory_mb: u32,
    /// Reserved concurrency: calls beyond it are turned away.
    pub concurrency: Option<u32>,
}

impl Function {
    pub(super) fn as_json(&self, name: FunctionName) -> serde_json::Value {
        serde_json::json!({
            "name": name.name(),
            "arn": name.arn(),
            "version": VERSION,
            "binary": self.binary,
            "environment": self.environment,
            "timeout_s": self.timeout.as_secs_f64(),
            "memory_mb": self.memory_mb,
            "concurrency": self.concurrency,
        })
    }
}

/// A binary of a function's name, or the `bootstrap` in a folder of its name, as `cargo lambda` leaves it.
fn binary(path: &Path) -> PathBuf {
    if path.is_dir() { path.join("bootstrap") } else { path.to_owned() }
}

/// What a test wants to run.
#[derive(Clone, Debug)]
pub struct Setup {
    /// The planner.
    pub planner: Function,
    /// The executor.
    pub executor: Function,
    /// The recorder.
    pub recorder: Function,
    /// The time limit of an execution as a whole.
    pub execution_timeout: Duration,
}

impl Setup {
    /// Functions from a folder with binaries of their names, with limits that suit a test.
    pub fn new(binaries: &Path) -> Self {
        let function = |name: FunctionName| Function {
            binary: binary(&binaries.join(name.name())),
            environment: BTreeMap::new(),
            timeout: Duration::from_mins(1),
            memory_mb: 256,
            concurrency: None,
        };
        Self {
            planner: function(FunctionName::Planner),
            executor: function(FunctionName::Executor),
            recorder: function(FunctionName::Recorder),
            execution_timeout: Duration::from_mins(5),
        }
    }

    /// Sets a variable in the environment of all three.
    #[must_use]
    pub fn variable(mut self, name: &str, value: &str) -> Self {
        for function in [&mut self.planner, &mut self.executor, &mut self.recorder] {
            function.environment.insert(name.to_owned(), value.to_owned());
        }
        self
    }

    pub(super) fn function(&self, name: FunctionName) -> &Function {
        match name {
            FunctionName::Planner => &self.planner,
            FunctionName::Executor => &self.executor,
            FunctionName::Recorder => &self.recorder,
        }
    }
}
