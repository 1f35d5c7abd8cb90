//! The staged rows of a chunk: the list that the rest of the statement works on.

use super::{NTH, S, Source, T, changes, column_alias, key_alias, key_aliases, used};
use crate::{
    chunk::Range,
    ident::{self, Ident},
    job::StageRows,
    mapping::Mapping,
    table::Leaf,
};

/// The chunk's frozen list: its rows, numbered, while the bad ones are looked for. It goes away with the transaction.
pub const FROZEN: &str = "pg_temp.\"stagemill frozen\"";

/// The number of a row in the frozen list; NULL for one that a newer change supersedes.
const NUMBER: &str = "\"stagemill number\"";

/// The condition for the rows of a chunk: the job's own condition, and the run's window, included.
pub fn chunk_condition(mapping: &Mapping, range: &Range) -> String {
    let mut conditions = vec![range.predicate(&mapping.cut)];
    if let Range::Rejects { run, chunk } = range {
        conditions = vec![is_of_rejects(mapping, &format!("run_id = {run} AND retried_in = {chunk}"))];
        conditions.extend(is_usable(mapping));
    }
    conditions.extend(mapping.row_conditions());
    conditions.join(" AND ")
}

/// Rows that are no change are set aside without a key: they are not found by the key of another.
fn is_usable(mapping: &Mapping) -> Option<String> {
    mapping.changes.as_ref().map(|rules| format!("NOT {}", changes::unusable(mapping, rules)))
}

/// The frozen list, to read from, each row beside `stage`: the staged row and nothing more, since an expression may take it whole.
pub fn frozen(mapping: &Mapping) -> String {
    let columns = mapping.stage_columns.iter().enumerate();
    let columns: Vec<String> = columns.map(|(n, column)| format!("f.{} AS {column}", column_alias(n))).collect();
    format!("{FROZEN} AS f CROSS JOIN LATERAL (SELECT {}) AS stage", columns.join(", "))
}

/// The frozen row as jsonb, each value as text.
pub fn row_of_texts(mapping: &Mapping) -> String {
    let names = mapping.stage_columns.iter().map(|column| ident::literal(column.as_str()));
    let values = mapping.stage_columns.iter().map(|column| format!("stage.{column}::pg_catalog.text"));
    format!(
        "pg_catalog.jsonb_object(ARRAY[{}]::pg_catalog.text[], ARRAY[{}]::pg_catalog.text[])",
        names.collect::<Vec<_>>().join(", "),
        values.collect::<Vec<_>>().join(", ")
    )
}

/// The staged rows whose target key is that of a row which was set aside, of those for which a condition holds.
pub(super) fn is_of_rejects(mapping: &Mapping, condition: &str) -> String {
    let values: Vec<String> = (1..=mapping.key.len()).map(|n| format!("target_key[{n}]")).collect();
    // No join of the planner's: the run may have its hash joins turned off, and the stage is large.
    format!(
        "COALESCE(({}) IN (SELECT {} FROM stagemill.reject WHERE target_key IS NOT NULL AND {condition}), false)",
        key_texts(mapping).join(", "),
        values.join(", ")
    )
}

/// The target keys, as they are kept, of the staged rows that were set aside, of those for which a condition holds.
pub fn keys_of_rejects(mapping: &Mapping, condition: &str) -> String {
    let mut conditions = vec![is_of_rejects(mapping, condition)];
    conditions.extend(is_usable(mapping));
    conditions.extend(mapping.row_conditions());
    format!(
        "SELECT DISTINCT ARRAY[{}] AS key FROM {} AS stage WHERE {}",
        key_texts(mapping).join(", "),
        mapping.stage,
        conditions.join(" AND ")
    )
}

/// The target key of a staged row as the server writes it, in the way in which keys of rows that were set aside are kept.
pub fn key_texts(mapping: &Mapping) -> Vec<String> {
    mapping.key.iter().map(|key| format!("(\n{}\n)::pg_catalog.text", key.expression)).collect()
}

/// The list of a chunk's rows, as WITH queries: the rows, and the same in the order of the key, so that chunks lock target rows in one order and touch
/// neighbouring pages together. Changes get that order when they are ranked.
pub(super) fn rows(mapping: &Mapping, source: Source<'_>) -> Vec<String> {
    let columns = used::columns(mapping).into_iter();
    let mut columns: Vec<String> =
        columns.map(|(n, column)| format!("stage.{column} AS {}", column_alias(n))).collect();
    columns.extend(keys(mapping));
    columns.extend(mapping.changes.iter().flat_map(|rules| changes::columns(mapping, rules)));
    let (taken, deleted) = (taken(mapping, source, &columns), are_deleted(mapping, source));
    if mapping.changes.is_some() {
        return vec![format!("{S} AS (\n{taken}\n)")];
    }
    let order = key_aliases(mapping).join(", ");
    let number = if mapping.inserts_what_was_not_updated() {
        format!(", pg_catalog.row_number() OVER (ORDER BY {order}) AS {NTH}")
    } else {
        String::new()
    };
    let sorted = |from: &str| format!("{S} AS MATERIALIZED (\nSELECT *{number} FROM {from} ORDER BY {order}\n)");
    if deleted {
        vec![format!("{T} AS (\n{taken}\n)"), sorted(T)]
    } else {
        vec![sorted(&format!("(\n{taken}\n) AS {T}"))]
    }
}

/// The list with nothing but the keys, in no order.
pub(super) fn only_keys(mapping: &Mapping, source: Source<'_>) -> String {
    let keys: Vec<String> = keys(mapping).collect();
    let keep = Mapping { stage_rows: StageRows::Keep, ..mapping.clone() };
    format!("{S} AS MATERIALIZED (\n{}\n)", taken(&keep, source, &keys))
}

fn keys(mapping: &Mapping) -> impl Iterator<Item = String> {
    mapping.key.iter().enumerate().map(|(n, key)| {
        // In the target's collation: two spellings that it takes for one key are duplicates.
        let collate = key.collation.as_ref().map(|name| format!(" COLLATE {name}")).unwrap_or_default();
        format!("(\n{}\n){collate} AS {}", key.expression, key_alias(n))
    })
}

/// Whether reading the rows removes them from the stage. One statement deletes and applies: a DELETE of its own would remove a row that had come
/// meanwhile.
fn are_deleted(mapping: &Mapping, source: Source<'_>) -> bool {
    matches!(source, Source::Chunk(_)) && mapping.stage_rows == StageRows::Delete
}

/// The query that reads the rows, as they come.
fn taken(mapping: &Mapping, source: Source<'_>, columns: &[String]) -> String {
    let columns = columns.join(", ");
    match source {
        Source::Chunk(range) => {
            let (from, condition) = (range.from_clause(&mapping.stage), chunk_condition(mapping, range));
            if are_deleted(mapping, source) {
                format!("DELETE FROM {from}\nWHERE {condition}\nRETURNING {columns}")
            } else {
                format!("SELECT {columns}\nFROM {from}\nWHERE {condition}")
            }
        }
        Source::AllFrozen => format!("SELECT {columns}\nFROM {}", frozen(mapping)),
        Source::Frozen(first, last) => {
            format!("SELECT {columns}\nFROM {}\nWHERE {NUMBER} BETWEEN {first} AND {last}", frozen(mapping))
        }
    }
}

/// The statements that freeze a chunk's rows, for the search for its bad ones. Deferred constraints are checked at once, since at COMMIT no
/// savepoint would catch them.
pub fn freeze(mapping: &Mapping, range: &Range) -> String {
    let place = if mapping.stage_has_heap {
        ", stage.tableoid AS \"stagemill heap\", stage.ctid AS \"stagemill tid\", stage.xmin AS \"stagemill xmin\""
    } else {
        ""
    };
    let number = match &mapping.changes {
        Some(rules) => changes::number(mapping, rules),
        None => "pg_catalog.row_number() OVER ()".to_owned(),
    };
    // Under names of ours: an expression may name a column without its table.
    let columns = mapping.stage_columns.iter().enumerate();
    let columns: Vec<String> = columns.map(|(n, column)| format!("stage.{column} AS {}", column_alias(n))).collect();
    format!(
        "SET CONSTRAINTS ALL IMMEDIATE;\nCREATE TEMPORARY TABLE {} ON COMMIT DROP AS\nSELECT {}{place}, {number} AS {NUMBER}\nFROM {}\nWHERE {};\nCREATE INDEX ON {FROZEN} ({NUMBER});\nANALYZE {FROZEN}",
        Ident::exact("stagemill frozen"),
        columns.join(", "),
        range.from_clause(&mapping.stage),
        chunk_condition(mapping, range),
    )
}

/// The statement that deletes frozen rows from their heap, without those whose numbers are its parameter: the very versions that were frozen, so
/// that nobody's change is lost.
pub fn delete_frozen(leaf: &Leaf) -> String {
    format!(
        "DELETE FROM ONLY {0} AS stage USING {FROZEN} AS f
         WHERE f.\"stagemill heap\" = {1} AND stage.ctid = f.\"stagemill tid\" AND stage.xmin = f.\"stagemill xmin\"
           AND stage.ctid = ANY (ARRAY(SELECT \"stagemill tid\" FROM {FROZEN} WHERE \"stagemill heap\" = {1}))
           AND (f.{NUMBER} IS NULL OR f.{NUMBER} <> ALL ($1)) RETURNING 1",
        leaf.name, leaf.oid
    )
}
