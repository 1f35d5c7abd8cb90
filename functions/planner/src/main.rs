//! The planner Lambda: starts a run of a job, or goes on with a run, and answers with the Map's items.

mod request;

use stagemill_engine::{
    answer::{Answer, Step},
    failure::Failure,
    pg::Connection,
    plan::{self, DeadRun, Start, Started},
    resume,
};
use stagemill_lambda::{boot, session::Session};

use request::{Input, Request};

#[tokio::main]
async fn main() -> Result<(), lambda_runtime::Error> {
    let session = Session::from_env().await;
    boot::run(async |request, _| plan(&session, request).await).await
}

async fn plan(session: &Session, request: Request) -> Result<Answer, Failure> {
    let connection = session.open().await?;
    match &request.input {
        Input::Start { job, trigger } => {
            let job = job.job(&connection).await?;
            let start = Start {
                owner: &request.start,
                trigger_id: trigger.as_ref().map(|trigger| trigger.id.as_str()),
                job: &job,
                // Nobody is there to ask: a run whose owner died must not keep every later batch out.
                dead: DeadRun::Abandon,
            };
            start_run(&connection, &start).await
        }
        Input::Resume(run) => {
            let answer = resume::run(&connection, *run, &request.start, false).await?;
            tracing::info!(run, round = answer.round, items = answer.items.len(), status = ?answer.status, "resumed");
            Ok(answer)
        }
    }
}

async fn start_run(connection: &Connection, start: &Start<'_>) -> Result<Answer, Failure> {
    let job = &start.job.name;
    match plan::start(connection, start).await? {
        Started::Run(answer) => {
            tracing::info!(run = answer.run, job, items = answer.items.len(), status = ?answer.status, "planned");
            Ok(answer)
        }
        Started::Taken(open) => {
            tracing::warn!(
                run = open.id,
                job,
                owner = open.owner,
                "an open run keeps this start out; nothing was done"
            );
            Ok(Answer::end(open.id, 0, Step::Coalesced))
        }
    }
}
