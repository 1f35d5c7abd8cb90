//! How long to wait before a retry, and what becomes of a chunk whose attempt failed.

use std::time::Duration;

use crate::failure::{Class, Remedy};

/// Exponential backoff with full jitter: anywhere between nothing and the doubled step, so that workers that failed together do not
/// come back together. (The retry crates looked at add their jitter on top of the step.)
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    /// The first step.
    pub step: Duration,
    /// The longest wait.
    pub longest: Duration,
}

impl Backoff {
    /// The local driver's schedule for a class; the state machine has its own, longer ones.
    pub const fn of(class: Class) -> Self {
        match class.remedy() {
            Remedy::GoSlower => Self { step: Duration::from_secs(4), longest: Duration::from_secs(60) },
            _ => Self { step: Duration::from_millis(500), longest: Duration::from_secs(20) },
        }
    }

    /// The wait before retry number `retry` (from 0), with `dice` in 0..1.
    pub fn wait(self, retry: u32, dice: f64) -> Duration {
        self.step.saturating_mul(2_u32.saturating_pow(retry)).min(self.longest).mul_f64(dice)
    }
}

/// What becomes of a chunk after an attempt that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Back to UNASSIGNED, due in this round.
    Retry,
    /// Back to UNASSIGNED, due in the next round.
    NextRound,
    /// SPLIT: two chunks in its place, due in this round.
    Split,
    /// PROCESSED_WITH_ERROR; the others go on.
    Fail,
    /// PROCESSED_WITH_ERROR, and nothing more of the run is started.
    Halt,
}

/// What is known of a chunk whose attempt failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tried {
    /// Which attempt it was.
    pub attempt: i32,
    /// How many there may be.
    pub attempt_limit: i32,
    /// Whether this class already cost the chunk an earlier round.
    pub deferred: bool,
    /// Whether no other round will follow.
    pub last_round: bool,
    /// Whether it holds more than one row that it could be cut between.
    pub divisible: bool,
}

/// Decides what follows.
pub const fn next(class: Class, tried: Tried) -> Next {
    let last = tried.attempt >= tried.attempt_limit;
    match class.remedy() {
        Remedy::HaltRun => Next::Halt,
        Remedy::FailChunk => Next::Fail,
        Remedy::Split if tried.divisible => Next::Split,
        // One more try after all other chunks are done (a child staged before its parent); a timeout may repeat.
        Remedy::Defer if tried.deferred => Next::Fail,
        Remedy::Defer | Remedy::Split if last || tried.last_round => Next::Fail,
        Remedy::Defer | Remedy::Split => Next::NextRound,
        Remedy::Retry | Remedy::GoSlower if last => Next::Fail,
        Remedy::Retry | Remedy::GoSlower => Next::Retry,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_longest_and_are_spread_over_all_of_it() {
        let backoff = Backoff { step: Duration::from_secs(1), longest: Duration::from_secs(10) };
        let longest: Vec<u64> = (0..6).map(|n| backoff.wait(n, 1.0).as_secs()).collect();
        assert_eq!(longest, [1, 2, 4, 8, 10, 10]);
        assert_eq!(backoff.wait(3, 0.0), Duration::ZERO);
        assert_eq!(backoff.wait(3, 0.5), Duration::from_secs(4));
        assert_eq!(backoff.wait(u32::MAX, 1.0), Duration::from_secs(10));
    }

    #[test]
    fn what_becomes_of_a_failed_attempt() {
        let first = Tried { attempt: 1, attempt_limit: 5, deferred: false, last_round: false, divisible: true };
        let (last, alone) = (Tried { attempt: 5, ..first }, Tried { divisible: false, ..first });
        for (class, tried, expected) in [
            (Class::Contention, first, Next::Retry),
            (Class::Contention, last, Next::Fail),
            (Class::ConstraintViolation, first, Next::NextRound),
            (Class::ConstraintViolation, Tried { deferred: true, ..first }, Next::Fail),
            (Class::ConstraintViolation, Tried { last_round: true, ..first }, Next::Fail),
            (Class::TimedOut, first, Next::Split),
            (Class::TimedOut, last, Next::Split),
            (Class::TimedOut, alone, Next::NextRound),
            (Class::TimedOut, Tried { attempt: 5, ..alone }, Next::Fail),
            (Class::BadData, first, Next::Fail),
            (Class::BadJob, first, Next::Halt),
        ] {
            assert_eq!(next(class, tried), expected, "{class:?} {tried:?}");
        }
    }
}
