//! The recorder Lambda: ends a round, closes runs in the log table, and writes their metrics.

mod metric;
mod request;

use stagemill_engine::{
    answer::Answer,
    failure::{Class, Failure},
    record,
};
use stagemill_lambda::{boot, session::Session};

use metric::Metrics;
use request::Request;

#[tokio::main]
async fn main() -> Result<(), lambda_runtime::Error> {
    let session = Session::from_env().await;
    let metrics = Metrics::new()?;
    boot::run(async |request, _| record(&session, &metrics, request).await).await
}

async fn record(session: &Session, metrics: &Metrics, request: Request) -> Result<Answer, Failure> {
    let connection = session.open().await?;
    let (answer, closed) = match request {
        Request::Round { start, run, round } => match record::round_of(&connection, &start, run, round).await {
            Ok(recorded) => (recorded.answer, recorded.closed),
            // Another execution goes on with the run. As an answer, so that the execution's cause is a sentence and not Lambda's JSON.
            Err(failure) if failure.class == Class::RunClosed => {
                tracing::warn!(run, round, "{failure}");
                (Answer::failed(run, round, failure.class.error_name(), failure.message().to_owned()), None)
            }
            Err(failure) => return Err(failure),
        },
        Request::PlanFailed { start, failure } => {
            let (error, cause) = failure.read();
            let closed = record::ended_from_outside(
                &connection,
                &start,
                &Failure::new(Class::of_error_name(&error), cause.clone()),
            )
            .await;
            let closed = match closed {
                Err(failure) if failure.class.is_retryable() => return Err(failure),
                // Without a ledger there is no run to close: the planner's own error says more.
                Err(failure) => {
                    tracing::warn!(class = ?failure.class, "no run could be closed: {failure}");
                    None
                }
                Ok(closed) => closed,
            };
            (Answer::failed(0, 0, error, cause), closed)
        }
        Request::ExecutionEnded { execution_ended: ended } => {
            let cause = ended.cause();
            let closed =
                record::ended_from_outside(&connection, &ended.execution, &Failure::new(Class::Stopped, cause.clone()))
                    .await?;
            (Answer::failed(0, 0, Class::Stopped.error_name(), cause), closed)
        }
    };
    if let Some(run) = closed {
        tracing::info!(run = run.run, job = run.job, status = run.status.as_str(), "run ended");
        metrics.write(&run);
    }
    Ok(answer)
}
