//! Goes on with a run that was interrupted, ended incomplete, or lost its owner: only what did not commit is done again.

mod mended;
mod rejects;

pub use rejects::rejects;

use std::time::Duration;

use crate::{
    answer::Answer,
    chunk,
    failure::{Class, Failure},
    ledger::{self, run::Run},
    outcome::Status,
    pg::{Connection, catalog},
    plan,
};

/// How long the sessions of a killed process may need to notice (`client_connection_check_interval` is 0.5 s).
const PATIENCE: Duration = Duration::from_secs(10);

/// Opens a run again under a new owner and answers with a round over what is left; with the stored answer when that owner asks again.
///
/// # Errors
/// When there is nothing to resume, a newer run took its place, or somebody is alive on it (`force` goes on all the same: the fence keeps a
/// chunk from being applied twice, but two drivers disturb each other).
pub async fn run(connection: &Connection, id: i64, owner: &str, force: bool) -> Result<Answer, Failure> {
    ledger::schema::require(connection).await?;
    if let Some(known) = ledger::run::of_owner(connection, owner).await? {
        return again(connection, &known, id).await;
    }
    let run = ledger::run::load(connection, id).await?;
    if force {
        refuse(connection, &run).await?
    } else {
        require_free(connection, &run).await?
    }
    connection.begin().await?;
    let reopened = reopen(connection, &run, owner, force).await;
    connection.end(reopened).await
}

/// The owner was here before: its first answer was lost.
async fn again(connection: &Connection, known: &Run, id: i64) -> Result<Answer, Failure> {
    if known.id == id {
        return plan::stored(connection, known).await;
    }
    let text = format!("{} owns run {} and can't go on with run {id} as well", known.owner, known.id);
    Err(Failure::new(Class::BadJob, text))
}

/// Whether a run can be resumed, and nobody works on it.
///
/// # Errors
/// When it can't be, or when somebody does and doesn't stop soon.
pub(crate) async fn require_free(connection: &Connection, run: &Run) -> Result<(), Failure> {
    refuse(connection, run).await?;
    if run.status.is_open() { wait_for_silence(connection, run).await } else { Ok(()) }
}

async fn refuse(connection: &Connection, run: &Run) -> Result<(), Failure> {
    let id = run.id;
    if run.status == Status::Complete {
        return Err(Failure::new(Class::BadJob, format!("run {id} is complete: there is nothing to resume")));
    }
    if run.status == Status::CompleteWithRejects {
        let text = format!(
            "run {id} is complete but for rows that were set aside: `stagemill rejects {id} --retry` tries those again"
        );
        return Err(Failure::new(Class::BadJob, text));
    }
    refuse_lost(connection, run).await
}

/// A run whose chunks mean nothing any more, or never did.
async fn refuse_lost(connection: &Connection, run: &Run) -> Result<(), Failure> {
    let id = run.id;
    if run.round == 0 {
        return Err(Failure::new(
            Class::BadJob,
            format!("run {id} was never planned: nothing of it was applied, start the job anew"),
        ));
    }
    if let Some(newest) = ledger::run::newest(connection, &run.job).await?.filter(|newest| *newest != id) {
        return Err(Failure::new(
            Class::BadJob,
            format!("run {id} can't be resumed: run {newest} of job {:?} came after it", run.job),
        ));
    }
    // Its chunks were cut from other rows than those that are there now.
    let stage = catalog::table(connection, &run.mapping.stage).await?;
    if stage.is_none_or(|stage| stage.leaves != run.mapping.stage_leaves) {
        let how = if run.status.is_open() {
            format!("; `stagemill run {} --abandon` closes it and starts the job anew", run.job)
        } else {
            "; start the job anew".to_owned()
        };
        let text = format!(
            "run {id} can't be resumed: {} was rewritten or replaced since it was planned (TRUNCATE, VACUUM FULL, CLUSTER, a new table){how}",
            run.mapping.stage
        );
        return Err(Failure::new(Class::SourceChanged, text));
    }
    Ok(())
}

async fn wait_for_silence(connection: &Connection, run: &Run) -> Result<(), Failure> {
    let start = tokio::time::Instant::now();
    loop {
        let open = ledger::run::open_run(connection, run.id).await?;
        // It was closed meanwhile, perhaps by the event of its execution's end. Else: a command line that died leaves no session; a Lambda may
        // come back, and only its silence tells.
        let quiet = !open.status.is_open() || (open.backend.is_none() && (!open.is_execution() || !open.is_alive()));
        if quiet {
            return Ok(());
        }
        if start.elapsed() > PATIENCE {
            let session = open.backend.map(|pid| format!(", session {pid}")).unwrap_or_default();
            return Err(Failure::new(
                Class::AlreadyRunning,
                format!(
                    "run {0} is being worked on by {1}{session} (last sign of life {2} s ago): wait for it, stop it, or go on all the same with `stagemill resume {0} --force`",
                    open.id,
                    open.owner,
                    open.silent.as_secs()
                ),
            ));
        }
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
}

async fn reopen(connection: &Connection, seen: &Run, owner: &str, force: bool) -> Result<Answer, Failure> {
    let id = seen.id;
    let run = ledger::run::lock(connection, id).await?;
    if run.owner == owner {
        // Another call for the same owner was quicker.
        return plan::stored(connection, &run).await;
    }
    if !force || run.status.is_success() {
        refuse_moved(seen, &run)?;
    }
    mended::look_again(connection, &run, &ledger::chunk::left(connection, id).await?).await?;
    let round = run.round + 1;
    let left = ledger::chunk::make_due(connection, id, round, Some(run.spec.retry.attempts)).await?;
    let items = chunk::items(id, round, &left, run.parallelism);
    ledger::run::reopen(connection, &run, owner).await?;
    ledger::run::open_round(connection, id, round, &items).await?;
    Ok(Answer::round(id, round, run.parallelism, items))
}

/// Whoever opened a round since the run was looked at is alive on it: its owner after all, or another that resumed it in the same moment.
///
/// # Errors
/// When somebody did, or completed it.
pub(crate) fn refuse_moved(seen: &Run, run: &Run) -> Result<(), Failure> {
    let id = run.id;
    if run.status.is_success() {
        return Err(Failure::new(
            Class::BadJob,
            format!("run {id} was completed meanwhile by its own driver: there is nothing left to resume"),
        ));
    }
    if run.round != seen.round {
        let text =
            format!("run {id} went on at this moment, by {}: `stagemill status {id}` shows how far it is", run.owner);
        return Err(Failure::new(Class::AlreadyRunning, text));
    }
    Ok(())
}
