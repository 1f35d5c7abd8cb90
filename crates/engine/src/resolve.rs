//! From the job's words to the catalog's names: pure decisions over two tables.

use crate::{
    chunk::CutColumn,
    finding::Finding,
    ident::Ident,
    job::{ChunkBy, Columns, Job, Operation, Value},
    mapping::{Assignment, KeyColumn},
    table::{Column, Kind, Table},
};

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
    branches_for(job.operation, &mut assignments, &key_names, findings);
    Resolved { key, assignments }
}

fn assignment(name: &str, value: &Value) -> Option<Assignment> {
    let column = Ident::parse(name).ok()?;
    Some(match value {
        Value::Both(text) => Assignment { column, insert: Some(text.clone()), update: Some(text.clone()) },
        Value::Each(each) => Assignment { column, insert: each.insert.clone(), update: each.update.clone() },
    })
}

fn plain(column: Ident) -> Assignment {
    let value = format!("stage.{column}");
    Assignment { column, insert: Some(value.clone()), update: Some(value) }
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
fn branches_for(operation: Operation, assignments: &mut Vec<Assignment>, key: &[Ident], findings: &mut Vec<Finding>) {
    for assignment in assignments.iter_mut() {
        match operation {
            Operation::Insert => assignment.update = None,
            Operation::Update => assignment.insert = None,
            Operation::Upsert => {}
        }
    }
    if operation != Operation::Insert && assignments.iter().all(|a| a.update.is_none()) {
        let remedy = "give columns to update beside the key, or use \"operation\": \"insert\"";
        findings.push(Finding::error("columns", "has nothing to update", remedy));
    }
    assignments.retain(|a| a.insert.is_some() || a.update.is_some() || key.contains(&a.column));
}

/// How the stage will be cut.
#[derive(Debug, PartialEq, Eq)]
pub struct Cut {
    /// The columns for key ranges; empty for block ranges.
    pub columns: Vec<CutColumn>,
    /// Whether an index shows that no two staged rows have one target key.
    pub keys_are_unique: bool,
}

/// Decides along what the stage is cut.
pub fn cut(job: &Job, stage: &Table, target: &Table, key: &[KeyColumn], findings: &mut Vec<Finding>) -> Cut {
    let plain: Option<Vec<Ident>> = key.iter().map(|key| plain_column(key, stage, target)).collect();
    let keys_are_unique = plain.as_ref().is_some_and(|columns| stage.proves_unique(columns));
    let indexed = plain.as_ref().and_then(|columns| stage.indexed_order(columns));
    let heap = stage.kind != Kind::NoHeap;
    let by_key = match job.chunks.by {
        ChunkBy::Ctid if heap => None,
        ChunkBy::Ctid => {
            findings.push(Finding::error(
                "chunks.by",
                format!("{} has no heap of its own to cut into block ranges", stage.name),
                "use \"by\": \"key\"",
            ));
            None
        }
        ChunkBy::Auto if heap => indexed,
        ChunkBy::Auto | ChunkBy::Key => {
            if plain.is_none() {
                findings.push(not_plain(heap));
            } else if indexed.is_none() && heap {
                findings.push(Finding::warning(
                    "chunks.by",
                    format!("{} has no index on the key: each chunk reads it whole", stage.name),
                    "create one, or use \"by\": \"ctid\"",
                ));
            }
            indexed.or(plain)
        }
    };
    let columns = by_key.unwrap_or_default().into_iter().filter_map(|name| cut_column(&name, stage)).collect();
    Cut { columns, keys_are_unique }
}

fn not_plain(heap: bool) -> Finding {
    let instead = if heap { ", or use \"by\": \"ctid\"" } else { "" };
    Finding::error(
        "chunks.by",
        "key ranges need each key column to be a plain stage column of the target's type and collation",
        format!("two spellings of one key could lie in two chunks otherwise: change the stage column's type{instead}"),
    )
}

fn cut_column(name: &Ident, stage: &Table) -> Option<CutColumn> {
    let column = stage.column(name)?;
    Some(CutColumn { column: name.clone(), type_name: column.type_name.clone(), nullable: !column.not_null })
}

/// The stage column that holds a key, where its order and equality are the target's.
fn plain_column(key: &KeyColumn, stage: &Table, target: &Table) -> Option<Ident> {
    let (from, to) = (stage_column(&key.expression, stage)?, target.column(&key.column)?);
    (keeps_order(from, to) && from.collation == to.collation).then(|| from.name.clone())
}

/// The stage column that an expression is, when it is nothing else.
fn stage_column<'a>(expression: &str, stage: &'a Table) -> Option<&'a Column> {
    let text = expression.trim();
    let text =
        text.get(..6).filter(|start| start.eq_ignore_ascii_case("stage.")).map_or(text, |start| &text[start.len()..]);
    stage.column(&Ident::parse(text).ok()?)
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

fn keeps_order(from: &Column, to: &Column) -> bool {
    let widened = matches!(
        (from.base_type.as_str(), to.type_name.as_str()),
        ("smallint", "integer" | "bigint") | ("integer", "bigint") | ("character varying", "text")
    );
    let longer = from.base_type == to.base_type && length(from) <= length(to) && length(from).is_some();
    // A modifier narrows: `varchar(3)` takes 'abc ' for 'abc'.
    from.type_name == to.type_name
        || (from.base_type == to.base_type && to.type_name == to.base_type)
        || widened
        || longer
}

/// The n of `character varying(n)`.
fn length(column: &Column) -> Option<u32> {
    column.type_name.strip_prefix("character varying(")?.strip_suffix(')')?.parse().ok()
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
    use super::*;
    use crate::{ident::TableName, table::Index};

    fn column(name: &str, type_name: &str) -> Column {
        Column {
            name: Ident::exact(name),
            type_name: type_name.into(),
            base_type: type_name.split('(').next().unwrap().into(),
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
