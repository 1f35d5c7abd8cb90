//! The columns that say what a staged row is, how new it is, and whether it is this run's.

use crate::{
    finding::Finding,
    ident::Ident,
    job::Job,
    mapping::{Assignment, ChangeRules, Compare, Ordered, Window},
    table::{Column, Table},
};

const TIMES: [&str; 3] = ["date", "timestamp without time zone", "timestamp with time zone"];
const NUMBERS: [&str; 4] = ["smallint", "integer", "bigint", "numeric"];
const TEXTS: [&str; 3] = ["text", "character varying", "character"];

/// What the operation `changes` goes by. A guard that no expression writes is written with the change's order.
pub fn rules(
    job: &Job,
    stage: &Table,
    target: &Table,
    assignments: &mut Vec<Assignment>,
    findings: &mut Vec<Finding>,
) -> Option<ChangeRules> {
    let changes = job.changes.as_ref()?;
    let indicator = named("changes.operation", &changes.operation, stage, findings).map(|column| column.name.clone());
    let order = ordered("changes.order", &changes.order, stage, findings);
    // Each is looked at before any is missed, so that all of them are named at once.
    let guard = match &changes.guard {
        Some(name) => Some(ordered("changes.guard", name, target, findings)?),
        None => None,
    };
    let (indicator, order) = (indicator?, order?);
    let given = guard.as_ref().and_then(|guard| assignments.iter().find(|a| a.column == guard.column));
    if given.is_some_and(|a| a.insert.is_none() || a.update.is_none()) {
        findings.push(Finding::error(
            "changes.guard",
            "is not written by every change that is applied, and would let older ones through",
            "leave it out of columns, or give it one value for both branches",
        ));
    }
    if let Some(guard) = guard.as_ref().filter(|guard| assignments.iter().all(|a| a.column != guard.column)) {
        let text = order.is_text && guard.is_text;
        let value = Some(if text { format!("stage.{}", order.column) } else { order.value("stage") });
        // Compared as the others are: a newer change that says nothing new still moves the guard, or an older one would be taken after it.
        let compare = target.column(&guard.column).map(Compare::of);
        assignments.push(Assignment { column: guard.column.clone(), insert: value.clone(), update: value, compare });
    }
    Some(ChangeRules {
        indicator,
        writes: [changes.insert.clone(), changes.update.clone()],
        delete: changes.delete.clone(),
        order,
        guard,
    })
}

/// The window of a job with a watermark, without its bounds yet.
pub fn window(job: &Job, stage: &Table, findings: &mut Vec<Finding>) -> Option<Window> {
    let watermark = job.watermark.as_ref()?;
    let column = ordered("watermark.column", &watermark.column, stage, findings)?;
    let type_name =
        if column.is_text { "pg_catalog.numeric".to_owned() } else { stage.column(&column.column)?.bare_type.clone() };
    match &watermark.overlap {
        None => findings.push(Finding::warning(
            "watermark",
            "has no overlap: a row that is committed late, with a value no higher than what a run took, is never taken",
            "stop the writers before each run, or give an overlap that is longer than their transactions",
        )),
        Some(_) => repeats(job, findings),
    }
    Some(Window { column, type_name, overlap: watermark.overlap.clone(), bounds: None })
}

/// Rows in the overlap are applied again.
fn repeats(job: &Job, findings: &mut Vec<Finding>) {
    use crate::job::{Existing, Operation};
    let refused = match job.operation {
        Operation::Insert => job.existing == Existing::Error,
        Operation::Sql => true,
        _ => false,
    };
    if refused {
        findings.push(Finding::error(
            "watermark.overlap",
            "applies rows again, which this operation does not bear",
            "use upsert or changes, or stop the writers before each run and leave the overlap out",
        ));
    }
}

fn named<'a>(at: &str, name: &str, table: &'a Table, findings: &mut Vec<Finding>) -> Option<&'a Column> {
    // Parsed before, when the job was read.
    let column = Ident::parse(name).ok()?;
    let found = table.column(&column);
    if found.is_none() {
        let fault = format!("{} is not a column of {}", column.as_str(), table.name);
        findings.push(Finding::error(at, fault, "correct the name; an unquoted one is folded to lower case"));
    }
    found
}

fn ordered(at: &str, name: &str, table: &Table, findings: &mut Vec<Finding>) -> Option<Ordered> {
    let column = named(at, name, table, findings)?;
    let base = column.base_type.as_str();
    if !TIMES.iter().chain(&NUMBERS).chain(&TEXTS).any(|known| *known == base) {
        let fault = format!("is {}, which has no order to go by", column.type_name);
        findings.push(Finding::error(at, fault, "name a number, a time, or digits as text"));
        return None;
    }
    Some(Ordered { column: column.name.clone(), is_text: TEXTS.contains(&base) })
}
