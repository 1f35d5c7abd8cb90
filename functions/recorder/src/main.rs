//! The recorder Lambda: ends a round, closes runs in the log table, writes their metrics, and passes alarms on to runs in flight.

mod alarm;
mod request;

use stagemill_engine::{
    answer::{Answer, Step},
    failure::{Class, Failure},
    ledger::{self, summary::Summary},
    pg::Connection,
    record,
};
use stagemill_lambda::{
    boot,
    metric::Metrics,
    session::Session,
    turn::{InTurn, Turn},
};

use request::{Caught, Ended, Request};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), lambda_runtime::Error> {
    let session = Session::from_env().await;
    let metrics = Metrics::new()?;
    boot::run(async |request, _| record(&session, &metrics, request).await).await
}

/// What comes next, and the run that this call closed.
type Recorded = (InTurn, Option<Summary>);

async fn record(session: &Session, metrics: &Metrics, request: Request) -> Result<InTurn, Failure> {
    let connection = session.open().await?;
    let (answer, closed) = match request {
        Request::Round { start, run, round, turn } => {
            end_round(&connection, &turn.owner(&start), run, round, turn).await?
        }
        Request::PlanFailed { start, failure, turn } => plan_failed(&connection, &start, failure, turn).await?,
        Request::ExecutionEnded { execution_ended: ended } => execution_ended(&connection, &ended).await?,
        Request::Control { control: alarm } => {
            alarm.obey(&connection).await?;
            (InTurn::new(Answer::end(0, 0, Step::Complete), Turn::default()), None)
        }
    };
    if let Some(run) = closed {
        tracing::info!(run = run.run, job = run.job, status = run.status.as_str(), "run ended");
        metrics.run_ended(&run);
    }
    Ok(answer)
}

async fn end_round(
    connection: &Connection,
    owner: &str,
    run: i64,
    round: i32,
    turn: Turn,
) -> Result<Recorded, Failure> {
    let recorded = match record::round_of(connection, owner, run, round).await {
        Ok(recorded) => recorded,
        // Another execution goes on with the run. As an answer, so that the execution's cause is a sentence and not Lambda's JSON.
        Err(failure) if failure.class == Class::RunClosed => {
            tracing::warn!(run, round, "{failure}");
            let answer = Answer::failed(run, round, failure.class.error_name(), failure.message().to_owned());
            return Ok((InTurn::new(answer, turn), None));
        }
        Err(failure) => return Err(failure),
    };
    let answer = match ended_run(connection, owner).await? {
        Some(run) if run.id == recorded.answer.run => InTurn::ended(recorded.answer, turn, &run),
        // It goes on, or another owner has it, who also makes the runs that follow.
        _ => InTurn::new(recorded.answer, turn),
    };
    Ok((answer, recorded.closed))
}

async fn ended_run(connection: &Connection, owner: &str) -> Result<Option<ledger::run::Run>, Failure> {
    Ok(ledger::run::of_owner(connection, owner).await?.filter(|run| !run.status.is_open()))
}

async fn plan_failed(connection: &Connection, start: &str, failure: Caught, turn: Turn) -> Result<Recorded, Failure> {
    let (error, cause) = failure.read();
    let why = Failure::new(Class::of_error_name(&error), cause.clone());
    let closed = async {
        let closed = record::ended_from_outside(connection, start, &why).await?;
        Ok::<_, Failure>((closed, ended_run(connection, &turn.owner(start)).await?))
    };
    let (closed, run) = match closed.await {
        Err(failure) if failure.class.is_retryable() => return Err(failure),
        // Without a ledger there is no run to close: the planner's own error says more.
        Err(failure) => {
            tracing::warn!(class = ?failure.class, "no run could be closed: {failure}");
            (None, None)
        }
        Ok(closed) => closed,
    };
    let answer = Answer::failed(run.as_ref().map_or(0, |run| run.id), 0, error, cause);
    // The planner has named what is not started, but not the start that asked for one more run.
    let answer = match run.and_then(|run| turn.after(&run)) {
        Some(next) => InTurn::new(Answer::end(answer.run, 0, Step::Next), next),
        None => InTurn::new(answer, turn),
    };
    Ok((answer, closed))
}

async fn execution_ended(connection: &Connection, ended: &Ended) -> Result<Recorded, Failure> {
    let cause = ended.cause();
    let why = Failure::new(Class::Stopped, cause.clone());
    let closed = record::ended_from_outside(connection, &ended.execution, &why).await?;
    Ok((InTurn::new(Answer::failed(0, 0, Class::Stopped.error_name(), cause), Turn::default()), closed))
}
