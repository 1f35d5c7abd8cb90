//! Fields that need one another, or exclude each other.

use super::{Read, column, expression};
use crate::{
    finding::Finding,
    job::{Limit, OnBadRow, Operation, StageRows, placeholder},
};

pub(super) fn examine(read: &Read, findings: &mut Vec<Finding>) {
    let Some(operation) = read.operation else { return };
    belong(read, operation, findings);
    if let Some(changes) = &read.changes {
        column("changes.operation", &changes.operation, findings);
        column("changes.order", &changes.order, findings);
        if let Some(guard) = &changes.guard {
            column("changes.guard", guard, findings);
        }
        for (at, letter) in [
            ("changes.insert", &changes.insert),
            ("changes.update", &changes.update),
            ("changes.delete", &changes.delete),
        ] {
            text(at, letter, findings);
        }
        if changes.delete == changes.insert || changes.delete == changes.update {
            let remedy = "give deletes an indicator of their own";
            findings.push(Finding::error("changes.delete", "is the indicator of another change too", remedy));
        }
    }
    if let Some(watermark) = &read.watermark {
        column("watermark.column", &watermark.column, findings);
        if let Some(overlap) = &watermark.overlap {
            text("watermark.overlap", overlap, findings);
        }
    }
    for (at, limit) in [("max_deletes", &read.max_deletes), ("max_rejects", &read.max_rejects)] {
        if limit.as_ref().is_some_and(|limit| !Limit::is_valid(limit)) {
            findings.push(Finding::error(at, "is not a percentage", "write rows as a number, or \"0%\" to \"100%\""));
        }
    }
    statements(read, operation, findings);
    quarantine(read, operation, findings);
}

/// A value that the server has to take.
fn text(at: &str, value: &str, findings: &mut Vec<Finding>) {
    if value.contains('\0') {
        findings.push(Finding::error(at, "contains a NUL character", "take it out: no text in PostgreSQL holds one"));
    }
}

/// Fields that only some operations have.
fn belong(read: &Read, operation: Operation, findings: &mut Vec<Finding>) {
    let key = read.target.as_ref().is_some_and(|target| !target.key.is_empty());
    let sql = operation == Operation::Sql;
    let stage_rows = read.stage_rows.unwrap_or_default();
    for (wrong, at, whose, remedy) in [
        (read.existing.is_some() && operation != Operation::Insert, "existing", "insert", "take it out"),
        (read.changes.is_some() && operation != Operation::Changes, "changes", "changes", "take it out"),
        (!read.sql.as_deref().unwrap_or_default().is_empty() && !sql, "sql", "sql", "take it out"),
        (read.max_deletes.is_some() && !operation.deletes(), "max_deletes", "delete\" or \"changes", "take it out"),
        (
            read.skip_unchanged == Some(true) && !operation.updates(),
            "skip_unchanged",
            "update\", \"upsert\" or \"changes",
            "take it out",
        ),
    ] {
        if wrong {
            findings.push(Finding::error(at, format!("is for \"operation\": \"{whose}\""), remedy));
        }
    }
    for (wrong, at, remedy) in [
        (sql && read.columns.is_some(), "columns", "take it out: the statements say what is written"),
        (sql && key, "target.key", "take it out; chunks.column says what is cut along"),
        (
            sql && stage_rows == StageRows::Delete,
            "stage_rows",
            "let the last statement delete them: DELETE FROM … AS stage WHERE {chunk}",
        ),
    ] {
        if wrong {
            findings.push(Finding::error(at, "is not for \"operation\": \"sql\"", remedy));
        }
    }
    if operation == Operation::Changes && read.changes.is_none() {
        let remedy = "give {\"operation\": \"its indicator's column\", \"order\": \"its sequence's column\"}";
        findings.push(Finding::error("changes", "is missing", remedy));
    }
}

/// The statements of the operation `sql`.
fn statements(read: &Read, operation: Operation, findings: &mut Vec<Finding>) {
    let statements = read.sql.as_deref().unwrap_or_default();
    if operation == Operation::Sql && statements.is_empty() {
        findings.push(Finding::error("sql", "is missing", "give the statements, as a list of texts"));
    }
    for (n, statement) in statements.iter().enumerate() {
        let at = format!("sql.{n}");
        expression(&at, statement, findings);
        if !placeholder::is_in(statement) {
            let remedy = "put {chunk} into its WHERE, over the stage table as `stage`: without it, each chunk would do the whole";
            findings.push(Finding::error(at, "has no placeholder for the chunk", remedy));
        }
    }
}

fn quarantine(read: &Read, operation: Operation, findings: &mut Vec<Finding>) {
    match (read.on_bad_row.unwrap_or_default(), &read.max_rejects) {
        (OnBadRow::Quarantine, _) if operation == Operation::Sql => {
            let remedy = "take it out: stagemill can't tell which row a statement of yours failed for";
            findings.push(Finding::error("on_bad_row", "can't be \"quarantine\" with \"operation\": \"sql\"", remedy));
        }
        (OnBadRow::Quarantine, None) => {
            let remedy = "say how many rows may be set aside before the run fails: 100, or \"1%\"";
            findings.push(Finding::error("max_rejects", "is missing beside \"on_bad_row\": \"quarantine\"", remedy));
        }
        (OnBadRow::Fail, Some(_)) => {
            let remedy = "take it out, or add \"on_bad_row\": \"quarantine\"";
            findings.push(Finding::error("max_rejects", "is for \"on_bad_row\": \"quarantine\"", remedy));
        }
        _ => {}
    }
}
