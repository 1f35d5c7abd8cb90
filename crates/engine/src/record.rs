//! The recorder: reads the ledger at the end of a round, reconciles, and opens another round or closes the run.

mod evidence;

use crate::{
    answer::{Answer, Step},
    chunk,
    failure::{Class, Failure},
    ledger::{self, run::Run, summary::Summary},
    outcome::{self, Decision, Status, Tally},
    pg::Connection,
    plan,
    verdict::{self, Verdict},
};

/// The longest that recording takes: twice the wait for what is in flight, and the look at the stage. A recorder's time limit has to be longer.
pub const LONGEST: std::time::Duration = evidence::LONGEST.saturating_add(ledger::run::LONGEST_WAIT.saturating_mul(2));

/// Nobody is left who makes the run that other starts asked for: a person has to know.
const LEFT: &str = "; another start had left its work to one more run, which is not made: start the job again";

/// What recording came to.
#[derive(Debug)]
pub struct Recorded {
    /// What comes next.
    pub answer: Answer,
    /// The run as it ended, when this call closed it: what is counted or announced once goes by it.
    pub closed: Option<Summary>,
}

/// Ends a round. Called again for the same round it changes nothing and gives the same answer.
///
/// # Errors
/// When what is in flight does not end in time, or the server can't be asked.
pub async fn round(connection: &Connection, run: i64, round: i32) -> Result<Recorded, Failure> {
    ledger::schema::require(connection).await?;
    connection.begin().await?;
    let recorded = in_transaction(connection, run, round).await;
    connection.end(recorded).await
}

/// Ends a round for an owner. When the run has gone to another, its items are the other's: whoever comes late is told so instead.
///
/// # Errors
/// As [`round`], and when another owner goes on with the run.
pub async fn round_of(connection: &Connection, owner: &str, run: i64, round: i32) -> Result<Recorded, Failure> {
    let recorded = self::round(connection, run, round).await?;
    if recorded.answer.status == Step::Round {
        let now = ledger::run::load(connection, run).await?.owner;
        if now != owner {
            let text = format!(
                "run {run} was resumed, and {now} goes on with it: `stagemill status {run}` shows how far it is"
            );
            return Err(Failure::new(Class::RunClosed, text));
        }
    }
    Ok(recorded)
}

async fn in_transaction(connection: &Connection, id: i64, round: i32) -> Result<Recorded, Failure> {
    let run = ledger::run::lock(connection, id).await?;
    if !run.status.is_open() || run.round > round {
        return Ok(Recorded { answer: plan::stored(connection, &run).await?, closed: None });
    }
    if run.status == Status::Planning || run.round < round {
        return Err(lost(&run, round));
    }
    let tally = ledger::summary::of_run(connection, id).await?.tally;
    match outcome::decide(&tally, run.round, run.round_limit, run.halted) {
        Decision::AnotherRound => {
            let next = run.round + 1;
            let left = ledger::chunk::make_due(connection, id, next, None).await?;
            let items = chunk::items(id, next, &left, run.parallelism);
            ledger::run::open_round(connection, id, next, &items).await?;
            Ok(Recorded { answer: Answer::round(id, next, run.parallelism, items), closed: None })
        }
        Decision::Judge if may_fit_now(connection, &run, &tally).await? => {
            let next = run.round + 1;
            let items = ledger::reject::retry(connection, &run, next).await?;
            Ok(Recorded { answer: Answer::round(id, next, 1, items), closed: None })
        }
        Decision::Judge => close(connection, &run, tally).await,
    }
}

/// A ledger that knows less than its callers were told.
fn lost(run: &Run, round: i32) -> Failure {
    let next = if run.status == Status::Planning {
        format!("nothing of it is applied: `stagemill run {} --abandon` starts it anew", run.job)
    } else {
        format!("`stagemill resume {}` goes on with what the ledger knows", run.id)
    };
    let text = format!(
        "round {round} of run {} is not in the ledger: the server lost what it had committed, in a crash with synchronous_commit off or a failover to a replica that was behind; {next}",
        run.id
    );
    Failure::new(Class::RunClosed, text)
}

/// Whether rows that were set aside for want of others are worth one more try, now that all others are applied.
async fn may_fit_now(connection: &Connection, run: &Run, tally: &Tally) -> Result<bool, Failure> {
    let done = run.halted.is_none() && tally.processed == tally.chunks && tally.counts.rejected > 0;
    Ok(done && ledger::reject::may_fit_now(connection, run.id).await?)
}

async fn close(connection: &Connection, run: &Run, tally: Tally) -> Result<Recorded, Failure> {
    let gathered = evidence::gather(connection, run, tally).await?;
    let evidence = &gathered.evidence;
    let verdict = verdict::judge(evidence);
    let why = match verdict {
        Verdict::Complete | Verdict::CompleteWithRejects { .. } => None,
        Verdict::Incomplete { .. } => Some(why_incomplete(connection, run, &tally).await?),
        Verdict::SourceChanged { new_rows, difference } => Some(source_changed(run, new_rows, difference)),
        Verdict::Unfinished | Verdict::Halted(_) => gathered.why,
    };
    let recounted = evidence.recounted.map(|(now, _)| now);
    ledger::run::set_evidence(connection, run.id, evidence.new_rows, recounted).await?;
    ledger::run::close(connection, run.id, verdict.status(), &tally, why.as_ref()).await?;
    let closed = ledger::run::load(connection, run.id).await?;
    let answer = plan::stored(connection, &closed).await?;
    Ok(Recorded { answer, closed: Some(ledger::summary::of_run(connection, run.id).await?) })
}

fn source_changed(run: &Run, new_rows: i64, difference: i64) -> Failure {
    let count = match difference {
        0 => String::new(),
        1 => ", and it holds 1 more row than was taken".to_owned(),
        2.. => format!(", and it holds {difference} more rows than were taken"),
        -1 => ", and 1 row that was taken is gone".to_owned(),
        _ => format!(", and {} rows that were taken are gone", -difference),
    };
    let new =
        if new_rows == 1 { "1 row came or was changed" } else { &format!("{new_rows} rows came or were changed") };
    let text = format!(
        "every chunk was applied, but {} changed under the run: {new} since it was planned{count}. They are applied or not, as it came: start the job anew, which applies every staged row, and keep writers away meanwhile",
        run.mapping.stage
    );
    Failure::new(Class::SourceChanged, text)
}

async fn why_incomplete(connection: &Connection, run: &Run, tally: &Tally) -> Result<Failure, Failure> {
    let next = format!("`stagemill chunks {0} --open` lists them, `stagemill resume {0}` tries them again", run.id);
    let open = format!("{} of {} chunks not applied", tally.chunks - tally.processed, tally.chunks);
    let Some(main) = ledger::chunk::main_failure(connection, run.id).await? else {
        return Ok(Failure::new(Class::Incomplete, format!("{open}; {next}")));
    };
    let others = match main.chunks - 1 {
        ..=0 => String::new(),
        1 => " and 1 other".to_owned(),
        others => format!(" and {others} others"),
    };
    let text = format!("{open}: {} in chunk {}{others} ({}); {next}", main.class, main.first, main.error);
    let mut failure = Failure::new(Class::Incomplete, text);
    failure.sqlstate = main.sqlstate;
    Ok(failure)
}

/// Closes the run of a start whose planning failed for good, if it came to a run at all. Nothing of it was applied.
///
/// # Errors
/// What the server or the connection says.
pub async fn planning_failed(connection: &Connection, owner: &str, failure: &Failure) -> Result<(), Failure> {
    if let Some(run) = ledger::run::of_owner(connection, owner).await?.filter(|run| run.status == Status::Planning) {
        ledger::run::close(connection, run.id, Status::Failed, &Tally::default(), Some(failure)).await?;
    }
    Ok(())
}

/// Closes the open run of a start that was ended from outside. What is in flight ends first; what was applied stays, and `resume` goes on.
///
/// # Errors
/// When what is in flight does not end in time, or the server can't be asked.
pub async fn ended_from_outside(
    connection: &Connection,
    owner: &str,
    failure: &Failure,
) -> Result<Option<Summary>, Failure> {
    let Some(run) = ledger::run::open_of(connection, owner).await? else {
        return Ok(None);
    };
    connection.begin().await?;
    let closed = async {
        let run = ledger::run::lock(connection, run.id).await?;
        let tally = ledger::summary::of_run(connection, run.id).await?.tally;
        let status = Status::of_halt(failure.class);
        let failure = if run.rerun_requested && status == Status::Stopped {
            failure.clone().so_that(LEFT)
        } else {
            failure.clone()
        };
        ledger::run::close(connection, run.id, status, &tally, Some(&failure)).await?;
        ledger::summary::of_run(connection, run.id).await.map(Some)
    };
    let closed = closed.await;
    connection.end(closed).await
}
