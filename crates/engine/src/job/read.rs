//! Reads a job field by field, so that one wrong field does not hide the next one.

mod combinations;

use serde::de::DeserializeOwned;
use serde_json::{Map, Value as Json};

use super::{
    Changes, ChunkBy, Chunks, Columns, Existing, Job, Limit, Limits, OnBadRow, Operation, Parallelism, Retry, Stage,
    StageRows, Target, Value, Verify, Watermark,
};
use crate::{
    finding::Finding,
    ident::{Ident, TableName},
    settings::{self, Settings},
};

const FIELDS: &str = "name, stage, target, operation, existing, columns, changes, sql, max_deletes, skip_unchanged, watermark, stage_rows, \
                      on_bad_row, max_rejects, verify, chunks, parallelism, limits, deadline_minutes, retry, session, share_tables";

/// No expression that a person writes is longer, and the ledger keeps a copy of it for each run.
const MAX_EXPRESSION_BYTES: usize = 100_000;

/// A week of minutes.
const A_WEEK: u32 = 7 * 24 * 60;

struct Fields {
    left: Map<String, Json>,
    findings: Vec<Finding>,
}

/// A job's fields as far as they could be read.
struct Read {
    name: Option<String>,
    stage: Option<Stage>,
    target: Option<Target>,
    operation: Option<Operation>,
    existing: Option<Existing>,
    columns: Option<Columns>,
    changes: Option<Changes>,
    sql: Option<Vec<String>>,
    max_deletes: Option<Limit>,
    skip_unchanged: Option<bool>,
    watermark: Option<Watermark>,
    stage_rows: Option<StageRows>,
    on_bad_row: Option<OnBadRow>,
    max_rejects: Option<Limit>,
    verify: Option<Verify>,
    chunks: Option<Chunks>,
    parallelism: Option<Parallelism>,
    limits: Option<Limits>,
    deadline_minutes: Option<u32>,
    retry: Option<Retry>,
    session: Option<Settings>,
    share_tables: Option<bool>,
}

pub(super) fn job(value: Json) -> Result<Job, Vec<Finding>> {
    let Json::Object(left) = value else {
        return Err(vec![Finding::error("job", "is not a JSON object", "a job is {\"name\": …, \"stage\": …, …}")]);
    };
    let mut fields = Fields { left, findings: Vec::new() };
    let read = Read {
        name: fields.required("name"),
        stage: fields.required("stage"),
        target: fields.required("target"),
        operation: fields.required("operation"),
        existing: fields.optional("existing"),
        columns: fields.optional("columns"),
        changes: fields.optional("changes"),
        sql: fields.optional("sql"),
        max_deletes: fields.optional("max_deletes"),
        skip_unchanged: fields.optional("skip_unchanged"),
        watermark: fields.optional("watermark"),
        stage_rows: fields.optional("stage_rows"),
        on_bad_row: fields.optional("on_bad_row"),
        max_rejects: fields.optional("max_rejects"),
        verify: fields.optional("verify"),
        chunks: fields.optional("chunks"),
        parallelism: fields.optional("parallelism"),
        limits: fields.optional("limits"),
        deadline_minutes: fields.optional("deadline_minutes"),
        retry: fields.optional("retry"),
        session: fields.optional("session"),
        share_tables: fields.optional("share_tables"),
    };
    let mut findings = fields.finish();
    examine(&read, &mut findings);
    match read.complete() {
        Some(job) if findings.is_empty() => Ok(job),
        _ => Err(findings),
    }
}

impl Read {
    fn complete(self) -> Option<Job> {
        Some(Job {
            name: self.name?,
            stage: self.stage?,
            target: self.target?,
            operation: self.operation?,
            existing: self.existing.unwrap_or_default(),
            columns: self.columns,
            changes: self.changes,
            sql: self.sql.unwrap_or_default(),
            max_deletes: self.max_deletes,
            skip_unchanged: self.skip_unchanged.unwrap_or_default(),
            watermark: self.watermark,
            stage_rows: self.stage_rows.unwrap_or_default(),
            on_bad_row: self.on_bad_row.unwrap_or_default(),
            max_rejects: self.max_rejects,
            verify: self.verify.unwrap_or_default(),
            chunks: self.chunks.unwrap_or_default(),
            parallelism: self.parallelism.unwrap_or_default(),
            limits: self.limits.unwrap_or_default(),
            deadline_minutes: self.deadline_minutes,
            retry: self.retry.unwrap_or_default(),
            session: self.session.unwrap_or_default(),
            share_tables: self.share_tables.unwrap_or_default(),
        })
    }
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
                    in_words_of_json(&error.into_inner().to_string()),
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

/// Serde's text without the words of Rust.
fn in_words_of_json(text: &str) -> String {
    let text = text
        .replace("expected string or map", "expected a word as text")
        .replace("expected a sequence", "expected a list");
    match text.split_once("expected struct ") {
        Some((before, _)) => format!("{before}expected an object"),
        None => text,
    }
}

/// What serde can't see: ranges, names, empty expressions.
fn examine(read: &Read, findings: &mut Vec<Finding>) {
    if let Some(name) = read.name.as_ref().filter(|name| !is_job_name(name)) {
        let remedy = "use up to 63 letters, digits, `_`, `.` and `-`, a letter or digit first";
        findings.push(Finding::error("name", format!("is {name:?}, which is not a job's name"), remedy));
    }
    if let Some(stage) = &read.stage {
        table("stage.table", &stage.table, findings);
        if let Some(filter) = &stage.filter {
            expression("stage.where", filter, findings);
        }
    }
    if let Some(target) = &read.target {
        table("target.table", &target.table, findings);
        if read.operation != Some(Operation::Sql) {
            examine_key(&target.key, findings);
        }
    }
    let chunks = read.chunks.clone().unwrap_or_default();
    let retry = read.retry.unwrap_or_default();
    let limits = read.limits.clone().unwrap_or_default();
    if let Some(sql) = &limits.sql {
        expression("limits.sql", sql, findings);
    }
    if limits.is_none() && limits.abort_after_minutes.is_some() {
        let remedy = "add a limit that may hold the run back, or take it out";
        findings.push(Finding::error("limits.abort_after_minutes", "goes with a limit, and there is none", remedy));
    }
    for (at, number, high) in [
        ("chunks.rows", chunks.rows, 10_000_000),
        ("parallelism", read.parallelism.unwrap_or_default().most(), 1_000),
        ("deadline_minutes", read.deadline_minutes.unwrap_or(1), A_WEEK),
        ("limits.abort_after_minutes", limits.abort_after_minutes.unwrap_or(1), A_WEEK),
        ("retry.attempts", retry.attempts, 100),
        ("retry.rounds", retry.rounds, 100),
    ] {
        if !(1..=high).contains(&number) {
            findings.push(Finding::error(at, format!("is {number}"), format!("give a number from 1 to {high}")));
        }
    }
    examine_chunks(&chunks, read.operation, findings);
    combinations::examine(read, findings);
    if let Some(columns) = &read.columns {
        examine_columns(columns, findings);
    }
    if let Some(session) = &read.session {
        settings::examine(session, findings);
    }
}

fn examine_chunks(chunks: &Chunks, operation: Option<Operation>, findings: &mut Vec<Finding>) {
    if let Some(name) = &chunks.column {
        column("chunks.column", name, findings);
        if chunks.by != ChunkBy::Sql && operation.is_some_and(|operation| operation != Operation::Sql) {
            let fault = "is for \"by\": \"sql\" and for \"operation\": \"sql\"";
            findings.push(Finding::error("chunks.column", fault, "take it out: the target's key is cut along"));
        }
    }
    match (&chunks.query, chunks.by) {
        (Some(query), ChunkBy::Sql) => expression("chunks.query", query, findings),
        (Some(_), _) => {
            findings.push(Finding::error("chunks.query", "is for \"by\": \"sql\"", "take it out, or set chunks.by"));
        }
        (None, ChunkBy::Sql) => {
            let remedy = "give a SELECT of two columns, the first and the last value of each chunk";
            findings.push(Finding::error("chunks.query", "is missing", remedy));
        }
        (None, _) => {}
    }
    if operation == Some(Operation::Sql) && chunks.column.is_none() && matches!(chunks.by, ChunkBy::Key | ChunkBy::Sql)
    {
        findings.push(Finding::error("chunks.column", "is missing", "name the stage's column to cut along"));
    }
}

fn column(at: &str, name: &str, findings: &mut Vec<Finding>) {
    if let Err(error) = Ident::parse(name) {
        findings.push(Finding::error(at, error.to_string(), "write a column's name as in SQL"));
    }
}

pub(super) fn is_job_name(name: &str) -> bool {
    name.len() <= 63
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || "_.-".contains(c))
}

fn table(at: &str, name: &str, findings: &mut Vec<Finding>) {
    if let Err(error) = TableName::parse(name) {
        findings.push(Finding::error(at, error.to_string(), "write `schema.table` as in SQL"));
    }
}

fn examine_key(key: &[String], findings: &mut Vec<Finding>) {
    if key.is_empty() {
        findings.push(Finding::error("target.key", "is empty", "name the columns of a unique index of the target"));
    }
    let mut seen = std::collections::BTreeSet::new();
    for name in key {
        match Ident::parse(name) {
            Err(error) => {
                findings.push(Finding::error("target.key", error.to_string(), "write a column's name as in SQL"))
            }
            Ok(ident) if seen.contains(&ident) => {
                findings.push(Finding::error(
                    "target.key",
                    format!("names {} twice", ident.as_str()),
                    "keep one of the two",
                ));
            }
            Ok(ident) => {
                seen.insert(ident);
            }
        }
    }
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
