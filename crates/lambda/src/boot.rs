//! Start-up: structured logs, and the loop that hands events to a function.

use std::future::Future;

use lambda_runtime::{LambdaEvent, service_fn};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;
use stagemill_engine::{
    failure::{Class, Failure},
    finding,
};
use tracing_subscriber::EnvFilter;

use crate::diagnostic::diagnostic;

/// An event can quote 256 kB of its author's text.
const LONGEST_FAULT: usize = 2_000;

/// Runs a function until its sandbox ends.
///
/// # Errors
/// When the Lambda runtime can't be reached.
pub async fn run<Request, Answer, Handler, Handled>(handler: Handler) -> Result<(), lambda_runtime::Error>
where
    Request: DeserializeOwned,
    Answer: Serialize,
    Handler: Fn(Request, lambda_runtime::Context) -> Handled,
    Handled: Future<Output = Result<Answer, Failure>>,
{
    log();
    let handler = &handler;
    lambda_runtime::run(service_fn(move |event: LambdaEvent<Value>| async move {
        // Read here, so that an event of another shape gets a name of ours; serde names the field.
        let request = self::event(event.payload).map_err(|failure| diagnostic(&failure))?;
        // Boxed: the engine's futures nest deeper than the compiler follows in one type.
        Box::pin(handler(request, event.context)).await.map_err(|failure| {
            tracing::warn!(class = ?failure.class, sqlstate = failure.sqlstate, "the call failed: {}", failure.message());
            diagnostic(&failure)
        })
    }))
    .await
}

/// Reads an event.
///
/// # Errors
/// [`Class::BadJob`] when it has another shape: the field, what is wrong with it, and where right ones are.
pub fn event<Request: DeserializeOwned>(event: Value) -> Result<Request, Failure> {
    serde_path_to_error::deserialize(event).map_err(|error| {
        let path = error.path().to_string();
        // serde says what is wrong with a value, not where it is.
        let at = if path == "." { String::new() } else { format!("{path}: ") };
        let fault = finding::shown(format!("{at}{}", error.into_inner()), LONGEST_FAULT);
        Failure::new(Class::BadJob, format!("the event can't be used: {fault}; see the samples under events/"))
    })
}

/// One JSON line an event, on standard output, where CloudWatch Logs reads it. `RUST_LOG` sets the verbosity.
fn log() {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    // A second call in one process would be refused, and changes nothing.
    let _ = tracing_subscriber::fmt()
        .json()
        .flatten_event(true)
        .with_target(false)
        .with_current_span(false)
        .with_env_filter(filter)
        .try_init();
}
