//! Failures as the state machine sees them: `Stagemill.<class>` and a text without row values.

use lambda_runtime::Diagnostic;
use stagemill_engine::failure::Failure;

/// The runtime logs errors with `{:?}`, and tokio-postgres's own would print `Failing row contains (…)`: nothing but this goes out.
pub fn diagnostic(failure: &Failure) -> Diagnostic {
    Diagnostic { error_type: failure.class.error_name(), error_message: failure.to_string() }
}
