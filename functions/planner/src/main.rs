//! The planner Lambda: starts a run of a job, or goes on with a run, and answers with the Map's items.

mod jobs;
mod request;

use stagemill_engine::{
    answer::{Answer, Step},
    failure::Failure,
    ledger::run::rerun::{self, Request as Asked},
    pg::Connection,
    plan::{self, DeadRun, Start, Started},
    resume,
};
use stagemill_lambda::{
    boot,
    session::Session,
    turn::{InTurn, not_started},
};

use request::{Input, Request};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), lambda_runtime::Error> {
    let session = Session::from_env().await;
    boot::run(async |request, _| plan(&session, request).await).await
}

async fn plan(session: &Session, request: Request) -> Result<InTurn, Failure> {
    let connection = session.open().await?;
    let turn = request.turn;
    let answer = match &request.input {
        Input::Resume(run) if turn.sequence == 1 => {
            let answer = resume::run(&connection, *run, &request.start, false).await?;
            tracing::info!(run, round = answer.round, items = answer.items.len(), status = ?answer.status, "resumed");
            answer
        }
        input => start(&connection, &request, input).await?,
    };
    Ok(InTurn::new(answer, turn))
}

/// Starts the job whose turn it is.
async fn start(connection: &Connection, request: &Request, input: &Input) -> Result<Answer, Failure> {
    let turn = request.turn;
    let jobs = input.jobs(connection).await?;
    let followed_by = jobs.after(turn.position);
    let placed = |failure: Failure| match jobs.count() {
        1 => failure,
        count => {
            failure.while_doing(&format!("job {} of {count}", turn.position + 1)).so_that(&not_started(followed_by))
        }
    };
    let job = jobs.at(turn.position, connection).await.map_err(placed)?;
    let start = Start {
        owner: &turn.owner(&request.start),
        // The event is known by the first job's run: were a later one taken for a duplicate, those after it would not be started. One more run is
        // nobody's event: those who asked for it are known by the run that they met.
        trigger_id: input.trigger().filter(|_| turn.position == 0 && !turn.rerun),
        followed_by,
        job: &job,
        // Nobody is there to ask: a run whose owner died must not keep every later batch out.
        dead: DeadRun::Abandon,
    };
    start_run(connection, &start, turn.position == 0).await.map_err(placed)
}

/// Starts a run. One that is in the way makes one more, where this is the first of its execution's jobs and its owner can; else it is waited for.
async fn start_run(connection: &Connection, start: &Start<'_>, may_leave: bool) -> Result<Answer, Failure> {
    let job = &start.job.name;
    loop {
        let open = match plan::start(connection, start).await? {
            Started::Run(answer) => {
                tracing::info!(run = answer.run, job, items = answer.items.len(), status = ?answer.status, "planned");
                return Ok(answer);
            }
            Started::Taken(open) => open,
        };
        let asked = if may_leave && open.job == *job {
            rerun::request(connection, &open, start.trigger_id, start.followed_by).await?
        } else {
            Asked::Refused
        };
        let step = match asked {
            Asked::Taken => Step::Coalesced,
            Asked::Refused => Step::Wait,
            // It ended between the two looks: nothing is in the way any more.
            Asked::Ended => continue,
        };
        tracing::warn!(run = open.id, job, owner = open.owner, ?step, "an open run keeps this start out");
        return Ok(Answer::end(open.id, 0, step));
    }
}
