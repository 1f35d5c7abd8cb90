//! What is looked at before a run is judged: whether the stage is still what was planned. A stage that is to be truncated is, if it is.

use std::time::{Duration, Instant};

use crate::{
    failure::{Class, Failure},
    job::{StageRows, Verify},
    ledger::{self, run::Run},
    outcome::{Status, Tally},
    pg::{Connection, catalog},
    settings, statement,
    verdict::Evidence,
};

/// All that is looked at, together: a recorder that its time limit ends has judged nothing, and would do the same again.
pub(super) const LONGEST: Duration = Duration::from_secs(600);

/// SQLSTATE of a statement that its timeout, or a person, ended.
const CANCELLED: &str = "57014";

/// What was found, and why the run is not complete where the evidence alone does not say it.
pub(super) struct Gathered {
    pub(super) evidence: Evidence,
    pub(super) why: Option<Failure>,
}

/// Looks at the stage, in the transaction that closes the run.
pub(super) async fn gather(connection: &Connection, run: &Run, tally: Tally) -> Result<Gathered, Failure> {
    let mut evidence = Evidence { tally, halted: run.halted, ..Evidence::default() };
    // Of a run that is not complete nobody has to know more.
    if run.halted.is_some() || tally.processed < tally.chunks {
        return Ok(Gathered { evidence, why: None });
    }
    connection
        .batch(&format!("SAVEPOINT evidence;\n{}", settings::set_local_for_whole(&run.mapping.settings, LONGEST)))
        .await?;
    let looked = Look { connection, run, until: Instant::now() + LONGEST }.at(&mut evidence).await;
    let (end, why) = match looked {
        Ok(why) => ("RELEASE SAVEPOINT evidence", why),
        Err(failure) if failure.class.is_retryable() => return Err(failure),
        // That says nothing of the stage.
        Err(failure) if failure.sqlstate.as_deref() == Some(CANCELLED) => {
            evidence.unfinished = true;
            let text = format!(
                "every row is applied, but looking at {} at the end was broken off ({failure}; there are {} s for it). `stagemill resume {}` tries that again; a job with \"verify\": \"off\" does without",
                run.mapping.stage,
                LONGEST.as_secs(),
                run.id
            );
            ("ROLLBACK TO SAVEPOINT evidence", Some(Failure::new(Class::Incomplete, text)))
        }
        Err(failure) if failure.class == Class::SourceChanged => {
            evidence.halted = Some(Status::SourceChanged);
            ("ROLLBACK TO SAVEPOINT evidence", Some(failure))
        }
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

/// What has to be asked, and until when there is time for it.
#[derive(Clone, Copy)]
struct Look<'a> {
    connection: &'a Connection,
    run: &'a Run,
    until: Instant,
}

impl Look<'_> {
    async fn at(self, evidence: &mut Evidence) -> Result<Option<Failure>, Failure> {
        let mapping = &self.run.mapping;
        let truncates = mapping.stage_rows == StageRows::Truncate;
        if truncates && let Some(held) = self.lock().await? {
            evidence.unfinished = true;
            return Ok(Some(held));
        }
        if mapping.stage_has_heap && self.run.spec.verify != Verify::Off {
            self.refuse_rewritten().await?;
        }
        if let Some(snapshot) = &mapping.snapshot {
            let new = self.count(&statement::count_new(mapping, snapshot, &[])).await?;
            evidence.new_rows = Some(mapping.changed_before + new);
        }
        if self.run.spec.verify == Verify::Count && mapping.stage_rows != StageRows::Delete {
            let now = self.count(&statement::count_window(mapping)).await?;
            evidence.recounted = Some((now, evidence.tally.counts.staged + self.run.outside));
        }
        let unchanged = evidence.new_rows.unwrap_or(0) == 0 && evidence.recounted.is_none_or(|(now, then)| now == then);
        if truncates && unchanged && evidence.tally.counts.rejected == 0 {
            return self.truncate(evidence).await;
        }
        Ok(None)
    }

    /// A stage in other files than were planned: rows that a TRUNCATE took, or a partition that came with rows of old, are in no other count.
    async fn refuse_rewritten(self) -> Result<(), Failure> {
        let mapping = &self.run.mapping;
        let now = catalog::table(self.connection, &mapping.stage).await?;
        if now.is_some_and(|now| now.leaves == mapping.stage_leaves) {
            return Ok(());
        }
        let text = format!(
            "every chunk was applied, but {} was rewritten or replaced under the run (TRUNCATE, VACUUM FULL, CLUSTER, a partition attached or detached, a new table): start the job anew, which applies every staged row",
            mapping.stage
        );
        Err(Failure::new(Class::SourceChanged, text))
    }

    /// Keeps everybody else off the stage. The failure is why that can't be had now.
    async fn lock(self) -> Result<Option<Failure>, Failure> {
        let sql = format!(
            "SAVEPOINT emptying; SET LOCAL lock_timeout = '10s'; LOCK TABLE {} IN ACCESS EXCLUSIVE MODE",
            self.run.mapping.stage
        );
        match self.connection.batch(&sql).await {
            Ok(_) => Ok(None),
            Err(failure) if failure.class == Class::ConnectionLost => Err(failure),
            Err(failure) => Ok(Some(self.not_emptied(&failure.to_string()).await?)),
        }
    }

    /// Truncates the stage if it holds the rows that were taken and no others.
    async fn truncate(self, evidence: &mut Evidence) -> Result<Option<Failure>, Failure> {
        let others = match self.others(evidence.tally.counts.staged).await {
            Err(failure) if failure.class == Class::ConnectionLost => return Err(failure),
            Err(failure) => Some(failure.to_string()),
            Ok(others) => others,
        };
        if let Some(why) = others {
            evidence.unfinished = true;
            return Ok(Some(self.not_emptied(&why).await?));
        }
        match self.connection.batch(&format!("TRUNCATE {}", self.run.mapping.stage)).await {
            Ok(_) => Ok(None),
            Err(failure) if failure.class == Class::ConnectionLost => Err(failure),
            Err(failure) => {
                evidence.unfinished = true;
                Ok(Some(self.not_emptied(&failure.to_string()).await?))
            }
        }
    }

    /// What the stage holds beside the rows that the run took. Their number alone proves nothing: one that was taken can be gone, or have become
    /// one that is not the job's.
    async fn others(self, staged: i64) -> Result<Option<String>, Failure> {
        let mapping = &self.run.mapping;
        // TRUNCATE knows no policy: rows that one hides are an error here.
        self.connection.batch("SET LOCAL row_security = off").await?;
        let mut skipped = 0;
        for (id, range, rows) in ledger::by_hand::skipped(self.connection, self.run.id).await? {
            skipped += rows;
            let left = self.count(&statement::count_rows(mapping, &range)).await?;
            if left > 0 {
                return Ok(Some(format!("it holds {left} rows of chunk {id}, which was skipped by hand")));
            }
        }
        let there = self.count(&format!("SELECT pg_catalog.count(*) FROM {}", mapping.stage)).await?;
        let taken = staged - skipped;
        if there != taken {
            return Ok(Some(format!("it holds {there} rows, of which the run took {taken}")));
        }
        let outside = self.count(&statement::count_untaken(mapping)).await?;
        Ok((outside > 0).then(|| format!("{outside} of its rows are not of this run")))
    }

    async fn not_emptied(self, why: &str) -> Result<Failure, Failure> {
        self.connection.batch("ROLLBACK TO SAVEPOINT emptying").await?;
        let text = format!(
            "every row is applied, but {} was not truncated: {why}. `stagemill resume {}` tries that again",
            self.run.mapping.stage, self.run.id
        );
        Ok(Failure::new(Class::Incomplete, text))
    }

    /// Asks for a number, in the time that is left: the server's timeout is one per statement.
    async fn count(self, sql: &str) -> Result<i64, Failure> {
        let left = self.until.saturating_duration_since(Instant::now()).as_millis().max(1);
        self.connection.batch(&format!("SET LOCAL statement_timeout = '{left}ms'")).await?;
        Ok(self.connection.query_one(sql, &[]).await?.get(0))
    }
}
