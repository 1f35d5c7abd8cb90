//! What went wrong, and the one table that says what is done about it.
//!
//! A [`Failure`] carries two texts: [`Failure::message`] names objects only and may go anywhere; the server's own words can hold
//! row values (`invalid input syntax for type integer: "…"`) and go to the ledger alone.

use std::{borrow::Cow, fmt};

/// The cause of a failure, as the ledger, the logs and the state machine (`Stagemill.<class>`) name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Class {
    /// The connection could not be made, or was lost; the ledger knows whether the work was done.
    ConnectionLost,
    /// A deadlock or a serialization failure, or another session inserted the same key meanwhile.
    Contention,
    /// The server is short of something: connections, memory, locks.
    Overloaded,
    /// Somebody is alive on this chunk.
    StillRunning,
    /// The password was refused and the secret has not changed yet: a rotation is under way.
    CredentialsRotating,
    /// Our own statement timeout struck.
    TimedOut,
    /// A row breaks a constraint that other chunks may yet satisfy (SQLSTATE class 23).
    ConstraintViolation,
    /// A row's value can't be stored (SQLSTATE class 22 and the like).
    BadData,
    /// Two staged rows have one target key.
    DuplicateKeys,
    /// The stage table was rewritten under the run.
    SourceChanged,
    /// The job can't be run as it is: a name, a type, a privilege.
    BadJob,
    /// Another run of the job, or on its tables, is open.
    AlreadyRunning,
    /// The run was closed, halted or taken over; this worker must stop.
    RunClosed,
    /// A person cancelled, or the server can't go on (disk full, corruption).
    Stopped,
    /// Three calls in a row moved nothing.
    NoProgress,
    /// More rows would be deleted, or set aside, than the job allows.
    LimitExceeded,
    /// At the end some chunks had not been applied.
    Incomplete,
    /// User or password is wrong.
    CredentialsRefused,
    /// The ledger's schema is missing, or newer than this program.
    Ledger,
    /// The program was set up wrongly: an environment variable, a certificate.
    Configuration,
    /// A defect of stagemill.
    Internal,
}

/// What is done about a failure. One variant a way of going on; [`Class::remedy`] is the only judge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Remedy {
    /// Try again soon, with backoff.
    Retry,
    /// Try again, after a longer wait.
    GoSlower,
    /// Go on with the other chunks; try again in the next round.
    Defer,
    /// Cut the chunk in two; one that can't be cut is tried again in the next round.
    Split,
    /// The chunk has failed; the others go on.
    FailChunk,
    /// Nothing more of this run is started.
    HaltRun,
}

impl Class {
    /// Every class, for tests that compare this table with the state machine's.
    pub const ALL: [Self; 21] = [
        Self::ConnectionLost,
        Self::Contention,
        Self::Overloaded,
        Self::StillRunning,
        Self::CredentialsRotating,
        Self::TimedOut,
        Self::ConstraintViolation,
        Self::BadData,
        Self::DuplicateKeys,
        Self::SourceChanged,
        Self::BadJob,
        Self::AlreadyRunning,
        Self::RunClosed,
        Self::Stopped,
        Self::NoProgress,
        Self::LimitExceeded,
        Self::Incomplete,
        Self::CredentialsRefused,
        Self::Ledger,
        Self::Configuration,
        Self::Internal,
    ];

    /// What is done about it.
    pub const fn remedy(self) -> Remedy {
        match self {
            Self::ConnectionLost | Self::Contention | Self::StillRunning => Remedy::Retry,
            Self::Overloaded | Self::CredentialsRotating => Remedy::GoSlower,
            // A parent row may lie in a chunk that is applied later.
            Self::ConstraintViolation => Remedy::Defer,
            Self::TimedOut => Remedy::Split,
            Self::BadData => Remedy::FailChunk,
            Self::DuplicateKeys
            | Self::SourceChanged
            | Self::BadJob
            | Self::AlreadyRunning
            | Self::RunClosed
            | Self::Stopped
            | Self::NoProgress
            | Self::LimitExceeded
            | Self::Incomplete
            | Self::CredentialsRefused
            | Self::Ledger
            | Self::Configuration
            | Self::Internal => Remedy::HaltRun,
        }
    }

    /// Whether single rows are to blame, which can be set aside.
    pub const fn is_of_rows(self) -> bool {
        matches!(self, Self::BadData | Self::ConstraintViolation)
    }

    /// Whether a call that ended with it should be made again.
    pub const fn is_retryable(self) -> bool {
        matches!(self.remedy(), Remedy::Retry | Remedy::GoSlower)
    }

    /// The stable name that the state machine's `ErrorEquals` and the alarms match on.
    pub fn error_name(self) -> String {
        format!("Stagemill.{self:?}")
    }

    /// Reads the name that the state machine knows; what AWS raised itself is [`Class::Stopped`].
    pub fn of_error_name(name: &str) -> Self {
        Self::ALL.into_iter().find(|class| class.error_name() == name).unwrap_or(Self::Stopped)
    }

    /// The class of a SQLSTATE (PostgreSQL's appendix "Error Codes"; 57014 needs [`cancelled`]).
    pub fn of_sqlstate(code: &str) -> Self {
        match code {
            "28000" | "28P01" => Self::CredentialsRefused,
            // 25006 is a demoted writer: the next connection resolves the host again.
            "25006" | "25P03" | "25P04" | "57P01" | "57P02" | "57P03" | "57P05" | "58000" | "58030" | "08P01"
            | "XX000" | "40003" => Self::ConnectionLost,
            "40001" | "40P01" => Self::Contention,
            "53100" | "57P04" | "XX001" | "XX002" | "55000" | "57014" => Self::Stopped,
            "55P03" => Self::Overloaded,
            "21000" => Self::DuplicateKeys,
            // A plan or prepared statement that a pooler or DDL invalidated: the next try prepares again.
            "26000" | "42P05" => Self::ConnectionLost,
            "P0001" | "44000" | "54000" => Self::BadData,
            _ => Self::of_sqlstate_class(code),
        }
    }

    fn of_sqlstate_class(code: &str) -> Self {
        match code.get(..2) {
            Some("08") => Self::ConnectionLost,
            Some("53") => Self::Overloaded,
            // 20, 2F, 38, 39, P0 and classes that PostgreSQL does not define come from people's functions and triggers.
            Some("22" | "20" | "2F" | "38" | "39" | "P0") => Self::BadData,
            Some("23") => Self::ConstraintViolation,
            Some("42" | "0A" | "3D" | "3F") => Self::BadJob,
            Some("40" | "72") => Self::Contention,
            Some(class) if !is_postgresqls(class) => Self::BadData,
            _ => Self::Internal,
        }
    }
}

/// SQLSTATEs of a row that wants another row, which may come later: a foreign key without its parent, a value that another row has still.
pub const WANTS_ANOTHER_ROW: [&str; 3] = ["23503", "23505", "23P01"];

/// Whether PostgreSQL has SQLSTATEs of that class; all others are a person's own.
pub fn is_postgresqls(class: &str) -> bool {
    const CLASSES: &str = "00 01 02 03 08 09 0A 0B 0F 0L 0P 0Z 20 21 22 23 24 25 26 27 28 2B 2D 2F 34 38 39 3B 3D 3F 40 42 44 53 54 55 57 58 72 F0 HV P0 XX";
    CLASSES.split(' ').any(|known| known == class)
}

/// The class of 57014, which says neither who cancelled nor why: before our own limit was reached it was a person.
pub fn cancelled(ran: std::time::Duration, statement_timeout: std::time::Duration) -> Class {
    // Two clocks never run alike: within a hundredth it was the timeout.
    if ran + ran / 100 >= statement_timeout { Class::TimedOut } else { Class::Stopped }
}

/// One failure, ready to be logged, stored or answered.
#[derive(Clone, PartialEq, Eq)]
pub struct Failure {
    /// Why, in one word.
    pub class: Class,
    /// The server's code, where the server spoke.
    pub sqlstate: Option<String>,
    message: Cow<'static, str>,
    report: Option<Box<Report>>,
}

/// What the server said, beside its code.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Report {
    /// The constraint that a row breaks.
    pub constraint: Option<String>,
    /// The column whose value can't be stored.
    pub column: Option<String>,
    /// Its words, which may hold row values: for the ledger only.
    pub words: String,
}

impl Failure {
    /// A failure in our own words, which must name objects and never row values.
    pub fn new(class: Class, message: impl Into<Cow<'static, str>>) -> Self {
        Self { class, sqlstate: None, message: message.into(), report: None }
    }

    /// A failure that the server reported: `message` of ours without row values, and the server's own words for the ledger.
    pub fn from_server(class: Class, sqlstate: &str, message: String, report: Report) -> Self {
        Self { sqlstate: Some(sqlstate.to_owned()), report: Some(Box::new(report)), ..Self::new(class, message) }
    }

    /// The same failure, judged otherwise by who knows more.
    #[must_use]
    pub fn as_class(mut self, class: Class) -> Self {
        self.class = class;
        self
    }

    /// The same failure with what was being done in front.
    #[must_use]
    pub fn while_doing(mut self, what: &str) -> Self {
        self.message = format!("{what}: {}", self.message).into();
        self
    }

    /// The same failure with what follows from it behind.
    #[must_use]
    pub fn so_that(mut self, what: &str) -> Self {
        self.message = format!("{}{what}", self.message).into();
        self
    }

    /// What happened, with names of objects only: may be logged.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// What happened in the server's words, which may hold row values: for the ledger only.
    pub fn server_message(&self) -> Option<&str> {
        self.report.as_ref().map(|report| report.words.as_str())
    }

    /// The constraint that a row breaks.
    pub fn constraint(&self) -> Option<&str> {
        self.report.as_ref()?.constraint.as_deref()
    }

    /// The column whose value can't be stored.
    pub fn column(&self) -> Option<&str> {
        self.report.as_ref()?.column.as_deref()
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        match &self.sqlstate {
            Some(code) => write!(f, " (SQLSTATE {code})"),
            None => Ok(()),
        }
    }
}

/// As Display: a derived one would print the server's message into logs.
impl fmt::Debug for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {self}", self.class)
    }
}

impl std::error::Error for Failure {}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn every_sqlstate_that_references_name_has_its_class() {
        for (codes, class) in [
            (
                "08000 08001 08003 08004 08006 08007 57P01 57P02 57P03 57P05 25P03 58000 58030 25006 40003",
                Class::ConnectionLost,
            ),
            ("40001 40P01", Class::Contention),
            ("53000 53200 53300 53400 55P03", Class::Overloaded),
            ("22001 22003 22P02 P0001 44000 54000", Class::BadData),
            ("23502 23503 23505 23514", Class::ConstraintViolation),
            ("53100 57P04 XX001 XX002 55000", Class::Stopped),
            ("42P01 42703 42501 0A000 3D000 3F000", Class::BadJob),
            ("28000 28P01", Class::CredentialsRefused),
            ("21000", Class::DuplicateKeys),
        ] {
            for code in codes.split(' ') {
                assert_eq!(Class::of_sqlstate(code), class, "{code}");
            }
        }
    }

    #[test]
    fn a_statement_cancelled_before_our_own_limit_was_cancelled_by_a_person() {
        let limit = Duration::from_secs(5);
        assert_eq!(cancelled(Duration::from_millis(4_900), limit), Class::Stopped);
        assert_eq!(cancelled(Duration::from_secs(5), limit), Class::TimedOut);
    }

    #[test]
    fn only_the_ledger_sees_the_servers_words() {
        let planted = "value 4711 of a row";
        let failure = Failure::from_server(
            Class::BadData,
            "22P02",
            "column a".into(),
            Report { words: planted.into(), ..Report::default() },
        );
        assert!(!format!("{failure} {failure:?} {}", failure.message()).contains("4711"));
        assert_eq!(failure.server_message(), Some(planted));
    }
}
