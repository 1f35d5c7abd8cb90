//! Random tables, rows and jobs, compared with the single statement: every row, every column, and what became of each staged row.
//!
//! `STAGEMILL_CASES` sets how many (`make soak`); a case that fails is shrunk, and its seed kept in `proptest-regressions`.

mod case;
mod oracle;
mod tables;

use std::sync::atomic::{AtomicU32, Ordering};

use proptest::{
    prelude::*,
    test_runner::{Config, TestRunner},
};
use stagemill_engine::{
    ledger::summary::Summary,
    outcome::{Counts, Status},
    plan::Started,
    resume,
};

use crate::database::{Database, job};
use case::{Case, Operation};

#[test]
fn random_jobs_do_what_the_single_statement_does() {
    compare(case::good(), 200);
}

#[test]
fn random_bad_rows_are_set_aside_and_no_others() {
    compare(case::with_bad_rows(), 100);
}

fn compare(cases: impl Strategy<Value = Case>, usual: u32) {
    let wanted = std::env::var("STAGEMILL_CASES").ok().and_then(|text| text.parse().ok()).unwrap_or(usual);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let database = runtime.block_on(Database::with(""));
    let number = AtomicU32::new(0);
    let config = Config { cases: wanted, max_shrink_iters: 300, ..Config::with_source_file(file!()) };
    let result = TestRunner::new(config).run(&cases, |case| {
        let schema = format!("case_{}", number.fetch_add(1, Ordering::Relaxed));
        runtime.block_on(Compared { case: &case, database: &database, schema }.holds())
    });
    if let Err(error) = result {
        panic!("{error}");
    }
}

/// A case, and where it is played.
struct Compared<'a> {
    case: &'a Case,
    database: &'a Database,
    schema: String,
}

impl Compared<'_> {
    async fn holds(&self) -> Result<(), TestCaseError> {
        let Self { case, database, schema } = self;
        database.execute(&case.tables(schema)).await;
        let text = case.job(schema);
        let planned = database.plan(&job(&text), schema).await;
        let answer = match planned {
            Ok(Started::Run(answer)) => answer,
            refused => return Err(TestCaseError::fail(format!("{refused:?}: {text}"))),
        };
        let summary = database.drive(answer).await;
        database.execute(&case.views()).await;
        if !case.quarantine {
            database.execute(&case.statement()).await;
            self.same_rows("oracle", "target").await?;
        }
        if case.operation != Operation::Sql {
            database.execute(&case.row_by_row()).await;
            self.same_rows("looped", "target").await?;
        }
        self.every_row_is_accounted_for(&summary).await?;
        self.stage_is_left_with(&summary).await?;
        self.nothing_else_was_touched(&summary).await?;
        if summary.tally.counts.rejected > 0 && !case.has_unusable_changes() {
            self.mended_rows_are_applied(&summary).await?;
        }
        database.execute(&format!("SET client_min_messages = warning; DROP SCHEMA {schema} CASCADE")).await;
        Ok(())
    }

    /// What was set aside is tried again, once most of what kept it out is gone.
    async fn mended_rows_are_applied(&self, before: &Summary) -> Result<(), TestCaseError> {
        let Self { case, database, schema } = self;
        database.execute(&case.mend()).await;
        let again = resume::rejects(&database.connection, before.run, &format!("{schema} again")).await;
        let summary = database.drive(again.map_err(|refused| TestCaseError::fail(format!("{refused:?}")))?).await;
        database.execute(&case.rejected_row_by_row()).await;
        self.same_rows("looped", "target").await?;
        self.every_row_is_accounted_for(&summary).await?;
        database.execute("DROP VIEW left_over").await;
        self.stage_is_left_with(&summary).await
    }

    async fn same_rows(&self, expected: &str, found: &str) -> Result<(), TestCaseError> {
        let differences = format!(
            "SELECT string_agg(d, E'\\n') FROM (
                 SELECT 'missing ' || r AS d FROM (SELECT t::text AS r FROM {expected} t EXCEPT ALL SELECT t::text FROM {found} t) m
                 UNION ALL SELECT 'not expected ' || r FROM (SELECT t::text AS r FROM {found} t EXCEPT ALL SELECT t::text FROM {expected} t) n) x"
        );
        let differences = self.database.value(&differences).await;
        prop_assert_eq!(differences, "NULL", "{} against {}: {}", found, expected, self.case.job(&self.schema));
        Ok(())
    }

    /// Counts, rows that were set aside and rows in no range are those of the loop.
    async fn every_row_is_accounted_for(&self, summary: &Summary) -> Result<(), TestCaseError> {
        let Self { case, database, .. } = self;
        let counts = summary.tally.counts;
        let status = if counts.rejected > 0 { Status::CompleteWithRejects } else { Status::Complete };
        prop_assert_eq!(summary.status, status, "{:?}", summary);
        prop_assert_eq!(summary.outside.to_string(), database.value(&case.outside()).await);
        let number = async |sql: &str| -> i64 { database.value(sql).await.parse().unwrap() };
        let staged = number("SELECT count(*) FROM taken").await;
        if case.operation == Operation::Sql {
            prop_assert_eq!(counts, Counts { staged, handed: staged, ..Counts::default() });
            return Ok(());
        }
        let of = async |fate: &str| number(&format!("SELECT count(*) FROM fates WHERE fate = '{fate}'")).await;
        let expected = Counts {
            staged,
            inserted: of("inserted").await,
            updated: of("updated").await,
            deleted: of("deleted").await,
            unchanged: of("unchanged").await,
            skipped: of("skipped").await,
            rejected: of("rejected").await,
            handed: 0,
        };
        prop_assert_eq!(counts, expected, "{}", case.job(&self.schema));
        let rejects = |from: String| format!("SELECT string_agg(nr::text, ' ' ORDER BY nr) FROM ({from}) r");
        let set_aside = format!(
            "SELECT (staged_row ->> 'nr')::integer AS nr FROM stagemill.reject WHERE run_id = {} AND retried_in IS NULL",
            summary.run
        );
        prop_assert_eq!(
            database.value(&rejects(set_aside)).await,
            database.value(&rejects("SELECT nr FROM fates WHERE fate = 'rejected'".into())).await
        );
        Ok(())
    }

    /// The stage holds what was not taken, and what was set aside; all of it where it is kept.
    async fn stage_is_left_with(&self, summary: &Summary) -> Result<(), TestCaseError> {
        let expected = if self.case.empties {
            format!(
                "SELECT * FROM (TABLE staged EXCEPT ALL TABLE taken) s UNION ALL
                 SELECT s.* FROM stagemill.reject r, LATERAL (SELECT * FROM taken s WHERE s.nr = (r.staged_row ->> 'nr')::integer LIMIT 1) s
                 WHERE r.run_id = {} AND r.retried_in IS NULL",
                summary.run
            )
        } else {
            "TABLE staged".to_owned()
        };
        self.database.execute(&format!("CREATE VIEW left_over AS {expected}")).await;
        self.same_rows("(SELECT * FROM left_over)", "(SELECT * FROM stage)").await
    }

    /// A target row that is neither updated nor deleted is the very version that was there before.
    async fn nothing_else_was_touched(&self, summary: &Summary) -> Result<(), TestCaseError> {
        let Self { case, database, .. } = self;
        if case.operation == Operation::Sql {
            return Ok(());
        }
        let counts = summary.tally.counts;
        let untouched = "SELECT (SELECT count(*) FROM before) - count(*) FROM target t JOIN before b ON t.tableoid = b.heap AND t.ctid = b.place AND t.xmin = b.version";
        prop_assert_eq!(database.value(untouched).await, (counts.updated + counts.deleted).to_string());
        if case.skip_unchanged {
            let same: Vec<String> = case.keys().iter().map(|key| format!("t.{key} = b.{key}")).collect();
            let in_vain = format!(
                "SELECT count(*) FROM target t JOIN before b ON {} WHERE t.xmin <> b.version AND ROW(t.n, t.v, t.note, t.last) IS NOT DISTINCT FROM ROW(b.n, b.v, b.note, b.last)",
                same.join(" AND ")
            );
            prop_assert_eq!(database.value(&in_vain).await, "0");
        }
        Ok(())
    }
}
