//! The staged rows of a chunk: the list that the rest of the statement works on.

use super::{S, Source, changes, column_alias, key_alias};
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

/// The list of a chunk's rows, as a WITH query.
pub(super) fn rows(mapping: &Mapping, source: Source<'_>) -> String {
    let columns = mapping.stage_columns.iter().enumerate();
    let mut columns: Vec<String> =
        columns.map(|(n, column)| format!("stage.{column} AS {}", column_alias(n))).collect();
    columns.extend(keys(mapping));
    columns.extend(mapping.changes.iter().flat_map(|rules| changes::columns(mapping, rules)));
    list(mapping, source, &columns)
}

/// The list with nothing but the keys.
pub(super) fn only_keys(mapping: &Mapping, source: Source<'_>) -> String {
    let keys: Vec<String> = keys(mapping).collect();
    list(&Mapping { stage_rows: StageRows::Keep, ..mapping.clone() }, source, &keys)
}

fn keys(mapping: &Mapping) -> impl Iterator<Item = String> {
    mapping.key.iter().enumerate().map(|(n, key)| {
        // In the target's collation: two spellings that it takes for one key are duplicates.
        let collate = key.collation.as_ref().map(|name| format!(" COLLATE {name}")).unwrap_or_default();
        format!("(\n{}\n){collate} AS {}", key.expression, key_alias(n))
    })
}

fn list(mapping: &Mapping, source: Source<'_>, columns: &[String]) -> String {
    let columns = columns.join(", ");
    match source {
        // One statement that deletes and applies: a DELETE of its own would remove a row that had come meanwhile.
        Source::Chunk(range) if mapping.stage_rows == StageRows::Delete => format!(
            "{S} AS (\nDELETE FROM {}\nWHERE {}\nRETURNING {columns}\n)",
            range.from_clause(&mapping.stage),
            chunk_condition(mapping, range),
        ),
        Source::Chunk(range) => format!(
            "{S} AS MATERIALIZED (\nSELECT {columns}\nFROM {}\nWHERE {}\n)",
            range.from_clause(&mapping.stage),
            chunk_condition(mapping, range),
        ),
        Source::AllFrozen => format!("{S} AS MATERIALIZED (\nSELECT {columns}\nFROM {}\n)", frozen(mapping)),
        Source::Frozen(first, last) => format!(
            "{S} AS MATERIALIZED (\nSELECT {columns}\nFROM {}\nWHERE {NUMBER} BETWEEN {first} AND {last}\n)",
            frozen(mapping)
        ),
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
