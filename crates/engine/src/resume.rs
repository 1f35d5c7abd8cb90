//! Goes on with a run that was interrupted, ended incomplete, or lost its owner: only what did not commit is done again.

use std::time::Duration;

use crate::{
    answer::Answer,
    chunk,
    failure::{Class, Failure},
    ledger::{self, run::Run},
    outcome::Status,
    pg::{Connection, catalog},
};

/// How long the sessions of a killed process may need to notice (`client_connection_check_interval` is 0.5 s).
const PATIENCE: Duration = Duration::from_secs(10);

/// Opens a run again under a new owner and answers with a round over what is left.
///
/// # Errors
/// When there is nothing to resume, a newer run took its place, or somebody is alive on it (`force` goes on all the same: the fence keeps a
/// chunk from being applied twice, but two drivers disturb each other).
pub async fn run(connection: &Connection, id: i64, owner: &str, force: bool) -> Result<Answer, Failure> {
    ledger::schema::require(connection).await?;
    let run = ledger::run::load(connection, id).await?;
    refuse(connection, &run).await?;
    if run.status.is_open() && !force {
        wait_for_silence(connection, &run).await?;
    }
    connection.batch("BEGIN").await?;
    let reopened = reopen(connection, id, owner).await;
    connection.end(reopened).await
}

async fn refuse(connection: &Connection, run: &Run) -> Result<(), Failure> {
    let id = run.id;
    if run.status == Status::Complete {
        return Err(Failure::new(Class::BadJob, format!("run {id} is complete: there is nothing to resume")));
    }
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
        // A command line that died leaves no session; a Lambda may come back, and only its silence tells.
        let quiet = open.backend.is_none() && (!open.is_execution() || !open.is_alive());
        if quiet {
            return Ok(());
        }
        if start.elapsed() > PATIENCE {
            let session = open.backend.map(|pid| format!(", session {pid}")).unwrap_or_default();
            return Err(Failure::new(
                Class::AlreadyRunning,
                format!(
                    "run {} is being worked on by {}{session} (last sign of life {} s ago): wait for it, stop it, or add --force",
                    open.id,
                    open.owner,
                    open.silent.as_secs()
                ),
            ));
        }
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
}

async fn reopen(connection: &Connection, id: i64, owner: &str) -> Result<Answer, Failure> {
    let run = ledger::run::lock(connection, id).await?;
    if run.status == Status::Complete {
        return Err(Failure::new(
            Class::BadJob,
            format!("run {id} was completed meanwhile by its own driver: there is nothing left to resume"),
        ));
    }
    let round = run.round + 1;
    let left = ledger::chunk::make_due(connection, id, round, Some(run.spec.retry.attempts)).await?;
    let items = chunk::items(id, round, &left, run.parallelism);
    ledger::run::reopen(connection, &run, owner).await?;
    ledger::run::open_round(connection, id, round, &items).await?;
    Ok(Answer::round(id, round, run.parallelism, items))
}
