//! What is wrong with a job, or doubtful: the field, the fault and the remedy.

use std::fmt;

use serde::Serialize;

/// No place in a job has a longer name, and no fault takes more words, unless somebody's text is quoted in it.
const LONGEST_PLACE: usize = 300;
const LONGEST_TEXT: usize = 4_000;

/// Findings that fit into one text: a Lambda's error is cut off behind 32,768 characters.
const MOST_IN_A_TEXT: usize = 12;
const LONGEST_OF_MANY: usize = 1_200;

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
        Self::new(Severity::Error, at.into(), fault.into(), remedy.into())
    }

    /// A finding to know about.
    pub fn warning(at: impl Into<String>, fault: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::new(Severity::Warning, at.into(), fault.into(), remedy.into())
    }

    fn new(severity: Severity, at: String, fault: String, remedy: String) -> Self {
        let text = |text| shown(text, LONGEST_TEXT);
        let at = if at.trim().is_empty() { format!("{at:?}") } else { shown(at, LONGEST_PLACE) };
        Self { severity, at, fault: text(fault), remedy: text(remedy) }
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
    let mut texts: Vec<String> =
        findings.iter().take(MOST_IN_A_TEXT).map(|finding| shown(finding.to_string(), LONGEST_OF_MANY)).collect();
    if findings.len() > MOST_IN_A_TEXT {
        texts.push(format!("and {} more", findings.len() - MOST_IN_A_TEXT));
    }
    texts.join("; ")
}

/// A text in which somebody's words are quoted, so that it can be shown and kept: control characters are written out (they steer terminals, and the
/// ledger can't store a NUL), and what is longer than `longest` bytes is cut.
pub fn shown(text: impl Into<String>, longest: usize) -> String {
    let text: String = text.into();
    let steers = |c: char| c.is_control() && !matches!(c, '\n' | '\t');
    if text.len() <= longest && !text.contains(steers) {
        return text;
    }
    let mut written = String::new();
    for c in text.chars() {
        if written.len() >= longest {
            written.push('…');
            break;
        }
        if steers(c) { written.extend(c.escape_default()) } else { written.push(c) }
    }
    written
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_somebody_wrote_neither_steers_a_terminal_nor_fills_it() {
        let finding = Finding::error("columns.\u{1b}[2J", "x".repeat(100_000), "two\nlines");
        assert_eq!(finding.at, r"columns.\u{1b}[2J");
        assert!(finding.fault.len() < 4_010 && finding.fault.ends_with('…'));
        assert_eq!(finding.remedy, "two\nlines");
        assert_eq!(Finding::error("", "is empty", "…").at, "\"\"");
        let many = join(&vec![finding; 1_000]);
        assert!(many.len() < 16_000 && many.ends_with("; and 988 more"), "{}", many.len());
    }
}
