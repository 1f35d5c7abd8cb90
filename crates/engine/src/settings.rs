//! The PostgreSQL settings that a chunk's transaction runs under.

use std::{collections::BTreeMap, time::Duration};

use crate::{finding::Finding, ident};

/// Settings that a job may choose. What is not here could end the fence, reach other sessions or loosen security.
const ALLOWED: [&str; 20] = [
    "work_mem",
    "hash_mem_multiplier",
    "temp_buffers",
    "search_path",
    "TimeZone",
    "DateStyle",
    "IntervalStyle",
    "lock_timeout",
    "statement_timeout",
    "jit",
    "random_page_cost",
    "seq_page_cost",
    "effective_cache_size",
    "effective_io_concurrency",
    "enable_hashjoin",
    "enable_mergejoin",
    "enable_seqscan",
    "plan_cache_mode",
    "synchronous_commit",
    "session_replication_role",
];

/// How long a chunk's statement may run where neither the job nor a Lambda's deadline says less.
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(600);

/// How long it may wait for a lock. Longer than `deadlock_timeout` (1 s), so that a deadlock is seen as one.
const LOCK_TIMEOUT: Duration = Duration::from_secs(30);

/// The settings of a run: fixed when it is planned, so that every session reads boundaries and expressions alike.
pub type Settings = BTreeMap<String, String>;

/// Finds what is wrong with a job's `session`.
pub fn examine(session: &Settings, findings: &mut Vec<Finding>) {
    let mut seen = std::collections::BTreeSet::new();
    for (name, value) in session {
        let at = format!("session.{name}");
        if !seen.insert(name.to_ascii_lowercase()) {
            // Which of the two would hold is nothing to guess.
            findings.push(Finding::error(&at, "names a setting twice", "keep one of the two"));
        }
        if !ALLOWED.iter().any(|allowed| allowed.eq_ignore_ascii_case(name)) {
            findings.push(Finding::error(
                at,
                "is not a setting that a job may choose",
                format!("the settings are {}", ALLOWED.join(", ")),
            ));
        } else if is_timeout(name) && milliseconds(value).is_none_or(|time| time <= Duration::from_secs(1)) {
            findings.push(Finding::error(
                at,
                "is not a time of more than one second",
                "write a number with a unit: \"90s\", \"5min\"",
            ));
        } else if value.contains('\0') {
            findings.push(Finding::error(at, "contains a NUL character", "take it out"));
        }
    }
}

fn is_timeout(name: &str) -> bool {
    name.eq_ignore_ascii_case("lock_timeout") || name.eq_ignore_ascii_case("statement_timeout")
}

/// Reads a time as PostgreSQL writes it: a number, in milliseconds unless a unit follows.
fn milliseconds(text: &str) -> Option<Duration> {
    let text = text.trim();
    let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
    let number: u64 = number.parse().ok()?;
    let factor = match unit.trim() {
        "" | "ms" => 1,
        "s" => 1_000,
        "min" => 60_000,
        "h" => 3_600_000,
        _ => return None,
    };
    number.checked_mul(factor).filter(|ms| *ms <= i32::MAX as u64).map(Duration::from_millis)
}

fn timeout(settings: &Settings, name: &str, default: Duration) -> Duration {
    let chosen = settings.iter().find(|(key, _)| key.eq_ignore_ascii_case(name));
    chosen.and_then(|(_, value)| milliseconds(value)).unwrap_or(default)
}

/// The statement timeout of a run's chunks, cut to the time that is left.
pub fn statement_timeout(settings: &Settings, time_left: Duration) -> Duration {
    let limit = timeout(settings, "statement_timeout", STATEMENT_TIMEOUT).min(time_left);
    // Whole milliseconds, as the server is told: a fraction more would take its own timeout for a person's cancel.
    Duration::from_millis(u64::try_from(limit.as_millis()).unwrap_or(u64::MAX).max(1))
}

/// Whether the time that is left, and not the job, sets that timeout.
pub fn is_cut_short(settings: &Settings, time_left: Duration) -> bool {
    time_left < timeout(settings, "statement_timeout", STATEMENT_TIMEOUT)
}

/// `SET LOCAL` for each setting, to be sent behind BEGIN: behind a pooler a session keeps nothing.
pub fn set_local(settings: &Settings, time_left: Duration) -> String {
    let statement = statement_timeout(settings, time_left);
    let lock = timeout(settings, "lock_timeout", LOCK_TIMEOUT).min(statement / 2).max(Duration::from_millis(1));
    let ours = [
        ("statement_timeout", format!("{}ms", statement.as_millis())),
        ("lock_timeout", format!("{}ms", lock.as_millis())),
        // A client that stops between two statements must not keep its locks.
        ("idle_in_transaction_session_timeout", "10s".to_owned()),
    ];
    let theirs =
        settings.iter().filter(|(name, _)| !is_timeout(name)).map(|(name, value)| (name.as_str(), value.clone()));
    let mut sql = String::new();
    for (name, value) in theirs.chain(ours) {
        // A list such as a search_path must not become one quoted name: set_config takes the text as a person would write it.
        sql += &format!("SELECT pg_catalog.set_config({}, {}, true);\n", ident::literal(name), ident::literal(&value));
    }
    sql
}

/// The same for a question to the whole stage, of which a chunk's statement timeout says nothing.
pub fn set_local_for_whole(settings: &Settings, limit: Duration) -> String {
    let mut settings = settings.clone();
    settings.retain(|name, _| !name.eq_ignore_ascii_case("statement_timeout"));
    set_local(&settings, limit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_postgresql_writes_them() {
        for (text, ms) in [("1500", 1_500), ("1500ms", 1_500), ("90s", 90_000), ("5 min", 300_000), ("1h", 3_600_000)] {
            assert_eq!(milliseconds(text), Some(Duration::from_millis(ms)), "{text}");
        }
        for text in ["", "s", "5 parsecs", "-1", "99999999999h"] {
            assert_eq!(milliseconds(text), None, "{text}");
        }
    }

    #[test]
    fn a_deadline_cuts_the_statement_timeout_and_the_lock_timeout_stays_below_it() {
        let sql = set_local(&Settings::new(), Duration::from_secs(20));
        assert!(sql.contains("'statement_timeout', '20000ms'") && sql.contains("'lock_timeout', '10000ms'"), "{sql}");
    }

    #[test]
    fn only_settings_of_the_list_are_taken() {
        let mut findings = Vec::new();
        let session = [("work_mem", "64MB"), ("fsync", "off"), ("lock_timeout", "500ms")];
        examine(&session.map(|(k, v)| (k.to_owned(), v.to_owned())).into(), &mut findings);
        let at: Vec<&str> = findings.iter().map(|f| f.at.as_str()).collect();
        assert_eq!(at, ["session.fsync", "session.lock_timeout"]);
    }
}
