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
    /// PROCESSED_WITH_ERROR; the others go on.
    Fail,
    /// PROCESSED_WITH_ERROR, and nothing more of the run is started.
    Halt,
}

/// Decides what follows. `deferred` says that this class already cost the chunk an earlier round.
pub const fn next(class: Class, attempt: i32, attempt_limit: i32, deferred: bool) -> Next {
    let last = attempt >= attempt_limit;
    match class.remedy() {
        Remedy::HaltRun => Next::Halt,
        Remedy::FailChunk => Next::Fail,
        // One more try after all other chunks are done (a child staged before its parent); a timeout may repeat.
        Remedy::Defer if last || (deferred && matches!(class, Class::ConstraintViolation)) => Next::Fail,
        Remedy::Defer => Next::NextRound,
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
        assert_eq!(next(Class::Contention, 1, 5, false), Next::Retry);
        assert_eq!(next(Class::Contention, 5, 5, false), Next::Fail);
        assert_eq!(next(Class::ConstraintViolation, 1, 5, false), Next::NextRound);
        assert_eq!(next(Class::ConstraintViolation, 2, 5, true), Next::Fail);
        assert_eq!(next(Class::TimedOut, 2, 5, true), Next::NextRound);
        assert_eq!(next(Class::TimedOut, 5, 5, true), Next::Fail);
        assert_eq!(next(Class::BadData, 1, 5, false), Next::Fail);
        assert_eq!(next(Class::BadJob, 1, 5, false), Next::Halt);
    }
}
