//! The planner Lambda: starts a run of a job and answers with the Map's items.

mod request;

use stagemill_engine::{
    answer::{Answer, Step},
    failure::Failure,
    plan::{self, DeadRun, Start, Started},
};
use stagemill_lambda::{boot, session::Session};

use request::Request;

#[tokio::main]
async fn main() -> Result<(), lambda_runtime::Error> {
    let session = Session::from_env().await;
    boot::run(async |request, _| plan(&session, request).await).await
}

async fn plan(session: &Session, request: Request) -> Result<Answer, Failure> {
    let connection = session.open().await?;
    let job = request.input.job(&connection).await?;
    let start = Start {
        owner: &request.start,
        trigger_id: request.input.trigger.as_ref().map(|trigger| trigger.id.as_str()),
        job: &job,
        // Nobody is there to ask: a run whose owner died must not keep every later batch out.
        dead: DeadRun::Abandon,
    };
    match plan::start(&connection, &start).await? {
        Started::Run(answer) => {
            tracing::info!(run = answer.run, job = job.name, items = answer.items.len(), status = ?answer.status, "planned");
            Ok(answer)
        }
        Started::Taken(open) => {
            tracing::warn!(
                run = open.id,
                job = job.name,
                owner = open.owner,
                "an open run keeps this start out; nothing was done"
            );
            Ok(Answer::end(open.id, 0, Step::Coalesced))
        }
    }
}
