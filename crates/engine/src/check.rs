//! Checks a job against the server: tables, names, types, privileges; every finding at once, each with its remedy.

pub mod activity;
mod comparison;
mod dms;
mod duplicates;
pub mod expression;
mod privilege;
mod promise;
mod scan;
mod security;
mod staged;
mod storage;
mod subject;
mod target;
mod thorough;
mod tree;

use crate::{
    chunk::Range,
    cut,
    failure::{Class, Failure},
    finding::Finding,
    gate,
    ident::TableName,
    job::{Job, OnBadRow, Operation},
    mapping::{Assignment, KeyColumn, Mapping},
    pg::Connection,
    probe, resolve,
    settings::Settings,
    statement::{self, Source},
    table::{Kind, Table},
};

pub use thorough::thoroughly;

/// What a check came to.
#[derive(Debug)]
pub struct Checked {
    /// What the job means; `None` when a finding keeps it from running.
    pub mapping: Option<Mapping>,
    /// The stage table, where there is one.
    pub stage: Option<Table>,
    /// Everything found.
    pub findings: Vec<Finding>,
}

impl Checked {
    /// The mapping and the stage, of a job that can run.
    ///
    /// # Errors
    /// [`Class::BadJob`] with every finding that keeps it from running.
    pub fn into_runnable(self) -> Result<(Mapping, Table), Failure> {
        let errors: Vec<Finding> =
            self.findings.into_iter().filter(|finding| finding.severity == crate::finding::Severity::Error).collect();
        match (self.mapping, self.stage) {
            (Some(mapping), Some(stage)) if errors.is_empty() => Ok((mapping, stage)),
            _ => Err(Failure::new(Class::BadJob, format!("the job can't run: {}", crate::finding::join(&errors)))),
        }
    }
}

/// Checks a job. Nothing is changed.
///
/// # Errors
/// When the server can't be asked; what is wrong with the job is a finding.
pub async fn job(connection: &Connection, job: &Job) -> Result<Checked, Failure> {
    let mut findings = Vec::new();
    let settings = match settings_of(connection, job).await {
        Ok(settings) => settings,
        Err(refused) if refused.class.is_retryable() => return Err(refused),
        Err(refused) => {
            findings.push(Finding::error("session", refused.to_string(), "correct the setting"));
            return Ok(Checked { mapping: None, stage: None, findings });
        }
    };
    let stage = find(connection, &settings, &job.stage.table, "stage.table", &mut findings).await?;
    let target = find(connection, &settings, &job.target.table, "target.table", &mut findings).await?;
    let (Some(stage), Some(target)) = (stage, target) else {
        return Ok(Checked { mapping: None, stage: None, findings });
    };
    if target.kind == Kind::NoHeap {
        findings.push(Finding::error("target.table", "is a view or a foreign table", "name the table behind it"));
    }
    privilege::examine(connection, job, &stage, &target, &mut findings).await?;
    let mut resolved = resolve::columns(job, &stage, &target, &mut findings);
    let changes = resolve::rules(job, &stage, &target, &mut resolved.assignments, &mut findings);
    let window = resolve::window(job, &stage, &mut findings);
    let asked = Asked { connection, settings: &settings, stage: &stage.name, target: &target.name };
    asked.expressions(job, &resolved.assignments, &mut findings).await?;
    asked.key_types(&resolved.key, &stage, &target, &mut findings).await?;
    let cut = resolve::cut(job, &stage, &target, &resolved.key, &mut findings);
    let same_heap = stage.leaves.iter().any(|leaf| target.leaves.contains(leaf));
    if cut.columns.is_empty() && same_heap {
        let column = if job.operation == Operation::Sql { ", and name its key in chunks.column" } else { "" };
        findings.push(Finding::error(
            "stage.table",
            "is the target too: a row that one chunk updated moves into the blocks of another one, which takes it again",
            format!("use \"by\": \"key\"{column}"),
        ));
    }
    staged::examine(connection, job, &stage, same_heap, &cut, &mut findings).await?;
    let identity =
        |a: &Assignment| a.insert.is_some() && target.column(&a.column).is_some_and(|column| column.identity_always);
    let mut mapping = Mapping {
        stage_columns: stage.columns.iter().map(|column| column.name.clone()).collect(),
        stage_leaves: stage.leaves.clone(),
        stage_has_heap: stage.kind != Kind::NoHeap,
        filter: job.stage.filter.clone(),
        window,
        stage_rows: job.stage_rows,
        existing: job.existing,
        changes,
        statements: job.sql.clone(),
        skip_unchanged: job.skip_unchanged,
        // A share is known when the rows have been counted.
        reject_limit: (job.on_bad_row == OnBadRow::Quarantine).then_some(0),
        overrides_identity: resolved.assignments.iter().any(identity),
        key: resolved.key,
        assignments: resolved.assignments,
        cut: cut.columns,
        keys_together: cut.keys_together,
        keys_are_unique: cut.keys_are_unique,
        settings: settings.clone(),
        ..Mapping::new(stage.name.clone(), target.name.clone(), job.operation)
    };
    comparison::examine(connection, &mut mapping, &mut findings).await?;
    if !Finding::any_error(&findings) {
        asked.statement(&mapping, job, &mut findings).await?;
    }
    if !mapping.keys_together
        && !mapping.keys_are_unique
        && job.operation != Operation::Sql
        && stage.kind != Kind::NoHeap
    {
        findings.push(Finding::warning(
            "stage.table",
            "no unique index shows that each target key is staged once: planning counts, which reads the whole stage",
            "CREATE UNIQUE INDEX on the stage's key columns",
        ));
    }
    if mapping.operation.inserts() {
        let may_exist = mapping.operation != Operation::Insert;
        target::unfilled(connection, &target, &mapping.assignments, may_exist, &mut findings).await?;
    }
    room(connection, job, &mut findings).await?;
    gate::check_limits(connection, &settings, &job.limits, &mut findings).await?;
    Ok(Checked { mapping: Some(mapping), stage: Some(stage), findings })
}

/// Sessions that the server can't give make a run slow, and turn everybody else away, without an error that people would see.
async fn room(connection: &Connection, job: &Job, findings: &mut Vec<Finding>) -> Result<(), Failure> {
    let sql = "SELECT pg_catalog.current_setting('max_connections')::int8 - pg_catalog.current_setting('superuser_reserved_connections')::int8";
    let most: i64 = connection.query_one(sql, &[]).await?.get(0);
    if i64::from(job.parallelism.most()) >= most && !job.parallelism.is_auto() {
        findings.push(Finding::warning(
            "parallelism",
            format!("is {}, the server has {most} sessions for everybody together", job.parallelism),
            "lower it: sessions that can't be had are waited for, and nobody else gets one meanwhile",
        ));
    }
    Ok(())
}

/// The settings of the run: the job's, and what decides how expressions and boundaries are read, as this session has it now.
async fn settings_of(connection: &Connection, job: &Job) -> Result<Settings, Failure> {
    let sql = "SELECT pg_catalog.current_setting('search_path'), pg_catalog.current_setting('TimeZone'),
                      'ISO, ' || pg_catalog.split_part(pg_catalog.current_setting('DateStyle'), ', ', 2)";
    let row = probe::ask_one(connection, &job.session, sql, &[]).await?;
    let mut settings = job.session.clone();
    settings.retain(|name, _| !["search_path", "timezone", "datestyle"].contains(&name.to_lowercase().as_str()));
    for (n, name) in ["search_path", "TimeZone", "DateStyle"].iter().enumerate() {
        settings.insert((*name).to_owned(), row.get(n));
    }
    // It fires at 50,000 rows and costs more than a chunk.
    if !settings.keys().any(|name| name.eq_ignore_ascii_case("jit")) {
        settings.insert("jit".to_owned(), "off".to_owned());
    }
    Ok(settings)
}

async fn find(
    connection: &Connection,
    settings: &Settings,
    text: &str,
    at: &str,
    findings: &mut Vec<Finding>,
) -> Result<Option<Table>, Failure> {
    // Parsed before, when the job was read.
    let Ok(name) = TableName::parse(text) else { return Ok(None) };
    let table = match probe::table(connection, settings, &name).await {
        Ok(table) => table,
        Err(refused) if refused.class == Class::BadJob => {
            findings.push(Finding::error(at, refused.to_string(), "GRANT USAGE ON SCHEMA, or correct the name"));
            return Ok(None);
        }
        Err(failure) => return Err(failure),
    };
    if table.is_none() {
        let fault = format!("{name} does not exist in this database");
        findings.push(Finding::error(
            at,
            fault,
            "create it, correct the name (unquoted names are folded to lower case), or connect to its database",
        ));
    }
    Ok(table)
}

/// A text as it stands in a job file.
fn in_json(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// Everything that is asked about one job.
struct Asked<'a> {
    connection: &'a Connection,
    settings: &'a Settings,
    stage: &'a TableName,
    target: &'a TableName,
}

impl Asked<'_> {
    /// Lets the server read each expression by itself, so that each mistake is found and named.
    async fn expressions(
        &self,
        job: &Job,
        assignments: &[Assignment],
        findings: &mut Vec<Finding>,
    ) -> Result<(), Failure> {
        let stage = format!("{} AS stage", self.stage);
        let both = format!("{stage}, {} AS target", self.target);
        if let Some(filter) = &job.stage.filter {
            self.expression("stage.where", &format!("(\n{filter}\n)::boolean"), &stage, findings).await?;
        }
        for assignment in assignments {
            let at = format!("columns.{}", assignment.column.as_str());
            match (&assignment.insert, &assignment.update) {
                (Some(insert), Some(update)) if insert == update => {
                    self.expression(&at, insert, &stage, findings).await?;
                }
                (insert, update) => {
                    if let Some(insert) = insert {
                        self.expression(&at, insert, &stage, findings).await?;
                    }
                    if let Some(update) = update {
                        self.expression(&at, update, &both, findings).await?;
                    }
                }
            }
        }
        Ok(())
    }

    /// The type of an expression over `from`, a domain's base, without reading a row. In a WHERE too: there the server refuses aggregates, windows and sets,
    /// which would make a chunk's result depend on where it was cut.
    async fn expression(
        &self,
        at: &str,
        text: &str,
        from: &str,
        findings: &mut Vec<Finding>,
    ) -> Result<Option<String>, Failure> {
        let sql = format!(
            "WITH RECURSIVE of(type) AS (
                 SELECT pg_catalog.pg_typeof((SELECT (\n{text}\n) FROM {from} WHERE (\n{text}\n) IS NULL LIMIT 0))::oid
                 UNION ALL
                 SELECT t.typbasetype FROM of JOIN pg_catalog.pg_type t ON t.oid = of.type WHERE t.typbasetype <> 0
             )
             SELECT pg_catalog.format_type(of.type, NULL) FROM of JOIN pg_catalog.pg_type t ON t.oid = of.type WHERE t.typbasetype = 0"
        );
        match probe::ask_one(self.connection, self.settings, &sql, &[]).await {
            Ok(row) => Ok(Some(row.get(0))),
            Err(refused) if refused.class.is_retryable() => Err(refused),
            Err(refused) => {
                let remedy = if from.ends_with(" AS target") {
                    "write one SQL expression over `stage` and `target`"
                } else {
                    "write one SQL expression over `stage`"
                };
                findings.push(Finding::error(at, format!("is not accepted by the server: {refused}"), remedy));
                Ok(None)
            }
        }
    }

    async fn key_types(
        &self,
        key: &[KeyColumn],
        stage: &Table,
        target: &Table,
        findings: &mut Vec<Finding>,
    ) -> Result<(), Failure> {
        for key in key {
            // A fault in the expression has been found before.
            let found =
                self.expression("", &key.expression, &format!("{} AS stage", self.stage), &mut Vec::new()).await?;
            let (Some(staged), Some(column)) = (found, target.column(&key.column)) else { continue };
            if let Some(narrow) = resolve::narrowing(key, stage, target) {
                findings.push(narrow);
            }
            if !resolve::index_can_find(&staged, &column.base_type) && staged != column.type_name {
                findings.push(Finding::error(
                    format!("columns.{}", key.column.as_str()),
                    format!(
                        "is {staged}, the target's key is {}: its index can't be used to find the rows",
                        column.type_name
                    ),
                    format!(
                        "{}: {}",
                        in_json(&key.column.as_in_sql()),
                        in_json(&format!("CAST({} AS {})", key.expression, column.type_name))
                    ),
                ));
            }
        }
        Ok(())
    }

    /// Lets the server plan what a chunk does: what no single expression shows, an assignment's type for one.
    async fn statement(&self, mapping: &Mapping, job: &Job, findings: &mut Vec<Finding>) -> Result<(), Failure> {
        let range = match &job.chunks.query {
            Some(query) => match self.own_ranges(mapping, query, findings).await? {
                Some(range) => range,
                None => return Ok(()),
            },
            None => resolve::any_range(mapping),
        };
        let remedy = "correct the expressions (a CAST where types differ), or grant what is missing";
        let fault = "make a statement that the server does not accept";
        if mapping.operation != Operation::Sql {
            let sql = statement::apply(mapping, Source::Chunk(&range));
            return self.explain("columns", &sql, fault, remedy, findings).await;
        }
        for (n, sql) in statement::statements(mapping, &range).iter().enumerate() {
            let remedy = "write one statement that can be EXPLAINed, with {chunk} in its WHERE and the stage table named `stage`";
            self.explain(&format!("sql.{n}"), sql, "is not accepted by the server", remedy, findings).await?;
        }
        Ok(())
    }

    async fn explain(
        &self,
        at: &str,
        sql: &str,
        fault: &str,
        remedy: &str,
        findings: &mut Vec<Finding>,
    ) -> Result<(), Failure> {
        match probe::ask(self.connection, self.settings, &format!("EXPLAIN {sql}"), &[]).await {
            Ok(_) => Ok(()),
            Err(refused) if refused.class.is_retryable() => Err(refused),
            Err(refused) => {
                findings.push(Finding::error(at, format!("{fault}: {refused}"), remedy));
                Ok(())
            }
        }
    }

    /// One of the job's own ranges; `None` where there is none, or the query can't be used.
    async fn own_ranges(
        &self,
        mapping: &Mapping,
        query: &str,
        findings: &mut Vec<Finding>,
    ) -> Result<Option<Range>, Failure> {
        match cut::own_ranges(self.connection, mapping, query).await {
            Ok(ranges) => {
                if ranges.is_empty() {
                    let remedy = "a run would apply nothing; look at what the query gives";
                    findings.push(Finding::warning("chunks.query", "gives no range", remedy));
                }
                Ok(ranges.into_iter().next())
            }
            Err(refused) if refused.class.is_retryable() => Err(refused),
            Err(refused) => {
                let remedy =
                    "write a SELECT of two columns: the first and the last value of each chunk, without overlaps";
                findings.push(Finding::error("chunks.query", format!("can't be used: {refused}"), remedy));
                Ok(None)
            }
        }
    }
}
