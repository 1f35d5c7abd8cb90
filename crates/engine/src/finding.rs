//! What is wrong with a job, or doubtful: the field, the fault and the remedy.

use std::fmt;

use serde::Serialize;

/// Whether a finding keeps the job from running.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The job can't run.
    Error,
    /// The job runs, and somebody may be sorry.
    Warning,
}

/// One thing found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Whether it keeps the job from running.
    pub severity: Severity,
    /// The field of the job, or the object, that it is about.
    pub at: String,
    /// What is wrong.
    pub fault: String,
    /// What to do about it.
    pub remedy: String,
}

impl Finding {
    /// A finding that keeps the job from running.
    pub fn error(at: impl Into<String>, fault: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { severity: Severity::Error, at: at.into(), fault: fault.into(), remedy: remedy.into() }
    }

    /// A finding to know about.
    pub fn warning(at: impl Into<String>, fault: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, at: at.into(), fault: fault.into(), remedy: remedy.into() }
    }

    /// Whether any of the findings keeps the job from running.
    pub fn any_error(findings: &[Self]) -> bool {
        findings.iter().any(|finding| finding.severity == Severity::Error)
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: {}", self.at, self.fault, self.remedy)
    }
}

/// Findings as one text, for where there is no list: a Lambda's error, a log line.
pub fn join(findings: &[Finding]) -> String {
    findings.iter().map(Finding::to_string).collect::<Vec<_>>().join("; ")
}
