//! What is looked at before a run is judged: whether the stage is still what was planned. A stage that is to be truncated is, if it is.

use std::time::Duration;

use crate::{
    failure::{Class, Failure},
    job::{StageRows, Verify},
    ledger::run::Run,
    outcome::{Status, Tally},
    pg::Connection,
    settings, statement,
    verdict::Evidence,
};

/// The counts read the stage once.
const LONGEST: Duration = Duration::from_secs(600);

/// What was found, and why the run is not complete where the evidence alone does not say it.
pub(super) struct Gathered {
    pub(super) evidence: Evidence,
    pub(super) why: Option<Failure>,
}

/// Looks at the stage, in the transaction that closes the run.
pub(super) async fn gather(connection: &Connection, run: &Run, tally: Tally) -> Result<Gathered, Failure> {
    let mut evidence = Evidence { tally, halted: run.halted, new_rows: run.new_rows, ..Evidence::default() };
    // Of a run that is not complete nobody has to know more.
    if run.halted.is_some() || tally.processed < tally.chunks {
        return Ok(Gathered { evidence, why: None });
    }
    connection.batch(&format!("SAVEPOINT evidence;\n{}", settings::set_local(&run.mapping.settings, LONGEST))).await?;
    let looked = look(connection, run, &mut evidence).await;
    let (end, why) = match looked {
        Ok(why) => ("RELEASE SAVEPOINT evidence", why),
        Err(failure) if failure.class.is_retryable() => return Err(failure),
        Err(failure) => {
            evidence.halted = Some(Status::SourceChanged);
            let text =
                format!("every chunk was applied, but {} can't be looked at any more: {failure}", run.mapping.stage);
            ("ROLLBACK TO SAVEPOINT evidence", Some(Failure::new(Class::SourceChanged, text)))
        }
    };
    connection.batch(end).await?;
    Ok(Gathered { evidence, why })
}

async fn look(connection: &Connection, run: &Run, evidence: &mut Evidence) -> Result<Option<Failure>, Failure> {
    let mapping = &run.mapping;
    let truncates = mapping.stage_rows == StageRows::Truncate;
    if truncates && let Some(held) = lock(connection, run).await? {
        evidence.not_emptied = true;
        return Ok(Some(held));
    }
    if let Some(snapshot) = &mapping.snapshot {
        let new = count(connection, &statement::count_new(mapping, snapshot, &[])).await?;
        evidence.new_rows = Some(evidence.new_rows.unwrap_or(0) + new);
    }
    if run.spec.verify == Verify::Count && mapping.stage_rows != StageRows::Delete {
        let now = count(connection, &statement::count_window(mapping)).await?;
        evidence.recounted = Some((now, evidence.tally.counts.staged + run.outside));
    }
    let unchanged = evidence.new_rows.unwrap_or(0) == 0 && evidence.recounted.is_none_or(|(now, then)| now == then);
    if truncates && unchanged && evidence.tally.counts.rejected == 0 {
        return truncate(connection, run, evidence).await;
    }
    Ok(None)
}

/// Keeps everybody else off the stage. The failure is why that can't be had now.
async fn lock(connection: &Connection, run: &Run) -> Result<Option<Failure>, Failure> {
    let sql = format!(
        "SAVEPOINT emptying; SET LOCAL lock_timeout = '10s'; LOCK TABLE {} IN ACCESS EXCLUSIVE MODE",
        run.mapping.stage
    );
    match connection.batch(&sql).await {
        Ok(_) => Ok(None),
        Err(failure) if failure.class == Class::ConnectionLost => Err(failure),
        Err(failure) => Ok(Some(not_emptied(connection, run, &failure.to_string()).await?)),
    }
}

/// Truncates the stage if it holds the rows that were taken and no others.
async fn truncate(connection: &Connection, run: &Run, evidence: &mut Evidence) -> Result<Option<Failure>, Failure> {
    let there = count(connection, &format!("SELECT pg_catalog.count(*) FROM {}", run.mapping.stage)).await?;
    let taken = evidence.tally.counts.staged;
    if there != taken {
        evidence.not_emptied = true;
        let text = format!("it holds {there} rows, of which the run took {taken}");
        return Ok(Some(not_emptied(connection, run, &text).await?));
    }
    match connection.batch(&format!("TRUNCATE {}", run.mapping.stage)).await {
        Ok(_) => Ok(None),
        Err(failure) if failure.class == Class::ConnectionLost => Err(failure),
        Err(failure) => {
            evidence.not_emptied = true;
            Ok(Some(not_emptied(connection, run, &failure.to_string()).await?))
        }
    }
}

async fn not_emptied(connection: &Connection, run: &Run, why: &str) -> Result<Failure, Failure> {
    connection.batch("ROLLBACK TO SAVEPOINT emptying").await?;
    let text = format!(
        "every row is applied, but {} was not truncated: {why}. `stagemill resume {}` tries that again",
        run.mapping.stage, run.id
    );
    Ok(Failure::new(Class::Incomplete, text))
}

async fn count(connection: &Connection, sql: &str) -> Result<i64, Failure> {
    Ok(connection.query_one(sql, &[]).await?.get(0))
}
