//! What `run`, `resume` and `demo` share: driving a run to its end, and saying how it ended.

use std::path::PathBuf;

use serde_json::json;
use stagemill_engine::{
    answer::Answer,
    apply::Report,
    failure::Class,
    ledger::{self, summary::Summary},
    local::{Driver, Ended},
    outcome::Status,
    pg::Server,
};

use crate::{
    exit::{CliError, Exit},
    log,
    progress::Progress,
    server, table,
    world::World,
};

/// How a run is shown.
#[derive(Debug, Default)]
pub(crate) struct Show {
    /// Without progress.
    pub(crate) quiet: bool,
    /// The summary as JSON.
    pub(crate) json: bool,
    /// Where the log file is.
    pub(crate) log: Option<PathBuf>,
}

impl Show {
    /// Says something about the run's progress, unless that is not wanted.
    pub(crate) fn say(&self, world: &World, text: &str) {
        if !self.quiet {
            world.say(text);
        }
    }
}

/// This process in the ledger: host, process, and when it started, so that no two are ever the same.
pub(crate) fn owner() -> String {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    format!("{}:{}:{}", host(), std::process::id(), now.as_nanos())
}

/// This machine's name.
pub(crate) fn host() -> String {
    nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok()).unwrap_or_else(|| "unknown".to_owned())
}

/// Drives a run from its first items to its end.
pub(crate) async fn drive(
    world: &World,
    server: &Server,
    answer: Answer,
    owner: &str,
    show: &Show,
) -> Result<Ended, CliError> {
    let id = answer.run;
    let connection = server::connect(server).await?;
    let planned = ledger::summary::of_run(&connection, id).await?;
    drop(connection);
    let log = show.log.as_ref().map(|path| format!("; log {}", path.display())).unwrap_or_default();
    show.say(
        world,
        &format!(
            "run {id}: {} to {}, {} in {}{log}",
            table::plain(&planned.stage),
            table::plain(&planned.target),
            table::many(planned.tally.chunks, "chunk", "chunks"),
            table::sessions(&planned)
        ),
    );
    tracing::info!(
        run = id,
        job = planned.job,
        stage = planned.stage,
        target_table = planned.target,
        chunks = planned.tally.chunks,
        chunks_left = planned.tally.left,
        parallelism = planned.parallelism,
        owner,
        "run {id} of job {} starts round {}",
        planned.job,
        answer.round
    );
    let progress = Progress::start(world, &planned.job, id, &planned.tally, show.quiet);
    let report = |report: Report<'_>| progress.report(&report);
    let driver = Driver { server, worker: owner, stop: world.stop(), report: &report };
    world.set_in_flight(Some(id));
    let ended = driver.run(answer).await;
    world.set_in_flight(None);
    progress.finish();
    ended.map_err(|failure| {
        tracing::error!(target: log::FILE_ONLY, run = id, class = ?failure.class, sqlstate = failure.sqlstate, "run {id} was left: {failure}");
        let hint = match failure.class {
            Class::RunClosed => format!(
                "run {id} is no longer this one's: `stagemill status {id}` shows how it stands"
            ),
            _ => format!(
                "run {id} is left open, and what it applied is safe: `stagemill resume {id}` goes on with the rest"
            ),
        };
        CliError::hinted(failure.while_doing(&format!("run {id}")), hint)
    })
}

/// Prints how a run ended, and gives the code to end with.
pub(crate) fn conclude(world: &World, ended: &Ended, show: &Show) -> Result<Exit, CliError> {
    let (Ended::Closed(summary) | Ended::Interrupted(summary)) = ended;
    log_end(summary);
    let log = show.log.as_ref().map(|path| path.display().to_string());
    if show.json {
        let mut value = json!(summary);
        value["log"] = json!(log);
        world.print_json(&value)?;
    } else {
        world.print(&table::summary(summary, log.as_deref()).to_string())?;
    }
    let next = next(summary, matches!(ended, Ended::Interrupted(_)));
    if let Some(next) = next {
        world.say(&next);
    }
    Ok(match (ended, summary.status) {
        (Ended::Interrupted(_), _) => Exit::Interrupted,
        (_, status) if status.is_success() => Exit::Done,
        _ => Exit::NotApplied,
    })
}

fn log_end(summary: &Summary) {
    let (run, tally, counts) = (summary.run, &summary.tally, &summary.tally.counts);
    tracing::info!(
        run,
        job = summary.job,
        status = summary.status.as_str(),
        staged_rows = counts.staged,
        inserted_rows = counts.inserted,
        updated_rows = counts.updated,
        deleted_rows = counts.deleted,
        unchanged_rows = counts.unchanged,
        skipped_rows = counts.skipped,
        rejected_rows = counts.rejected,
        handed_rows = counts.handed,
        chunks = tally.chunks,
        chunks_processed = tally.processed,
        chunks_failed = tally.failed,
        retries = tally.retries,
        duration_s = summary.seconds,
        class = summary.error_class,
        sqlstate = summary.sqlstate,
        "run {run} of job {} ended {}: {} of {} chunks applied, {} rows{}",
        summary.job,
        summary.status.as_str(),
        tally.processed,
        tally.chunks,
        counts.staged,
        summary.error.as_ref().map(|error| format!("; {error}")).unwrap_or_default(),
    );
}

/// What to type next, after a run that is not complete.
pub(crate) fn next(summary: &Summary, interrupted: bool) -> Option<String> {
    let (id, job) = (summary.run, &summary.job);
    let left = table::many(summary.tally.chunks - summary.tally.processed, "chunk", "chunks");
    let (chunks, resume) = (format!("stagemill chunks {id} --open"), format!("stagemill resume {id}"));
    let mend = || {
        table::commands(&[(&chunks, "shows them and why"), (&resume, "once mended: applies them, and nothing twice")])
    };
    let rejects = format!("stagemill rejects {id}");
    Some(match summary.status {
        Status::Complete | Status::Planning => return None,
        Status::CompleteWithRejects => format!(
            "run {id} is complete, {} set aside\n{}",
            table::many(summary.tally.counts.rejected, "row", "rows"),
            table::commands(&[
                (&rejects, "shows them and why"),
                (&format!("{rejects} --retry"), "applies them, once they are mended"),
            ])
        ),
        Status::Running if !interrupted => return None,
        Status::Running | Status::Interrupted => format!(
            "run {id} was interrupted with {left} left, and nobody is working on it\n{}",
            table::commands(&[(&resume, "goes on with the rest")])
        ),
        Status::Incomplete if summary.tally.processed == summary.tally.chunks => {
            format!("run {id} is not complete\n{}", table::commands(&[(&resume, "tries again what is left")]))
        }
        Status::Incomplete => format!("run {id} is not complete, {left} not applied\n{}", mend()),
        Status::Stopped => format!("run {id} was stopped, {left} not applied\n{}", mend()),
        Status::Failed if summary.tally.chunks == 0 => {
            format!("run {id} failed before anything was applied: mend the cause, then start job {job} again")
        }
        Status::Failed => format!("run {id} failed, {left} not applied\n{}", mend()),
        Status::SourceChanged if summary.tally.processed == summary.tally.chunks => {
            format!("start job {job} again: it applies every staged row, those of run {id} again")
        }
        Status::SourceChanged => format!(
            "run {id} can't go on, {left} not applied: the stage changed under it, and its chunks mean other rows now\nstart job {job} again: it applies every staged row, those of run {id} again"
        ),
        Status::Abandoned => format!(
            "run {id} was abandoned, {left} not applied: a later run of job {job} applies every staged row; where there is none\n{}",
            table::commands(&[(&resume, "goes on with the rest")])
        ),
    })
}
