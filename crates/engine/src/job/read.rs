//! Reads a job field by field, so that one wrong field does not hide the next one.

use serde::de::DeserializeOwned;
use serde_json::{Map, Value as Json};

use super::{Chunks, Columns, Existing, Job, Retry, Value};
use crate::{
    finding::Finding,
    ident::{Ident, TableName},
    settings,
};

const FIELDS: &str =
    "name, stage, target, operation, existing, columns, chunks, parallelism, retry, session, share_tables";

/// The largest job: DynamoDB-like inputs have no place here, and the ledger keeps a copy a run.
const MAX_EXPRESSION_BYTES: usize = 100_000;

struct Fields {
    left: Map<String, Json>,
    findings: Vec<Finding>,
}

pub(super) fn job(value: Json) -> Result<Job, Vec<Finding>> {
    let Json::Object(left) = value else {
        return Err(vec![Finding::error("job", "is not a JSON object", "a job is {\"name\": …, \"stage\": …, …}")]);
    };
    let mut fields = Fields { left, findings: Vec::new() };
    let name = fields.required("name");
    let stage = fields.required("stage");
    let target = fields.required("target");
    let operation = fields.required("operation");
    let existing = fields.optional("existing");
    let columns: Option<Columns> = fields.optional("columns");
    let chunks: Option<Chunks> = fields.optional("chunks");
    let parallelism = fields.optional("parallelism");
    let retry: Option<Retry> = fields.optional("retry");
    let session = fields.optional("session");
    let share_tables = fields.optional("share_tables");
    let mut findings = fields.finish();
    if let (Some(name), Some(stage), Some(target), Some(operation)) = (name, stage, target, operation) {
        let job = Job {
            name,
            stage,
            target,
            operation,
            existing: existing.unwrap_or(Existing::Skip),
            columns,
            chunks: chunks.unwrap_or_default(),
            parallelism: parallelism.unwrap_or_else(super::default_parallelism),
            retry: retry.unwrap_or_default(),
            session: session.unwrap_or_default(),
            share_tables: share_tables.unwrap_or_default(),
        };
        examine(&job, &mut findings);
        if findings.is_empty() {
            return Ok(job);
        }
    }
    Err(findings)
}

impl Fields {
    fn optional<T: DeserializeOwned>(&mut self, name: &str) -> Option<T> {
        let value = self.left.remove(name)?;
        match serde_path_to_error::deserialize(value) {
            Ok(read) => Some(read),
            Err(error) => {
                let inside = error.path().to_string();
                let at = if inside == "." { name.to_owned() } else { format!("{name}.{inside}") };
                self.findings.push(Finding::error(
                    at,
                    error.into_inner().to_string(),
                    "see `stagemill schema` for what it takes",
                ));
                None
            }
        }
    }

    fn required<T: DeserializeOwned>(&mut self, name: &str) -> Option<T> {
        if !self.left.contains_key(name) {
            self.findings.push(Finding::error(name, "is missing", "every job has name, stage, target and operation"));
        }
        self.optional(name)
    }

    fn finish(mut self) -> Vec<Finding> {
        for unknown in self.left.keys() {
            self.findings.push(Finding::error(unknown, "is not a field of a job", format!("the fields are {FIELDS}")));
        }
        self.findings
    }
}

/// What serde can't see: ranges, names, empty expressions.
fn examine(job: &Job, findings: &mut Vec<Finding>) {
    let mut wrong = |at: &str, what: String, remedy: &str| findings.push(Finding::error(at, what, remedy));
    let named = !job.name.is_empty()
        && job.name.len() <= 63
        && job.name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && job.name.chars().all(|c| c.is_ascii_alphanumeric() || "_.-".contains(c));
    if !named {
        wrong(
            "name",
            "is not a job's name".into(),
            "use up to 63 letters, digits, `_`, `.` and `-`, a letter or digit first",
        );
    }
    for (at, table) in [("stage.table", &job.stage.table), ("target.table", &job.target.table)] {
        if let Err(error) = TableName::parse(table) {
            wrong(at, error.to_string(), "write `schema.table` as in SQL");
        }
    }
    if job.target.key.is_empty() {
        wrong("target.key", "is empty".into(), "name the columns of a unique index of the target");
    }
    for key in &job.target.key {
        if let Err(error) = Ident::parse(key) {
            wrong("target.key", error.to_string(), "write a column's name as in SQL");
        }
    }
    let within = |n: u32, low: u32, high: u32| (low..=high).contains(&n);
    for (at, number, high) in [
        ("chunks.rows", job.chunks.rows, 10_000_000),
        ("parallelism", job.parallelism, 1_000),
        ("retry.attempts", job.retry.attempts, 100),
        ("retry.rounds", job.retry.rounds, 100),
    ] {
        if !within(number, 1, high) {
            wrong(at, format!("is {number}"), &format!("give a number from 1 to {high}"));
        }
    }
    if let Some(filter) = &job.stage.filter {
        expression("stage.where", filter, findings);
    }
    if let Some(columns) = &job.columns {
        examine_columns(columns, findings);
    }
    settings::examine(&job.session, findings);
}

fn examine_columns(columns: &Columns, findings: &mut Vec<Finding>) {
    let names: Vec<&String> = match columns {
        Columns::Same(names) => names.iter().collect(),
        Columns::Map(map) => map.keys().collect(),
    };
    if names.is_empty() {
        findings.push(Finding::error("columns", "is empty", "leave it out for all common columns, or name some"));
    }
    let mut seen = std::collections::BTreeSet::new();
    for name in names {
        match Ident::parse(name) {
            Err(error) => findings.push(Finding::error(
                format!("columns.{name}"),
                error.to_string(),
                "write a column's name as in SQL",
            )),
            Ok(ident) if seen.contains(&ident) => {
                findings.push(Finding::error(format!("columns.{name}"), "names a column twice", "keep one of the two"));
            }
            Ok(ident) => {
                seen.insert(ident);
            }
        }
    }
    let Columns::Map(map) = columns else { return };
    for (name, value) in map {
        let at = format!("columns.{name}");
        match value {
            Value::Both(text) => expression(&at, text, findings),
            Value::Each(each) if each.insert.is_none() && each.update.is_none() => {
                findings.push(Finding::error(
                    at,
                    "has neither insert nor update",
                    "give at least one of the two, or leave the column out",
                ));
            }
            Value::Each(each) => {
                for (branch, text) in [("insert", &each.insert), ("update", &each.update)] {
                    if let Some(text) = text {
                        expression(&format!("{at}.{branch}"), text, findings);
                    }
                }
            }
        }
    }
}

fn expression(at: &str, text: &str, findings: &mut Vec<Finding>) {
    let wrong = if text.trim().is_empty() {
        "is an empty expression"
    } else if text.contains('\0') {
        "contains a NUL character"
    } else if text.len() > MAX_EXPRESSION_BYTES {
        "is longer than 100,000 bytes"
    } else {
        return;
    };
    findings.push(Finding::error(at, wrong, "write one SQL expression over `stage`"));
}
