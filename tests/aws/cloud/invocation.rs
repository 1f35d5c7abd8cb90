//! The record of calls, and the faults that a test can play.

use super::function::FunctionName;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// One call of a function, as the front saw it.
#[derive(Clone, Debug, Deserialize)]
#[allow(dead_code, reason = "all of it is in the message of a test that fails")]
pub struct Invocation {
    /// Whose call.
    pub function: FunctionName,
    /// The process that served it, by the name of its log.
    pub sandbox: String,
    /// Its process id.
    pub pid: u32,
    /// What it was given.
    pub payload: Value,
    /// Seconds since 1970.
    pub start: f64,
    /// Seconds since 1970; none while it is in flight.
    pub end: Option<f64>,
    /// What it answered, or the error's description. Not what the caller got, when a fault was played.
    pub answer: Value,
    /// It failed.
    pub error: bool,
}

/// What can go wrong with a call.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Fault {
    /// The call is served to its end, and its answer is lost on the way: the caller sees `Sandbox.Timedout`.
    LoseAnswer,
    /// The call is served twice, one after the other, and the second answer is the one that counts.
    DeliverTwice,
}

/// An error as a function, or Lambda itself, reports it.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct FunctionError {
    /// The name that the state machine matches.
    pub error_type: String,
    /// The message.
    pub error_message: String,
}

impl FunctionError {
    pub(super) fn other(status: u16, body: String) -> Self {
        Self { error_type: format!("HTTP {status}"), error_message: body }
    }
}

/// The largest number of calls of a function that were in flight together.
pub fn most_in_flight(invocations: &[Invocation], function: FunctionName) -> usize {
    let own = invocations.iter().filter(|invocation| invocation.function == function);
    let mut changes: Vec<(f64, isize)> =
        own.flat_map(|call| [(call.start, 1), (call.end.unwrap_or(f64::INFINITY), -1)]).collect();
    // At one and the same moment, the one that ends has ended first.
    changes.sort_by(|one, other| one.0.total_cmp(&other.0).then(one.1.cmp(&other.1)));
    let running = changes.iter().scan(0_isize, |count, (_, change)| {
        *count += change;
        Some(*count)
    });
    running.max().and_then(|most| usize::try_from(most).ok()).unwrap_or(0)
}
