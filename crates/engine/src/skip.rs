//! Passes over chunks at a person's word: they count as done, and their rows, counted here, as skipped. So the ledger's counts still add
//! up, and `resume` completes a run of which a part can't, or need not, be applied.

use serde::Serialize;

use crate::{
    failure::{Class, Failure},
    ledger::{
        self,
        by_hand::{self, Unapplied},
        chunk::Done,
        run::Run,
    },
    outcome::Counts,
    pg::Connection,
    probe, resume, settings, statement,
};

/// A chunk that was passed over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Skipped {
    /// Its id.
    pub chunk: i32,
    /// Its rows, at this moment.
    pub rows: i64,
}

/// Passes over chunks of a run that can be resumed, all of them or none. Nothing of the target is changed.
///
/// # Errors
/// When the run can't be resumed, somebody is alive on it, or a chunk was applied or is not there.
pub async fn chunks(connection: &Connection, id: i64, chunks: &[i32]) -> Result<Vec<Skipped>, Failure> {
    ledger::schema::require(connection).await?;
    let run = ledger::run::load(connection, id).await?;
    resume::require_free(connection, &run).await?;
    let settings = settings::set_local(&run.mapping.settings, probe::LONGEST);
    let skipped = match connection.batch(&format!("BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE;\n{settings}")).await
    {
        Ok(_) => in_transaction(connection, &run, chunks).await,
        Err(failure) => Err(failure),
    };
    connection.end(skipped).await
}

async fn in_transaction(connection: &Connection, seen: &Run, chunks: &[i32]) -> Result<Vec<Skipped>, Failure> {
    // What is in flight ends first: a worker that was taken for dead may apply its chunk at this moment.
    let run = ledger::run::lock(connection, seen.id).await?;
    resume::refuse_moved(seen, &run)?;
    let mut skipped = Vec::new();
    for chunk in chunks {
        let Some(unapplied) = by_hand::lock(connection, run.id, *chunk).await? else {
            let text = format!(
                "run {0} has no chunk {chunk} that is not applied: `stagemill chunks {0} --open` lists those there are; no chunk was skipped",
                run.id
            );
            return Err(Failure::new(Class::BadJob, text));
        };
        skipped.push(one(connection, &run, &unapplied).await?);
    }
    Ok(skipped)
}

async fn one(connection: &Connection, run: &Run, unapplied: &Unapplied) -> Result<Skipped, Failure> {
    let (chunk, mapping) = (&unapplied.chunk, &run.mapping);
    let rows: i64 = connection.query_one(&statement::count_rows(mapping, &chunk.range), &[]).await?.get(0);
    let counts = Counts { staged: rows, skipped: rows, ..Counts::default() };
    if !ledger::chunk::finish(connection, chunk, &Done { counts, statement_rows: None }).await? {
        let text =
            format!("chunk {} of run {} means other rows now: {} was rewritten", chunk.id, run.id, mapping.stage);
        return Err(Failure::new(Class::SourceChanged, text));
    }
    by_hand::sign(connection, unapplied).await?;
    Ok(Skipped { chunk: chunk.id, rows })
}
