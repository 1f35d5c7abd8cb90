//! The planner: checks the job, takes the run lock, cuts the stage, writes the chunks. It never writes to the target.

mod limits;
mod window;

use tokio_postgres::{Row, types::Type};

use crate::{
    account::duplicate_keys,
    answer::{Answer, Step},
    check, chunk, cut, explain,
    failure::{Class, Failure},
    job::{Job, Operation, StageRows, Verify},
    ledger::{
        self,
        chunk::Planned,
        run::{NewRun, OpenRun, Opened, Run},
    },
    mapping::Mapping,
    outcome::{Status, Tally},
    pg::{Connection, catalog},
    probe, statement,
    table::{Kind, Table},
};

/// More chunks than this are more ledger than work.
const MOST_CHUNKS: usize = 500_000;

/// More transactions than this are not remembered: each worker reads them.
const MOST_SEEN: usize = 10_000;

/// A request to start a run.
#[derive(Debug)]
pub struct Start<'a> {
    /// Who asks: the same owner asking again gets the same run.
    pub owner: &'a str,
    /// The event that caused it, if one did.
    pub trigger_id: Option<&'a str>,
    /// The jobs that its owner starts after it.
    pub followed_by: &'a [String],
    /// What to do.
    pub job: &'a Job,
    /// What becomes of an open run of the job whose owner died.
    pub dead: DeadRun,
}

/// What becomes of an open run whose owner died.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeadRun {
    /// It keeps this start out: a person decides.
    Keep,
    /// It is closed as ABANDONED, and this start goes on.
    Abandon,
}

/// What a start came to.
#[derive(Debug)]
pub enum Started {
    /// A run, and what comes next for it.
    Run(Answer),
    /// Another run is open and keeps this one out.
    Taken(OpenRun),
}

/// Starts a run, or gives the stored answer to an owner that asks again.
///
/// # Errors
/// When the job can't run (nothing is started then), or the server can't be asked.
pub async fn start(connection: &Connection, request: &Start<'_>) -> Result<Started, Failure> {
    ledger::schema::require(connection).await?;
    if let Some(known) = ledger::run::of_owner(connection, request.owner).await? {
        return Ok(Started::Run(go_on(connection, &known).await?));
    }
    let (mapping, stage) = check::job(connection, request.job).await?.into_runnable()?;
    let &Start { owner, trigger_id, followed_by, job, .. } = request;
    let new = NewRun { owner, trigger_id, followed_by, job, mapping: &mapping };
    let id = match open(connection, &new, request.dead).await? {
        Opened::New(id) => id,
        Opened::Duplicate(id) => return Ok(Started::Run(Answer::end(id, 0, Step::Duplicate))),
        Opened::Taken(open) => return Ok(Started::Taken(open)),
    };
    let run = ledger::run::load(connection, id).await?;
    Ok(Started::Run(cut_and_write(connection, &run, &stage).await?))
}

/// Opens the run; a dead one in its place is closed first, if that is asked for.
async fn open(connection: &Connection, new: &NewRun<'_>, dead: DeadRun) -> Result<Opened, Failure> {
    let opened = ledger::run::open(connection, new).await?;
    match opened {
        Opened::Taken(open) if dead == DeadRun::Abandon && !open.is_alive() => {
            abandon(connection, &open).await?;
            ledger::run::open(connection, new).await
        }
        other => Ok(other),
    }
}

/// Closes a run whose owner died. What is in flight ends first; its late workers are refused by the fence.
///
/// # Errors
/// When what is in flight does not end in time, or the owner has given a sign of life since it was looked for.
pub async fn abandon(connection: &Connection, open: &OpenRun) -> Result<(), Failure> {
    connection.begin().await?;
    let closed = async {
        let run = ledger::run::lock(connection, open.id).await?;
        if run.status.is_open() {
            let now = ledger::run::open_run(connection, open.id).await?;
            if now.silent < open.silent || now.backend.is_some() {
                return Err(Failure::new(
                    Class::Contention,
                    format!("run {} gave a sign of life at this moment", run.id),
                ));
            }
            let tally = ledger::summary::of_run(connection, run.id).await?.tally;
            let why = if run.status == Status::Interrupted {
                Failure::new(Class::Stopped, "it had been interrupted, and another start took its place")
            } else {
                let text = format!("its owner gave no sign of life for {} s", open.silent.as_secs());
                Failure::new(Class::ConnectionLost, text)
            };
            // Whoever takes its place may be another job, which does not apply what this one left.
            tracing::warn!(
                run = run.id,
                "run {} of job {} is abandoned: {} of {} chunks not applied",
                run.id,
                run.job,
                tally.chunks - tally.processed,
                tally.chunks
            );
            ledger::run::close(connection, run.id, Status::Abandoned, &tally, Some(&why)).await?;
        }
        Ok(())
    };
    let closed = closed.await;
    connection.end(closed).await
}

/// Goes on with the run of an owner that asks again: its first answer was lost, or its first try died while planning.
async fn go_on(connection: &Connection, run: &Run) -> Result<Answer, Failure> {
    if run.status != Status::Planning {
        return stored(connection, run).await;
    }
    let Some(stage) = catalog::table(connection, &run.mapping.stage).await? else {
        return Err(Failure::new(Class::SourceChanged, "the stage table is gone"));
    };
    cut_and_write(connection, run, &stage).await
}

/// The answer that stands in the ledger.
///
/// # Errors
/// What the server or the connection says.
pub async fn stored(connection: &Connection, run: &Run) -> Result<Answer, Failure> {
    if run.status.is_open() {
        let items = ledger::run::items(connection, run.id, run.round).await?;
        return Ok(Answer::round(run.id, run.round, run.parallelism, items));
    }
    let cause = run.error.as_deref().unwrap_or("see the log table");
    Ok(Answer::closed(run.id, run.round, run.status, run.error_class.as_deref(), cause))
}

async fn cut_and_write(connection: &Connection, run: &Run, stage: &Table) -> Result<Answer, Failure> {
    // Its name tells others that somebody is planning this run.
    connection.batch(&format!("SET application_name = 'stagemill:{}:plan'", run.id)).await?;
    let answer = try_cut_and_write(connection, run, stage).await;
    if !connection.is_closed() {
        connection.batch("SET application_name = 'stagemill'").await?;
    }
    answer
}

async fn try_cut_and_write(connection: &Connection, run: &Run, stage: &Table) -> Result<Answer, Failure> {
    match cut(connection, &run.mapping, stage, &run.spec).await {
        Ok(plan) => write(connection, run, &plan).await,
        Err(failure) if failure.class.is_retryable() => Err(failure),
        Err(failure) => {
            ledger::run::close(connection, run.id, Status::Failed, &Tally::default(), Some(&failure)).await?;
            Err(failure)
        }
    }
}

/// What a run will do.
#[derive(Debug)]
pub struct Plan {
    /// What the job means, with everything that planning fixes.
    pub mapping: Mapping,
    /// The chunks.
    pub chunks: Vec<Planned>,
    /// Staged rows that no chunk holds: the job's own ranges leave them out.
    pub outside: i64,
}

/// What would be done, with nothing written.
///
/// # Errors
/// When the job can't run, or two staged rows have one key where no chunk would notice.
pub async fn cut(connection: &Connection, mapping: &Mapping, stage: &Table, job: &Job) -> Result<Plan, Failure> {
    let mut mapping = mapping.clone();
    // Before anything is looked at: what comes later is new.
    if mapping.stage_has_heap && needs_snapshot(job) && mapping.stage != mapping.target {
        // Under the run's settings, without `jit`: of a large stage the server compiles for half a second what it then does not execute.
        let row = probe::ask_one(connection, &mapping.settings, &snapshot(&mapping), &[]).await?;
        remember(&mut mapping, &row);
    }
    window::fix(connection, &mut mapping, job).await?;
    if !mapping.keys_together && !mapping.keys_are_unique && mapping.operation != Operation::Sql {
        refuse_duplicates(connection, &mapping).await?;
        mapping.keys_are_unique = true;
    }
    let sessions = sessions_to_cut_for(connection, &mapping, job).await?;
    let ranges = cut::stage(connection, &mapping, stage, &job.chunks, sessions).await?;
    if ranges.len() > MOST_CHUNKS {
        let text = format!(
            "the stage would make {} chunks; at most {MOST_CHUNKS} are planned: raise chunks.rows",
            ranges.len()
        );
        return Err(Failure::new(Class::BadJob, text));
    }
    // Never for a view, whose own joins would lose their hash joins too, nor for statements that are not ours.
    let ours = stage.kind != Kind::NoHeap && mapping.operation != Operation::Sql;
    if let Some(range) = ranges.get(ranges.len() / 2).filter(|_| ours) {
        let scanned = explain::keep_nested_loop(connection, &mut mapping, range).await?;
        if scanned >= explain::SCAN_WORTH_AVOIDING {
            tracing::warn!(target_table = %mapping.target, "each chunk would scan the whole target; see its plan in `stagemill plan`");
        }
    }
    let outside = limits::outside(connection, &mapping, &ranges, job).await?;
    let chunks = limits::set(connection, &mut mapping, ranges, outside, job).await?;
    Ok(Plan { mapping, chunks, outside })
}

/// A run that finds the number of sessions itself and whose target is in the cache needs about as many as there are processors.
const FEW_SESSIONS: u32 = 8;

/// Chunks small enough for still more sessions cost more than these would bring.
const MANY_SESSIONS: u32 = 32;

/// For how many sessions there have to be chunks enough. Where the target does not fit the server's cache, sessions wait for reads, and many are
/// found; elsewhere smaller chunks would only cost.
async fn sessions_to_cut_for(connection: &Connection, mapping: &Mapping, job: &Job) -> Result<u32, Failure> {
    let most = job.parallelism.most();
    if !job.parallelism.is_auto() {
        return Ok(most);
    }
    // A table that is neither partitioned nor a partition is in no partition tree.
    let sql = "SELECT COALESCE(pg_catalog.sum(pg_catalog.pg_total_relation_size(relid)),
                               pg_catalog.pg_total_relation_size(pg_catalog.to_regclass($1)))
                      > pg_catalog.pg_size_bytes(pg_catalog.current_setting('shared_buffers'))
               FROM pg_catalog.pg_partition_tree(pg_catalog.to_regclass($1))";
    let target = mapping.target.to_string();
    let row = probe::ask_one(connection, &mapping.settings, sql, &[(&target, Type::TEXT)]).await?;
    let larger_than_cache: bool = row.get(0);
    Ok(most.min(if larger_than_cache { MANY_SESSIONS } else { FEW_SESSIONS }))
}

/// Where the run itself empties the stage chunk by chunk, rows that come meanwhile are simply the next one's; and statements of the user's own
/// may write to the stage.
fn needs_snapshot(job: &Job) -> bool {
    let asked = job.operation != Operation::Sql && job.verify != Verify::Off && job.stage_rows == StageRows::Keep;
    asked || job.stage_rows == StageRows::Truncate
}

/// The question what this moment sees, whose answer [`remember`] keeps.
pub fn snapshot(mapping: &Mapping) -> String {
    statement::snapshot(mapping, MOST_SEEN + 1)
}

/// Keeps what a moment sees.
pub fn remember(mapping: &mut Mapping, snapshot: &Row) {
    let seen: Vec<i64> = snapshot.get(1);
    mapping.snapshot = Some(snapshot.get(0));
    mapping.seen = (seen.len() <= MOST_SEEN).then_some(seen);
}

/// With block ranges two rows of one key can lie in two chunks, each of which would apply its own.
async fn refuse_duplicates(connection: &Connection, mapping: &Mapping) -> Result<(), Failure> {
    let sql = statement::count_duplicates(mapping);
    let duplicates: i64 = probe::ask_one(connection, &mapping.settings, &sql, &[]).await?.get(0);
    if duplicates == 0 {
        return Ok(());
    }
    Err(duplicate_keys(mapping, duplicates))
}

/// Writes chunks and first round, unless the run was closed meanwhile.
async fn write(connection: &Connection, run: &Run, plan: &Plan) -> Result<Answer, Failure> {
    connection.begin().await?;
    let written = write_in_transaction(connection, run, plan).await;
    connection.end(written).await
}

async fn write_in_transaction(connection: &Connection, run: &Run, plan: &Plan) -> Result<Answer, Failure> {
    let now = ledger::run::lock(connection, run.id).await?;
    match now.status {
        Status::Planning => {}
        // Another call for the same owner was quicker.
        Status::Running => return stored(connection, &now).await,
        _ => return Err(Failure::new(Class::RunClosed, format!("run {} was closed while it was planned", run.id))),
    }
    ledger::run::set_plan(connection, run.id, &plan.mapping, plan.outside).await?;
    ledger::chunk::write(connection, run.id, &plan.chunks, run.spec.retry.attempts).await?;
    let ids: Vec<i32> = (1..).take(plan.chunks.len()).collect();
    let items = chunk::items(run.id, 1, &ids, run.parallelism);
    ledger::run::open_round(connection, run.id, 1, &items).await?;
    Ok(Answer::round(run.id, 1, run.parallelism, items))
}
