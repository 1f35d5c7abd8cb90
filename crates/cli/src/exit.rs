//! Exit codes, and the errors that lead to them.

use std::process::ExitCode;

use serde_json::{Value as Json, json};
use stagemill_engine::{
    failure::{Class, Failure},
    finding::Finding,
};

use crate::{table, world::Stream};

/// How the program ends. The numbers are a promise to scripts; `stagemill --help` lists them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// What was asked is done.
    Done = 0,
    /// The run failed, or some staged rows were not applied; of `job diff`, the two differ.
    NotApplied = 1,
    /// The job, or what was typed, is wrong; clap's own code.
    BadJob = 2,
    /// The server can't be reached, or refuses us.
    CannotConnect = 3,
    /// The ledger is missing, or of another version.
    Ledger = 4,
    /// Another run is open.
    AlreadyRunning = 5,
    /// A defect of stagemill, or of its machine.
    Internal = 70,
    /// Somebody asked for an end.
    Interrupted = 130,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

impl From<Class> for Exit {
    fn from(class: Class) -> Self {
        match class {
            Class::BadJob => Self::BadJob,
            Class::ConnectionLost | Class::CredentialsRefused | Class::CredentialsRotating | Class::Configuration => {
                Self::CannotConnect
            }
            Class::Ledger => Self::Ledger,
            Class::AlreadyRunning => Self::AlreadyRunning,
            Class::Contention
            | Class::Overloaded
            | Class::StillRunning
            | Class::TimedOut
            | Class::ConstraintViolation
            | Class::BadData
            | Class::DuplicateKeys
            | Class::SourceChanged
            | Class::RunClosed
            | Class::Stopped
            | Class::NoProgress
            | Class::LimitExceeded
            | Class::Incomplete => Self::NotApplied,
            Class::Internal => Self::Internal,
        }
    }
}

/// Why a command did not do what was asked. Each text says what, where, and what to do next; none holds row values or passwords.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CliError {
    /// Findings that keep a job from running; the table is printed below the text.
    #[error("{what} can't run: {}", count_errors(findings))]
    Findings {
        /// The job, as the user named it.
        what: String,
        /// Everything found.
        findings: Vec<Finding>,
    },
    /// What was typed, or the file that was named.
    #[error("{0}")]
    Usage(String),
    /// No session with the server.
    #[error("{0}")]
    Connect(String),
    /// The engine's failure.
    #[error("{0}")]
    Failure(Failure),
    /// The engine's failure, with what to type next.
    #[error("{failure}\n{hint}")]
    FailureWithHint {
        /// What happened.
        failure: Failure,
        /// What to do.
        hint: String,
    },
    /// Another run keeps this one out.
    #[error("{text}")]
    Taken {
        /// Who is in the way, and what to do.
        text: String,
        /// The open run.
        run: i64,
    },
    /// Somebody asked for an end.
    #[error("{0}")]
    Interrupted(String),
    /// A defect, or a machine that refuses something.
    #[error("{0}")]
    Internal(String),
}

impl From<Failure> for CliError {
    fn from(failure: Failure) -> Self {
        Self::Failure(failure)
    }
}

impl CliError {
    /// Adds what to type next.
    pub(crate) fn hinted(failure: Failure, hint: impl Into<String>) -> Self {
        Self::FailureWithHint { failure, hint: hint.into() }
    }

    /// The code to end with.
    pub(crate) fn exit(&self) -> Exit {
        match self {
            Self::Findings { .. } | Self::Usage(_) => Exit::BadJob,
            Self::Connect(_) => Exit::CannotConnect,
            Self::Failure(failure) | Self::FailureWithHint { failure, .. } => failure.class.into(),
            Self::Taken { .. } => Exit::AlreadyRunning,
            Self::Interrupted(_) => Exit::Interrupted,
            Self::Internal(_) => Exit::Internal,
        }
    }

    /// The text for people, findings included.
    pub(crate) fn for_people(&self) -> String {
        match self {
            Self::Findings { findings, .. } => format!("{self}\n{}", table::findings(findings, Stream::Err)),
            _ => self.to_string(),
        }
    }

    /// The same for programs (`--json`).
    pub(crate) fn for_programs(&self) -> Json {
        let mut error = json!({ "exit": self.exit() as u8, "message": self.to_string() });
        match self {
            Self::Findings { findings, .. } => error["findings"] = json!(findings),
            Self::Failure(failure) | Self::FailureWithHint { failure, .. } => {
                error["class"] = json!(format!("{:?}", failure.class));
                error["sqlstate"] = json!(failure.sqlstate);
            }
            Self::Taken { run, .. } => error["open_run"] = json!(run),
            _ => {}
        }
        json!({ "error": error })
    }
}

fn count_errors(findings: &[Finding]) -> String {
    let errors = findings.iter().filter(|finding| finding.severity == stagemill_engine::finding::Severity::Error);
    match errors.count() {
        1 => "1 error".to_owned(),
        n => format!("{n} errors"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_class_of_failure_has_an_exit_code_of_its_own_kind_and_none_is_success() {
        for class in Class::ALL {
            assert_ne!(Exit::from(class), Exit::Done, "{class:?}");
        }
        assert_eq!(Exit::from(Class::BadData), Exit::NotApplied);
        assert_eq!(Exit::from(Class::CredentialsRefused), Exit::CannotConnect);
    }
}
