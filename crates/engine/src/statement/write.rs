//! What is done to the target, over a list of staged rows.

use super::{A, NTH, ROWS, S, Source, U, beside_stage, changes, key_aliases, same_key, staged};
use crate::{
    chunk::Range,
    ident::{self, Ident},
    mapping::{Assignment, Compare, Mapping},
};

/// The rows of a list whose key the target does not have; all of them where an existing key is an error.
pub(super) fn missing(mapping: &Mapping, rows: &str, condition: &str) -> String {
    if mapping.is_strict_insert() {
        return format!("SELECT * FROM {rows} WHERE {condition}");
    }
    format!(
        "SELECT * FROM {rows} WHERE {condition} AND NOT EXISTS (SELECT 1 FROM {} AS t WHERE {})",
        mapping.target,
        same_key(mapping, "t", rows)
    )
}

/// The rows of a list whose key the target has, and which an update does not change. Counted and not what is left over: a row that was there and
/// is deleted meanwhile is no such row.
pub(super) fn kept(mapping: &Mapping, rows: &str, condition: &str) -> String {
    let changes = mapping.guard().map(changes::is_newer).into_iter().chain(differs(mapping));
    let changes: Vec<String> = changes.collect();
    format!(
        "SELECT 1 FROM {}\nJOIN {} AS target ON {}\nWHERE {}",
        beside_stage(&format!("SELECT * FROM {rows} WHERE {condition}"), mapping),
        mapping.target,
        same_key(mapping, "target", ROWS),
        if changes.is_empty() { "false".to_owned() } else { format!("NOT ({})", changes.join(" AND ")) },
    )
}

/// The numbers of the rows that were updated, as a WITH query.
pub(super) fn updated_rows() -> String {
    format!("{A} AS MATERIALIZED (\nSELECT pg_catalog.array_agg({NTH} ORDER BY {NTH}) AS {A} FROM {U}\n)")
}

/// The rows of a list that the update did not find. By a search in an array, which costs a fraction of looking for the key in the target again; and
/// not by a join, for which the planner could be misled by its estimates into comparing each row with each (PostgreSQL 15).
pub(super) fn not_updated(rows: &str, condition: &str) -> String {
    let numbers = format!("(SELECT {A} FROM {A})");
    format!(
        "SELECT * FROM {rows} WHERE {condition} AND {numbers}[pg_catalog.width_bucket({NTH}, {numbers})] IS DISTINCT FROM {NTH}"
    )
}

pub(super) fn update(mapping: &Mapping, rows: &str, condition: &str) -> String {
    let set = mapping.assignments.iter().filter_map(|a| Some(format!("{} = (\n{}\n)", a.column, a.update.as_ref()?)));
    let mut conditions = vec![same_key(mapping, "target", ROWS)];
    conditions.extend(mapping.guard().map(changes::is_newer));
    conditions.extend(differs(mapping));
    format!(
        "UPDATE {} AS target SET {}\nFROM {}\nWHERE {}\nRETURNING {}",
        mapping.target,
        set.collect::<Vec<_>>().join(", "),
        beside_stage(&format!("SELECT * FROM {rows} WHERE {condition}"), mapping),
        conditions.join(" AND "),
        if mapping.inserts_what_was_not_updated() { format!("{ROWS}.{NTH}") } else { "1".to_owned() },
    )
}

/// The statement that locks the target rows of a chunk in the order of their keys, whatever the plan: the sort is below the locking. An UPDATE
/// keeps the order of its list in nested loops only (PostgreSQL 15).
pub fn lock(mapping: &Mapping, range: &Range) -> String {
    format!(
        "WITH {}\nSELECT pg_catalog.count(*) FROM (SELECT 1 FROM {} AS target JOIN {S} AS {ROWS} ON {} ORDER BY {} FOR UPDATE OF target) AS locked",
        staged::only_keys(mapping, Source::Chunk(range)),
        mapping.target,
        same_key(mapping, "target", ROWS),
        key_aliases(mapping).join(", "),
    )
}

/// The condition that an update would change something; `None` where nobody asks.
fn differs(mapping: &Mapping) -> Option<String> {
    let compared = mapping.assignments.iter().filter(|_| mapping.skip_unchanged).filter_map(differs_in);
    let differences: Vec<String> = compared.collect();
    (!differences.is_empty()).then(|| format!("({})", differences.join("\n OR ")))
}

fn differs_in(assignment: &Assignment) -> Option<String> {
    let (value, Compare { type_name, as_text }) = (assignment.update.as_ref()?, assignment.compare.as_ref()?);
    let (old, new) = (format!("target.{}", assignment.column), format!("CAST((\n{value}\n) AS {type_name})"));
    Some(if *as_text {
        format!("({old})::pg_catalog.text COLLATE \"C\" IS DISTINCT FROM ({new})::pg_catalog.text COLLATE \"C\"")
    } else {
        format!("{old} IS DISTINCT FROM {new}")
    })
}

pub(super) fn insert(mapping: &Mapping, rows: &str) -> String {
    let inserted = mapping.assignments.iter().filter_map(|a| Some((&a.column, a.insert.as_ref()?)));
    let (columns, values): (Vec<&Ident>, Vec<String>) =
        inserted.map(|(c, value)| (c, format!("(\n{value}\n)"))).unzip();
    let conflict = if mapping.is_strict_insert() {
        String::new()
    } else {
        // Named, so that a conflict on another unique index stays an error.
        format!("\nON CONFLICT ({}) DO NOTHING", ident::list(mapping.key.iter().map(|key| &key.column)))
    };
    format!(
        "INSERT INTO {} ({}){}\nSELECT {}\nFROM {}{conflict}\nRETURNING 1",
        mapping.target,
        ident::list(columns),
        if mapping.overrides_identity { " OVERRIDING SYSTEM VALUE" } else { "" },
        values.join(", "),
        beside_stage(rows, mapping),
    )
}

pub(super) fn delete(mapping: &Mapping, rows: &str, condition: &str) -> String {
    let guard = mapping.guard().map(|guard| format!(" AND {}", changes::is_newer(guard))).unwrap_or_default();
    format!(
        "DELETE FROM {} AS target\nUSING (SELECT * FROM {rows} WHERE {condition}) AS {ROWS}\nWHERE {}{guard}\nRETURNING 1",
        mapping.target,
        same_key(mapping, "target", ROWS),
    )
}
