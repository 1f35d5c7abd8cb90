//! From the job's words to the catalog's names: pure decisions over two tables.

mod changes;
mod cut;

pub use changes::{rules, window};
pub use cut::{Cut, any_range, cut};

use crate::{
    finding::Finding,
    ident::Ident,
    job::{Columns, Job, Operation, Value},
    mapping::{Assignment, Compare, KeyColumn},
    table::{Column, Table},
};
use cut::{keeps_order, stage_column};

/// What each column gets, and the key.
#[derive(Debug)]
pub struct Resolved {
    /// The target's key.
    pub key: Vec<KeyColumn>,
    /// The target's columns and their values.
    pub assignments: Vec<Assignment>,
}

/// Resolves key and columns.
pub fn columns(job: &Job, stage: &Table, target: &Table, findings: &mut Vec<Finding>) -> Resolved {
    if job.operation == Operation::Sql {
        return Resolved { key: Vec::new(), assignments: Vec::new() };
    }
    let key_names: Vec<Ident> = job.target.key.iter().filter_map(|name| Ident::parse(name).ok()).collect();
    let mut assignments = match &job.columns {
        Some(Columns::Map(map)) => map.iter().filter_map(|(name, value)| assignment(name, value)).collect(),
        Some(Columns::Same(names)) => {
            names.iter().filter_map(|name| same(Ident::parse(name).ok()?, stage, findings)).collect()
        }
        None => common(stage, target, &key_names),
    };
    for assignment in &mut assignments {
        settle(assignment, target, &key_names, findings);
    }
    let key = key_names.iter().filter_map(|name| key_column(name, target, &assignments, findings)).collect();
    if !target.has_unique_key(&key_names) {
        let columns = key_names.iter().map(Ident::as_str).collect::<Vec<_>>().join(", ");
        findings.push(Finding::error(
            "target.key",
            format!("({columns}) has no unique index on {} that tells every row at once", target.name),
            format!(
                "CREATE UNIQUE INDEX CONCURRENTLY ON {} ({}) - not partial, not deferrable, without NULLS NOT DISTINCT - or name the columns of one that is there",
                target.name,
                crate::ident::list(&key_names)
            ),
        ));
    }
    branches_for(job, &mut assignments, &key_names, findings);
    Resolved { key, assignments }
}

fn assignment(name: &str, value: &Value) -> Option<Assignment> {
    let column = Ident::parse(name).ok()?;
    Some(match value {
        Value::Both(text) => {
            Assignment { column, insert: Some(text.clone()), update: Some(text.clone()), compare: None }
        }
        Value::Each(each) => {
            Assignment { column, insert: each.insert.clone(), update: each.update.clone(), compare: None }
        }
    })
}

fn plain(column: Ident) -> Assignment {
    let value = format!("stage.{column}");
    Assignment { column, insert: Some(value.clone()), update: Some(value), compare: None }
}

fn same(column: Ident, stage: &Table, findings: &mut Vec<Finding>) -> Option<Assignment> {
    if stage.column(&column).is_none() {
        findings.push(Finding::error(
            format!("columns.{}", column.as_str()),
            format!("is not a column of {}", stage.name),
            "write columns as an object, {\"target column\": \"expression over stage\"}, where the names differ",
        ));
        return None;
    }
    Some(plain(column))
}

/// All columns that both tables have; what the server computes by itself is left to it, unless it is the key.
fn common(stage: &Table, target: &Table, key: &[Ident]) -> Vec<Assignment> {
    let wanted = |column: &&Column| {
        stage.column(&column.name).is_some()
            && !column.generated
            && (!column.identity_always || key.contains(&column.name))
    };
    target.columns.iter().filter(wanted).map(|column| plain(column.name.clone())).collect()
}

/// Looks at one target column: is it there, may it be written.
fn settle(assignment: &mut Assignment, target: &Table, key: &[Ident], findings: &mut Vec<Finding>) {
    let at = format!("columns.{}", assignment.column.as_str());
    match target.column(&assignment.column) {
        None => findings.push(Finding::error(
            at,
            format!("is not a column of {}", target.name),
            "an unquoted name is folded to lower case; write \"\\\"Name\\\"\" for a mixed-case one",
        )),
        Some(column) if column.generated => {
            findings.push(Finding::error(at, "is computed by the server (GENERATED ALWAYS AS)", "leave it out"));
        }
        Some(column) => {
            // A key is never changed by an update that found its row by it; an identity column can't be.
            if key.contains(&column.name) || column.identity_always {
                assignment.update = None;
            }
            assignment.compare = Some(Compare::of(column));
        }
    }
}

fn key_column(
    name: &Ident,
    target: &Table,
    assignments: &[Assignment],
    findings: &mut Vec<Finding>,
) -> Option<KeyColumn> {
    let Some(column) = target.column(name) else {
        let fault = format!("{} is not a column of {}", name.as_str(), target.name);
        findings.push(Finding::error("target.key", fault, "name columns of a unique index of the target"));
        return None;
    };
    let value = assignments.iter().find(|a| a.column == *name).and_then(|a| a.insert.clone());
    if value.is_none() {
        findings.push(Finding::error(
            format!("columns.{}", name.as_str()),
            "has no value, but it is part of the target's key",
            "give the key's column its expression over stage",
        ));
    }
    Some(KeyColumn { column: name.clone(), expression: value?, collation: column.collation.clone() })
}

/// Keeps the branches that the operation has, and finds operations that would do nothing.
fn branches_for(job: &Job, assignments: &mut Vec<Assignment>, key: &[Ident], findings: &mut Vec<Finding>) {
    let operation = job.operation;
    for assignment in assignments.iter_mut() {
        if !operation.updates() {
            assignment.update = None;
        }
        if !operation.inserts() {
            assignment.insert = None;
        }
    }
    // A guard is written even where no column names it.
    let guarded = job.changes.as_ref().is_some_and(|changes| changes.guard.is_some());
    if operation.updates() && assignments.iter().all(|a| a.update.is_none()) && !guarded {
        let remedy = match operation {
            Operation::Changes => "give columns to update beside the key, or a guard",
            _ => "give columns to update beside the key, or use \"operation\": \"insert\"",
        };
        findings.push(Finding::error("columns", "has nothing to update", remedy));
    }
    if operation == Operation::Delete && job.columns.is_some() {
        for assignment in assignments.iter().filter(|a| !key.contains(&a.column)) {
            let at = format!("columns.{}", assignment.column.as_str());
            findings.push(Finding::error(at, "is not of the target's key", "take it out: a delete needs the key only"));
        }
    }
    assignments.retain(|a| a.insert.is_some() || a.update.is_some() || key.contains(&a.column));
}

/// A key whose target type can change it when it is stored: then the row is not found again by the key that was staged.
pub fn narrowing(key: &KeyColumn, stage: &Table, target: &Table) -> Option<Finding> {
    let (from, to) = (stage_column(&key.expression, stage)?, target.column(&key.column)?);
    let narrows = from.base_type == to.base_type && to.type_name != to.base_type && !keeps_order(from, to);
    narrows.then(|| {
        Finding::warning(
            format!("columns.{}", key.column.as_str()),
            format!(
                "is {}, the target's key is {}: a row whose key changes when it is stored fails",
                from.type_name, to.type_name
            ),
            "make the stage's type no wider than the target's, or CAST the key in columns",
        )
    })
}

/// Whether the target's index can be used to find keys of this type.
pub fn index_can_find(staged: &str, target: &str) -> bool {
    const FAMILIES: [&[&str]; 3] = [
        &["smallint", "integer", "bigint"],
        &["text", "character varying"],
        &["date", "timestamp without time zone", "timestamp with time zone"],
    ];
    // A timestamp that is stored as a date is another value than the one that was looked for.
    let shortened = target == "date" && staged != "date";
    staged == target || !shortened && FAMILIES.iter().any(|family| family.contains(&staged) && family.contains(&target))
}

#[cfg(test)]
mod tests {
    use super::{cut::plain_column, *};
    use crate::{
        ident::TableName,
        table::{Index, Kind},
    };

    fn column(name: &str, type_name: &str) -> Column {
        Column {
            name: Ident::exact(name),
            type_name: type_name.into(),
            base_type: type_name.split('(').next().unwrap().into(),
            bare_type: type_name.split('(').next().unwrap().into(),
            exact_equality: true,
            collation: None,
            not_null: true,
            generated: false,
            identity_always: false,
        }
    }

    fn table(name: &str, columns: Vec<Column>, unique: &[&str]) -> Table {
        let index = Index {
            columns: unique.iter().map(|name| Some(Ident::exact(*name))).collect(),
            unique: true,
            immediate: true,
            partial: false,
            ordered: true,
            nulls_not_distinct: false,
        };
        Table {
            oid: 1,
            name: TableName::parse(name).unwrap(),
            kind: Kind::Table,
            columns,
            indexes: vec![index],
            leaves: vec![],
            estimated_rows: 0.0,
        }
    }

    fn job(rest: &str) -> Job {
        Job::parse(&format!(
            r#"{{"name": "j", "stage": {{"table": "s"}}, "target": {{"table": "t", "key": ["id"]}}, "operation": "upsert"{rest}}}"#
        ))
        .unwrap()
    }

    fn key(expression: &str) -> Vec<KeyColumn> {
        vec![KeyColumn { column: Ident::exact("id"), expression: expression.into(), collation: None }]
    }

    #[test]
    fn key_ranges_where_the_stage_has_an_index_on_the_key_else_block_ranges() {
        let target = table("t", vec![column("id", "bigint")], &["id"]);
        for (stage, expression, by, expected) in [
            (table("s", vec![column("id", "bigint")], &["id"]), "stage.id", "auto", Some(true)),
            (table("s", vec![column("id", "integer")], &["id"]), "ID", "auto", Some(true)),
            (table("s", vec![column("id", "bigint")], &["other"]), "stage.id", "auto", Some(false)),
            (table("s", vec![column("id", "bigint")], &["id"]), "abs(stage.id)", "auto", Some(false)),
            (table("s", vec![column("id", "numeric")], &["id"]), "stage.id", "auto", Some(false)),
            (table("s", vec![column("id", "bigint")], &["id"]), "stage.id", "ctid", Some(false)),
            (table("s", vec![column("id", "numeric")], &["id"]), "stage.id", "key", None),
        ] {
            let mut findings = Vec::new();
            let job = job(&format!(r#", "chunks": {{"by": "{by}"}}"#));
            let cut = cut(&job, &stage, &target, &key(expression), &mut findings);
            let by_key = (!Finding::any_error(&findings)).then_some(!cut.columns.is_empty());
            assert_eq!(by_key, expected, "{expression} {by} {findings:?}");
        }
    }

    #[test]
    fn a_narrowing_key_or_another_collation_is_not_cut_along() {
        let text = |collation: &str| Column { collation: Some(collation.into()), ..column("id", "text") };
        assert!(!keeps_order(&column("id", "character varying"), &column("id", "character varying(3)")));
        assert!(keeps_order(&column("id", "character varying(3)"), &column("id", "text")));
        let varchar = |n| column("id", &format!("character varying({n})"));
        assert!(keeps_order(&varchar(3), &varchar(5)) && !keeps_order(&varchar(5), &varchar(3)));
        let stage = table("s", vec![text("a")], &["id"]);
        assert_eq!(plain_column(&key("stage.id")[0], &stage, &table("t", vec![text("b")], &["id"])), None);
    }

    #[test]
    fn what_the_server_computes_is_left_to_it() {
        let generated = Column { generated: true, ..column("g", "bigint") };
        let identity = Column { identity_always: true, ..column("i", "bigint") };
        let columns_of = vec![column("id", "bigint"), column("a", "text"), generated, identity];
        let (stage, target) = (table("s", columns_of.clone(), &["id"]), table("t", columns_of, &["id"]));
        let mut findings = Vec::new();
        let resolved = columns(&job(""), &stage, &target, &mut findings);
        let names: Vec<&str> = resolved.assignments.iter().map(|a| a.column.as_str()).collect();
        assert_eq!(names, ["id", "a"]);
        assert_eq!(findings, []);
        let named = columns(&job(r#", "columns": ["id", "a", "g"]"#), &stage, &target, &mut findings);
        assert_eq!((named.assignments.len(), findings[0].at.as_str()), (3, "columns.g"));
    }

    #[test]
    fn a_numeric_key_cannot_be_found_by_a_bigint_index() {
        assert!(index_can_find("integer", "bigint") && index_can_find("uuid", "uuid"));
        assert!(!index_can_find("numeric", "bigint") && !index_can_find("text", "bigint"));
        assert!(!index_can_find("timestamp without time zone", "date"));
    }
}
