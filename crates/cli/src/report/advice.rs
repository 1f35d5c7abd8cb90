//! What to try next: a pure function over what the chunks add up to.

use stagemill_engine::failure::Class;

use super::{
    chart::round_up,
    facts::Facts,
    histogram::{length, quantile},
};
use crate::table::{count, many, whole_duration};

/// What the job said that the advice is about, and how the run stands beside its chunks.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Asked {
    /// `chunks.rows`.
    pub(crate) rows: i64,
    /// Whether the run finds the number of chunks at a time itself.
    pub(crate) auto: bool,
    /// Whether the deadline was missed.
    pub(crate) late: bool,
}

/// One thing to try.
#[derive(Debug, PartialEq, Eq, serde::Serialize)]
pub(crate) struct Advice {
    /// What to do.
    pub(crate) what: String,
    /// What speaks for it.
    pub(crate) why: String,
}

/// With fewer chunks nothing can be said of them.
const ENOUGH: usize = 20;

/// Below this a chunk's two short transactions are a good part of its time.
const SHORT: f64 = 0.05;

/// A chunk should take about this long: nothing is lost by its own costs, and little when it has to be repeated.
const GOOD: f64 = 0.5;

/// What to try next, what helps most first.
pub(crate) fn advice(facts: &Facts, asked: Asked) -> Vec<Advice> {
    [
        too_slow(facts, asked),
        held_back(facts),
        retries(facts),
        idle_at_the_end(facts, asked),
        too_short(facts, asked),
        uneven(facts),
        more_at_a_time(facts, asked),
    ]
    .into_iter()
    .flatten()
    .map(|(what, why)| Advice { what, why })
    .collect()
}

type Said = Option<(String, String)>;

fn too_slow(facts: &Facts, asked: Asked) -> Said {
    let split = facts.split;
    (split > 0).then(|| {
        let rows = count((round_up(asked.rows as f64 / 5.0) as i64).max(1));
        (
            format!("Lower chunks.rows, say to {rows}, or raise statement_timeout in session."),
            format!(
                "{} ran into the timeout and had to be split; what was done until then was done in vain.",
                chunks(split)
            ),
        )
    })
}

fn held_back(facts: &Facts) -> Said {
    let part = facts.limited / facts.seconds.max(1e-9);
    (part > 0.2 && facts.limited > 1.0).then(|| {
        (
            "Run it when the server is less busy, or loosen the limit that held it back; more sessions will not help."
                .into(),
            format!(
                "It was held back for {}, {:.0} % of its time.",
                whole_duration(facts.limited),
                part.min(1.0) * 100.0
            ),
        )
    })
}

fn retries(facts: &Facts) -> Said {
    let applied = facts.durations.len();
    (applied >= ENOUGH && facts.retried * 20 > applied).then(|| {
        (
            "Look for what else writes to the target or ran at the same time: the log file names each cause. Fewer sessions collide less.".into(),
            format!("{} of {} needed more than one try.", count(facts.retried as i64), chunks(applied)),
        )
    })
}

fn idle_at_the_end(facts: &Facts, asked: Asked) -> Said {
    (facts.tail > 2.0 && facts.tail > facts.seconds * 0.1).then(|| {
        let rows = count((round_up(asked.rows as f64 / 5.0) as i64).max(1));
        (
            format!("Lower chunks.rows, say to {rows}, so that the last chunks end together."),
            format!("For the last {} half of the workers had nothing left to do.", whole_duration(facts.tail)),
        )
    })
}

/// Where the planner made smaller chunks than it was allowed, since there are few rows, more rows a chunk would change nothing.
fn too_short(facts: &Facts, asked: Asked) -> Said {
    let median = facts.median();
    let full = facts.median_rows * 2 >= asked.rows;
    let fits = facts.durations.len() >= ENOUGH && full && median < SHORT && facts.split == 0;
    fits.then(|| {
        let rows = round_up(asked.rows as f64 * (GOOD / median.max(0.001)).clamp(2.0, 20.0)) as i64;
        (
            format!("Raise chunks.rows, say to {}.", count(rows)),
            format!(
                "Half of the chunks took {} or less, of which their own bookkeeping is a good part.",
                length(median)
            ),
        )
    })
}

fn uneven(facts: &Facts) -> Said {
    let (median, longest) = (facts.median(), quantile(&facts.durations, 1.0));
    let slow = facts.durations.len() >= ENOUGH && longest > 2.0 && longest > median * 20.0;
    slow.then(|| {
        (
            "Look at the slowest chunks below: a lock that they waited for, a key with many rows, or a first read from disk.".into(),
            format!("The slowest chunk took {}, half of them {} or less.", length(longest), length(median)),
        )
    })
}

fn more_at_a_time(facts: &Facts, asked: Asked) -> Said {
    let busy = facts.in_flight / f64::from(facts.parallelism.max(1));
    (asked.late && !asked.auto && busy > 0.8 && facts.held < facts.seconds * 0.1).then(|| {
        (
            r#"Try "parallelism": "auto": the run finds how many chunks at a time are best."#.into(),
            format!(
                "The deadline was missed, and all {} were busy nearly all the time.",
                many(i64::from(facts.parallelism), "session", "sessions")
            ),
        )
    })
}

fn chunks(n: usize) -> String {
    many(i64::try_from(n).unwrap_or(i64::MAX), "chunk", "chunks")
}

/// What to do about chunks that failed, by the class's name in the ledger; RUN stands for the run.
pub(crate) fn of_class(name: &str) -> &'static str {
    match Class::of_error_name(&format!("Stagemill.{name}")) {
        Class::BadData => {
            "Mend the rows in the stage, then resume; or set bad rows aside (on_bad_row: quarantine). `stagemill chunks RUN --open --detail` shows the value."
        }
        Class::ConstraintViolation => {
            "A row that it needs is missing, or one is in its way: mend the rows in the stage, then resume. `stagemill chunks RUN --open --detail` shows the row."
        }
        Class::TimedOut => {
            "Too slow even when split: fewer rows a chunk, a longer statement_timeout, and a look at the EXPLAIN that `plan` prints."
        }
        Class::Contention => "Another session writes the same rows, or a trigger returns NULL: find it, then resume.",
        Class::Overloaded => {
            "The server was short of connections, memory or locks: lower parallelism, see who holds the lock, then resume."
        }
        Class::ConnectionLost => {
            "Is the server up, and the address that of the writer? Then resume: the ledger knows what was done."
        }
        Class::StillRunning => "An earlier attempt still holds the chunk: its statement_timeout ends it; then resume.",
        Class::DuplicateKeys => "Two staged rows have one target key: remove one of them, then resume.",
        Class::SourceChanged => {
            "The stage was changed under the run: start the job anew, and keep writers, VACUUM FULL and TRUNCATE out."
        }
        Class::BadJob => "`stagemill check JOB` says what is wrong; mend it, then resume or start anew.",
        Class::LimitExceeded => "Look at the rows first; raise the limit only when they are as they should be.",
        Class::CredentialsRefused | Class::CredentialsRotating => "Compare the password with the role's, then resume.",
        Class::NoProgress => "A chunk does not fit into the function's time: fewer rows a chunk in a new run.",
        Class::Internal => "A defect, or an SQLSTATE that is not known: report it with the class and the code.",
        Class::AlreadyRunning
        | Class::RunClosed
        | Class::Stopped
        | Class::Incomplete
        | Class::Ledger
        | Class::Configuration => "Read the message, mend the cause, then resume.",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ASKED: Asked = Asked { rows: 5_000, auto: false, late: false };

    fn good() -> Facts {
        Facts {
            durations: vec![0.5; 100],
            median_rows: 5_000,
            seconds: 15.0,
            in_flight: 3.9,
            parallelism: 4,
            ..Facts::default()
        }
    }

    fn said(facts: &Facts, asked: Asked) -> Vec<String> {
        advice(facts, asked)
            .into_iter()
            .map(|advice| advice.what.split([',', '.']).next().unwrap_or_default().to_owned())
            .collect()
    }

    #[test]
    fn of_a_run_that_went_well_nothing_is_said() {
        assert!(said(&good(), ASKED).is_empty());
        assert!(said(&Facts::default(), ASKED).is_empty());
        assert!(said(&Facts { held: 9.0, ..good() }, ASKED).is_empty(), "a person knows why");
    }

    #[test]
    fn short_chunks_are_to_be_larger_only_where_they_could_be() {
        let short = Facts { durations: vec![0.01; 100], ..good() };
        assert_eq!(advice(&short, ASKED)[0].what, "Raise chunks.rows, say to 100,000.");
        assert!(said(&Facts { median_rows: 400, ..short }, ASKED).is_empty());
    }

    #[test]
    fn each_thing_that_stands_out_is_named() {
        for (facts, asked, expected) in [
            (Facts { split: 3, ..good() }, ASKED, "Lower chunks"),
            (Facts { held: 9.0, limited: 9.0, ..good() }, ASKED, "Run it when the server is less busy"),
            (
                Facts { retried: 20, ..good() },
                ASKED,
                "Look for what else writes to the target or ran at the same time: the log file names each cause",
            ),
            (Facts { tail: 5.0, ..good() }, ASKED, "Lower chunks"),
            (
                good(),
                Asked { late: true, ..ASKED },
                "Try \"parallelism\": \"auto\": the run finds how many chunks at a time are best",
            ),
        ] {
            assert_eq!(said(&facts, asked), [expected]);
        }
        let mut durations = vec![0.5; 99];
        durations.push(30.0);
        assert_eq!(said(&Facts { durations, ..good() }, ASKED).len(), 1);
        assert!(said(&good(), Asked { late: true, auto: true, ..ASKED }).is_empty());
    }

    #[test]
    fn every_class_has_advice_of_its_own_words() {
        assert!(of_class("BadData").contains("quarantine"));
        for class in Class::ALL {
            assert!(of_class(&format!("{class:?}")).ends_with('.'), "{class:?}");
        }
    }
}
