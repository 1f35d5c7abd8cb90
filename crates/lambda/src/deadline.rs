//! When an invocation stops by itself: a margin before Lambda would end it.

use std::time::{Duration, Instant, SystemTime};

use lambda_runtime::Context;
use stagemill_engine::{
    apply::Stop,
    failure::{Class, Failure},
};

/// Time for rolling back, for the ledger and for the answer.
const MARGIN: Duration = Duration::from_secs(15);

/// Reads `STOP_BEFORE_DEADLINE_SECONDS`.
///
/// # Errors
/// When it is set to something else than a number of seconds.
pub fn margin() -> Result<Duration, Failure> {
    match crate::secret::variable("STOP_BEFORE_DEADLINE_SECONDS") {
        None => Ok(MARGIN),
        Some(text) => {
            text.parse().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok()).ok_or_else(|| {
                Failure::new(
                    Class::Configuration,
                    format!("STOP_BEFORE_DEADLINE_SECONDS is {text:?}; give a number of seconds"),
                )
            })
        }
    }
}

/// The end of an invocation's work.
pub fn stop(context: &Context, margin: Duration) -> Stop {
    let left = context.deadline().duration_since(SystemTime::now()).unwrap_or_default().saturating_sub(margin);
    Stop { deadline: Some(Instant::now() + left), ..Stop::default() }
}
