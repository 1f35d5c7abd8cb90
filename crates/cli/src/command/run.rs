//! `stagemill run`: plans a job and drives the run to its end.

use stagemill_engine::{
    answer::Answer,
    check,
    failure::{Class, Failure},
    finding::Finding,
    job::Job,
    ledger::{self, run::OpenRun},
    local, outcome,
    pg::Server,
    plan::{self, DeadRun, Start, Started},
    record,
};

use super::taken::{self, Life};
use crate::{
    args::RunArgs,
    drive::{self, Show},
    exit::{CliError, Exit},
    jobfile, log, server, table,
    world::{Stream, World},
};

pub(crate) async fn run(args: RunArgs, world: &World) -> Result<Exit, CliError> {
    if jobfile::is_file(&args.job) {
        jobfile::read(args.job.as_ref())?;
    }
    let server = server::server(&world.connect)?;
    let job = jobfile::load(&args.job, args.changes, &server).await?;
    let connection = server::connect(&server).await?;
    server::require_ledger(&server, &connection).await?;
    let checked = check::job(&connection, &job).await?;
    drop(connection);
    if Finding::any_error(&checked.findings) {
        return Err(CliError::Findings { what: format!("job {}", args.job), findings: checked.findings });
    }
    let log = Some(log::to_file(world, &args.drive.log_dir, &job.name)?);
    let show = Show { quiet: args.drive.quiet, json: args.drive.json, log };
    if !checked.findings.is_empty() {
        show.say(world, &table::findings(&checked.findings, Stream::Err));
    }
    let ended = Box::pin(start(
        &Starting { world, server: &server, job: &job, typed: &args.job, abandon: args.abandon },
        &show,
    ))
    .await?;
    drive::conclude(world, &ended, &show)
}

/// A run that is about to start.
pub(crate) struct Starting<'a> {
    pub(crate) world: &'a World,
    pub(crate) server: &'a Server,
    pub(crate) job: &'a Job,
    /// The job as it was typed.
    pub(crate) typed: &'a str,
    /// Whether a dead run is closed to make place.
    pub(crate) abandon: bool,
}

/// Plans a run and drives it.
pub(crate) async fn start(starting: &Starting<'_>, show: &Show) -> Result<local::Ended, CliError> {
    let owner = drive::owner();
    tracing::info!(job = starting.job.name, owner, server = %starting.server, "job {} is planned", starting.job.name);
    let answer = match plan(starting, &owner).await? {
        Started::Run(answer) => answer,
        Started::Taken(open) => make_place(starting, &open, &owner).await?,
    };
    drive::drive(starting.world, starting.server, answer, &owner, show).await
}

async fn plan(starting: &Starting<'_>, owner: &str) -> Result<Started, CliError> {
    let Starting { world, server, job, .. } = *starting;
    let dead = if starting.abandon { DeadRun::Abandon } else { DeadRun::Keep };
    let stop = world.stop();
    let planned = local::persist(
        async || {
            let connection = server.connect("stagemill:plan").await?;
            plan::start(&connection, &Start { owner, trigger_id: None, followed_by: &[], job, dead }).await
        },
        &stop,
    );
    let planned = tokio::select! {
        // The wish first: it also ends the wait for a retry, whose failure is then no cause.
        biased;
        () = stop.cancelled() => return Err(interrupted(server, owner).await),
        planned = planned => planned,
    };
    match planned {
        Ok(started) => Ok(started),
        Err(failure) => {
            tracing::error!(target: log::FILE_ONLY, class = ?failure.class, sqlstate = failure.sqlstate, "planning job {} failed: {failure}", job.name);
            // Where it can't be closed now, the next start finds it dead.
            if let Ok(connection) = server.connect("stagemill").await {
                let _ = record::planning_failed(&connection, owner, &failure).await;
            }
            let hint = "nothing was applied: mend the cause, and run it again";
            Err(CliError::hinted(failure.while_doing(&format!("planning job {}", job.name)), hint))
        }
    }
}

/// Ends a planning that somebody broke off. Nothing of it was applied.
async fn interrupted(server: &Server, owner: &str) -> CliError {
    let text = "interrupted while the run was planned: nothing was applied, start it again";
    let close = async {
        let connection = server.connect("stagemill").await?;
        record::planning_failed(&connection, owner, &Failure::new(Class::Stopped, text)).await?;
        // The plan may have been written at the last moment.
        let planned = ledger::run::of_owner(&connection, owner).await?;
        if let Some(run) = planned.filter(|run| run.status == outcome::Status::Running) {
            ledger::run::interrupt(&connection, run.id, owner).await?;
            return Ok(Some(run.id));
        }
        Ok::<_, Failure>(None)
    };
    match close.await {
        Ok(Some(run)) => CliError::Interrupted(format!(
            "interrupted before anything was applied\n  stagemill resume {run}    goes on"
        )),
        Ok(None) => CliError::Interrupted(text.to_owned()),
        Err(failure) => CliError::Interrupted(format!("{text}\nits run could not be closed: {failure}")),
    }
}

/// Another run is open: closes it when it is dead and that was asked for, else says who is in the way.
async fn make_place(starting: &Starting<'_>, open: &OpenRun, owner: &str) -> Result<Answer, CliError> {
    let connection = server::connect(starting.server).await?;
    if starting.abandon && taken::life(open) == Life::Gone {
        plan::abandon(&connection, open).await?;
        if let Started::Run(answer) = plan(starting, owner).await? {
            return Ok(answer);
        }
    }
    let summary = ledger::summary::of_run(&connection, open.id).await?;
    tracing::warn!(target: log::FILE_ONLY, run = open.id, owner = open.owner, status = open.status.as_str(),
        "nothing was started: run {} of job {} is open", open.id, open.job);
    Err(taken::error(open, &summary, &starting.job.name, starting.typed))
}
