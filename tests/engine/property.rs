//! Random tables, rows and jobs, compared with the single statement: every row, every column.
//!
//! `STAGEMILL_CASES` sets how many (`make soak`); a case that fails is shrunk, and its seed kept in `property.proptest-regressions`.

use std::collections::BTreeSet;

use proptest::{
    prelude::*,
    test_runner::{Config, TestRunner},
};
use stagemill_engine::outcome::Status;

use crate::database::{Database, job};

/// A key column's type, and how the n-th of its values is written.
#[derive(Debug, Clone, Copy)]
struct KeyType {
    staged: &'static str,
    target: &'static str,
    value: &'static str,
}

const KEY_TYPES: [KeyType; 10] = [
    KeyType { staged: "bigint", target: "bigint", value: "{n}" },
    KeyType { staged: "integer", target: "bigint", value: "{n} - 10" },
    KeyType { staged: "smallint", target: "integer", value: "{n}" },
    KeyType { staged: "numeric(38,5)", target: "numeric(38,5)", value: "{n} / 7.0" },
    KeyType { staged: "text", target: "text", value: "E'it''s \\\\ \\n \"' || {n}" },
    KeyType { staged: "varchar(20)", target: "text", value: "'ä' || {n} % 13 || ' ' || {n}" },
    KeyType { staged: "char(8)", target: "char(8)", value: "'c' || {n}" },
    KeyType { staged: "uuid", target: "uuid", value: "md5({n}::text)::uuid" },
    KeyType { staged: "date", target: "date", value: "date '2026-01-01' + {n}" },
    KeyType {
        staged: "timestamptz",
        target: "timestamptz",
        value: "timestamptz '2026-10-25 00:00Z' + {n} * interval '7 minutes 0.123 s'",
    },
];

#[derive(Debug, Clone)]
struct Case {
    key: Vec<KeyType>,
    /// Whether key columns can be NULL in the stage and, with a unique index in place of a primary key, in the target.
    nullable: bool,
    /// Whether the stage has an index on the key.
    indexed: bool,
    operation: &'static str,
    by: &'static str,
    filter: bool,
    chunk_rows: u32,
    parallelism: u32,
    staged: Vec<(Vec<Option<u8>>, i16)>,
    there: BTreeSet<Vec<u8>>,
}

fn cases() -> impl Strategy<Value = Case> {
    let key = prop::collection::vec(prop::sample::select(&KEY_TYPES[..]), 1..=3);
    key.prop_flat_map(|key| {
        let width = key.len();
        let value = prop::collection::vec(prop::option::weighted(0.9, 0..60_u8), width);
        (
            (Just(key), any::<bool>(), any::<bool>(), any::<bool>()),
            (
                prop::sample::select(&["insert", "update", "upsert"][..]),
                prop::sample::select(&["auto", "ctid", "key"][..]),
            ),
            (1..60_u32, 1..6_u32),
            prop::collection::vec((value, any::<i16>()), 0..200),
            prop::collection::btree_set(prop::collection::vec(0..60_u8, width), 0..80),
        )
    })
    .prop_map(|((key, nullable, indexed, filter), (operation, by), (chunk_rows, parallelism), staged, there)| {
        let staged = distinct(staged, nullable);
        Case { key, nullable, indexed, operation, by, filter, chunk_rows, parallelism, staged, there }
    })
}

/// Leaves one staged row for each key; NULL keys are equal to none.
fn distinct(staged: Vec<(Vec<Option<u8>>, i16)>, nullable: bool) -> Vec<(Vec<Option<u8>>, i16)> {
    let mut seen = BTreeSet::new();
    let kept = staged.into_iter().filter(|(key, _)| {
        let null = key.iter().any(Option::is_none);
        if null { nullable } else { seen.insert(key.clone()) }
    });
    kept.collect()
}

impl Case {
    fn columns(&self) -> Vec<String> {
        (1..=self.key.len()).map(|n| format!("k{n}")).collect()
    }

    fn value(&self, at: usize, n: Option<u8>) -> String {
        n.map_or_else(|| "NULL".to_owned(), |n| self.key[at].value.replace("{n}", &n.to_string()))
    }

    fn tables(&self, schema: &str) -> String {
        let columns = self.columns().join(", ");
        let null = if self.nullable { "" } else { " NOT NULL" };
        let define = |pick: fn(&KeyType) -> &'static str| {
            let columns = self.key.iter().zip(self.columns());
            columns.map(|(key, name)| format!("{name} {}{null}", pick(key))).collect::<Vec<_>>().join(", ")
        };
        let unique = if self.nullable { "UNIQUE" } else { "PRIMARY KEY" };
        let mut sql = format!(
            "CREATE SCHEMA {schema}; SET search_path = {schema};
             CREATE TABLE target ({}, n bigint, note text DEFAULT 'by default', {unique} ({columns}));
             CREATE TABLE stage ({}, n bigint);",
            define(|key| key.target),
            define(|key| key.staged),
        );
        for key in &self.there {
            let values: Vec<String> = key.iter().enumerate().map(|(at, n)| self.value(at, Some(*n))).collect();
            sql += &format!("INSERT INTO target VALUES ({}, 1000, 'old');", values.join(", "));
        }
        for (key, n) in &self.staged {
            let values: Vec<String> = key.iter().enumerate().map(|(at, n)| self.value(at, *n)).collect();
            sql += &format!("INSERT INTO stage VALUES ({}, {n});", values.join(", "));
        }
        if self.indexed {
            sql += &format!("CREATE INDEX ON stage ({columns});");
        }
        sql + "CREATE TABLE oracle (LIKE target INCLUDING ALL); INSERT INTO oracle TABLE target;"
    }

    fn job(&self, schema: &str) -> String {
        let filter = if self.filter { r#", "where": "stage.n % 3 <> 0 OR stage.n < 0 -- most""# } else { "" };
        let keys = self.columns();
        let mapped: String = keys.iter().map(|key| format!(r#""{key}": "stage.{key}", "#)).collect();
        format!(
            r#"{{"name": "{schema}", "stage": {{"table": "{schema}.stage"{filter}}}, "target": {{"table": "{schema}.target", "key": {keys:?}}},
                "operation": "{}", "columns": {{{mapped}"n": {{"insert": "stage.n", "update": "target.n + stage.n"}}}},
                "chunks": {{"by": "{}", "rows": {}}}, "parallelism": {}}}"#,
            self.operation, self.by, self.chunk_rows, self.parallelism
        )
    }

    fn statement(&self) -> String {
        let keys = self.columns().join(", ");
        let filter = if self.filter { "(n % 3 <> 0 OR n < 0)" } else { "true" };
        let insert =
            format!("INSERT INTO oracle ({keys}, n) SELECT {keys}, n FROM stage WHERE {filter} ON CONFLICT ({keys})");
        let same: Vec<String> = self.columns().iter().map(|key| format!("t.{key} = s.{key}")).collect();
        match self.operation {
            "insert" => format!("{insert} DO NOTHING"),
            "upsert" => format!("{insert} DO UPDATE SET n = oracle.n + excluded.n"),
            _ => format!(
                "UPDATE oracle t SET n = t.n + s.n FROM (SELECT * FROM stage WHERE {filter}) s WHERE {}",
                same.join(" AND ")
            ),
        }
    }

    /// The differences between target and oracle, after the job and the statement.
    async fn differences(&self, database: &Database, schema: &str) -> Result<String, TestCaseError> {
        database.execute(&self.tables(schema)).await;
        let summary = database.run(&job(&self.job(schema))).await;
        prop_assert_eq!(summary.status, Status::Complete, "{:?}", summary.error);
        prop_assert!(summary.tally.counts.add_up());
        database.execute(&self.statement()).await;
        let differences = "SELECT count(*) FROM ((TABLE target EXCEPT ALL TABLE oracle) UNION ALL (TABLE oracle EXCEPT ALL TABLE target)) d";
        let found = database.value(differences).await;
        database.execute(&format!("DROP SCHEMA {schema} CASCADE")).await;
        Ok(found)
    }
}

#[test]
fn random_jobs_do_what_the_single_statement_does() {
    let cases_wanted = std::env::var("STAGEMILL_CASES").ok().and_then(|text| text.parse().ok()).unwrap_or(100);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let database = runtime.block_on(Database::with(""));
    let number = std::sync::atomic::AtomicU32::new(0);
    let mut runner =
        TestRunner::new(Config { cases: cases_wanted, max_shrink_iters: 200, ..Config::with_source_file(file!()) });
    let result = runner.run(&cases(), |case| {
        let schema = format!("case_{}", number.fetch_add(1, std::sync::atomic::Ordering::Relaxed));
        let differences = runtime.block_on(case.differences(&database, &schema))?;
        prop_assert_eq!(differences, "0");
        Ok(())
    });
    if let Err(error) = result {
        panic!("{error}");
    }
}
