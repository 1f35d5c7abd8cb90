//! `changes`: which of a key's staged rows is the newest, and what the guard says of it.

use super::{Found, NTH, R, S, W, column_alias, key_aliases, same_key, used};
use crate::{
    ident,
    mapping::{ChangeRules, Mapping, Ordered},
};

pub(super) const IS_DELETE: &str = "\"stagemill delete\"";
const ORDER: &str = "\"stagemill order\"";
const UNUSABLE: &str = "\"stagemill unusable\"";
const PLACE: &str = "\"stagemill place\"";
const FIRST: &str = "\"stagemill first\"";
const RANK: &str = "\"stagemill rank\"";
pub(super) const TIES: &str = "\"stagemill ties\"";
const GUARDED: &str = "\"stagemill guarded\"";

/// Digits as DMS writes them, and what else reads as a number. Which other characters are spaces goes by the locale, and numeric takes none of them.
const NUMBER: &str = r"E'^[ \\t\\n\\v\\f\\r]*[+-]?[0-9]+([.][0-9]*)?[ \\t\\n\\v\\f\\r]*$'";

/// The columns that say of a staged row what it is and how new, beside its own.
pub(super) fn columns(mapping: &Mapping, rules: &ChangeRules) -> [String; 3] {
    let text = format!("stage.{}::pg_catalog.text", rules.indicator);
    [
        format!("{} AS {ORDER}", order(rules)),
        format!("COALESCE({text} = {}, false) AS {IS_DELETE}", ident::literal(&rules.delete)),
        format!("{} AS {UNUSABLE}", unusable(mapping, rules)),
    ]
}

/// Text that is no number has no place in the order; [`unusable`] names it.
fn order(rules: &ChangeRules) -> String {
    let value = rules.order.value("stage");
    if rules.order.is_text {
        format!("CASE WHEN stage.{} OPERATOR(pg_catalog.~) {NUMBER} THEN {value} END", rules.order.column)
    } else {
        value
    }
}

/// Whether a staged row is no change that could be applied: an unknown indicator, a NULL in its key, an order that is no number.
pub(super) fn unusable(mapping: &Mapping, rules: &ChangeRules) -> String {
    let known = rules.writes.iter().chain([&rules.delete]).map(|letter| ident::literal(letter));
    let known = known.collect::<Vec<_>>().join(", ");
    let mut faults = vec![format!("COALESCE(stage.{}::pg_catalog.text NOT IN ({known}), true)", rules.indicator)];
    faults.extend(mapping.key.iter().map(|key| format!("(\n{}\n) IS NULL", key.expression)));
    if rules.order.is_text {
        let column = &rules.order.column;
        faults.push(format!("COALESCE(stage.{column} OPERATOR(pg_catalog.!~) {NUMBER}, false)"));
    }
    format!("({})", faults.join(" OR "))
}

/// The number of a row in the frozen list: the newest of each key, and the unusable ones, are tried by themselves.
pub(super) fn number(mapping: &Mapping, rules: &ChangeRules) -> String {
    let (unusable, order) = (unusable(mapping, rules), order(rules));
    let keys: Vec<String> = mapping
        .key
        .iter()
        .map(|key| {
            let collate = key.collation.as_ref().map(|name| format!(" COLLATE {name}")).unwrap_or_default();
            format!("(\n{}\n){collate}", key.expression)
        })
        .collect();
    // A window over a window is no SQL: the place among the newer ones of a key stands for the number, made unique by the key's own.
    format!(
        "CASE WHEN {unusable} OR pg_catalog.row_number() OVER (PARTITION BY {unusable}, {keys} ORDER BY {order} DESC NULLS LAST) = 1 THEN pg_catalog.row_number() OVER () END",
        keys = keys.join(", ")
    )
}

/// The newest change of each key in the order of the key, as WITH queries, and the keys for which there is no telling.
///
/// The rows are sorted, and kept, once: those of a key from the newest to the oldest, behind them what is unusable. The first of a key is the one whose
/// key is not that of the row before.
pub(super) fn newest(mapping: &Mapping) -> Vec<String> {
    let aliases = key_aliases(mapping);
    let keys = aliases.join(", ");
    let first = aliases.iter().map(|key| format!("pg_catalog.lag({key}) OVER changes IS DISTINCT FROM {key}"));
    let columns = used::columns(mapping).into_iter().map(|(n, _)| column_alias(n));
    let row = columns.collect::<Vec<_>>().join(", ");
    let mut with = vec![
        format!(
            "{R} AS MATERIALIZED (\nSELECT *, {} AS {FIRST}, pg_catalog.row_number() OVER changes AS {NTH}, pg_catalog.rank() OVER changes AS {RANK}\nFROM {S} WINDOW changes AS (ORDER BY {keys}, {UNUSABLE}, {ORDER} DESC NULLS LAST)\n)",
            first.collect::<Vec<_>>().join(" OR "),
        ),
        format!("{W} AS NOT MATERIALIZED (\nSELECT * FROM {R} WHERE {FIRST} AND NOT {UNUSABLE}\n)"),
        // Two changes of one order are no matter when they would do the same, nor when a newer one makes both superseded. Mostly there are none, and
        // no row is made a text. No join of the planner's: the run may have its hash joins turned off.
        format!(
            "{TIES} AS (\nSELECT 1 FROM (SELECT *, pg_catalog.rank() OVER (PARTITION BY {keys} ORDER BY {ORDER} DESC NULLS LAST) AS {PLACE} FROM {R} WHERE NOT {UNUSABLE}) AS usable\nWHERE {PLACE} = 1 AND EXISTS (SELECT 1 FROM {R} WHERE {RANK} <> {NTH} AND NOT {UNUSABLE})\nGROUP BY {keys} HAVING pg_catalog.count(DISTINCT CASE WHEN {IS_DELETE} THEN '' ELSE ROW({row})::pg_catalog.text END) > 1\n)"
        ),
    ];
    if let Some(guard) = mapping.guard() {
        let held = guard.value("target");
        with.push(format!(
            "{GUARDED} AS (\nSELECT {IS_DELETE} AS is_delete, {held} IS NOT DISTINCT FROM {W}.{ORDER} AS same, NOT {} AS refused\nFROM {W} JOIN {} AS target ON {}\n)",
            is_newer_than(guard, &format!("{W}.{ORDER}")),
            mapping.target,
            same_key(mapping, "target", W),
        ));
    }
    with
}

/// Whether the change of the row beside `target` is newer than what the target has.
pub(super) fn is_newer(guard: &Ordered) -> String {
    is_newer_than(guard, &format!("{}.{ORDER}", super::ROWS))
}

/// A row without a guard takes any change; a change without an order is older than any.
fn is_newer_than(guard: &Ordered, order: &str) -> String {
    let held = guard.value("target");
    format!("COALESCE({held} IS NULL OR {held} < {order}, false)")
}

pub(super) fn count(mapping: &Mapping, found: &mut Found) {
    found.set("staged", super::count(R));
    found.set("superseded", format!("(SELECT pg_catalog.count(*) FROM {R} WHERE NOT {FIRST} AND NOT {UNUSABLE})"));
    found.set("unusable", format!("(SELECT pg_catalog.count(*) FROM {R} WHERE {UNUSABLE})"));
    found.set("ties", format!("(SELECT pg_catalog.count(*) FROM {TIES})"));
    found.set("deletes", format!("(SELECT pg_catalog.count(*) FROM {W} WHERE {IS_DELETE})"));
    if mapping.guard().is_some() {
        found.set(
            "stale",
            format!("(SELECT pg_catalog.count(*) FROM {GUARDED} WHERE refused AND NOT same AND NOT is_delete)"),
        );
        found.set("same", format!("(SELECT pg_catalog.count(*) FROM {GUARDED} WHERE refused AND same AND is_delete)"));
    }
}
