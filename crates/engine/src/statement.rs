//! The SQL that applies one chunk: one statement that reads the chunk's rows once, changes the target and counts what it did.

use crate::{
    chunk::Range,
    ident::{self, Ident},
    job::{Existing, Operation},
    mapping::Mapping,
};

/// Names that hide no table which an expression's subquery reads.
const S: &str = "\"stagemill staged\"";
const U: &str = "\"stagemill updated\"";
const I: &str = "\"stagemill inserted\"";
const D: &str = "\"stagemill duplicates\"";
const ROWS: &str = "\"stagemill rows\"";

/// The statement for a chunk. It returns one row: `staged`, `inserted`, `updated` and `duplicates` (keys staged more than once), each a bigint.
///
/// The upsert is an UPDATE and an INSERT over one materialized list rather than ON CONFLICT DO UPDATE, which sees `excluded` only, raises NOT NULL
/// violations for rows that exist, burns a sequence value for each of them and locks rows that its WHERE skips (PostgreSQL 15).
pub fn apply(mapping: &Mapping, range: &Range) -> String {
    let mut with = vec![staged(mapping, range)];
    let [mut inserted, mut updated, mut duplicates] = ["0::bigint"; 3].map(str::to_owned);
    if matches!(mapping.operation, Operation::Update | Operation::Upsert) {
        with.push(format!("{U} AS (\n{}\n)", update(mapping)));
        updated = count(U);
    }
    if matches!(mapping.operation, Operation::Insert | Operation::Upsert) {
        with.push(format!("{I} AS (\n{}\n)", insert(mapping)));
        inserted = count(I);
    }
    if !mapping.keys_are_unique {
        with.push(format!("{D} AS (\n{}\n)", duplicate_keys(mapping)));
        duplicates = count(D);
    }
    format!(
        "WITH {}\nSELECT {} AS staged,\n       {inserted} AS inserted,\n       {updated} AS updated,\n       {duplicates} AS duplicates",
        with.join(",\n"),
        count(S),
    )
}

/// The statement that finds how many target keys are staged more than once, in the whole stage.
pub fn count_duplicates(mapping: &Mapping) -> String {
    let range = Range::Keys { low: None, high: None };
    let whole = Mapping { cut: Vec::new(), ..mapping.clone() };
    format!(
        "WITH {}\nSELECT pg_catalog.count(*) AS duplicates FROM (\n{}\n) AS d",
        staged_as(&whole, &range, ""),
        duplicate_keys(mapping)
    )
}

/// The condition for the rows of a chunk, the job's own condition included.
pub fn chunk_condition(mapping: &Mapping, range: &Range) -> String {
    let predicate = range.predicate(&mapping.cut);
    match &mapping.filter {
        // A line of its own: an expression may end in a comment.
        Some(filter) => format!("{predicate} AND (\n{filter}\n)"),
        None => predicate,
    }
}

fn staged(mapping: &Mapping, range: &Range) -> String {
    let columns = mapping.stage_columns.iter().enumerate();
    let columns: String = columns.map(|(n, column)| format!("stage.{column} AS {}, ", column_alias(n))).collect();
    staged_as(mapping, range, &columns)
}

fn staged_as(mapping: &Mapping, range: &Range, columns: &str) -> String {
    let keys = mapping.key.iter().enumerate().map(|(n, key)| {
        // In the target's collation: two spellings that it takes for one key are duplicates.
        let collate = key.collation.as_ref().map(|name| format!(" COLLATE {name}")).unwrap_or_default();
        format!("(\n{}\n){collate} AS {}", key.expression, key_alias(n))
    });
    format!(
        "{S} AS MATERIALIZED (\nSELECT {columns}{}\nFROM {}\nWHERE {}\n)",
        keys.collect::<Vec<_>>().join(", "),
        range.from_clause(&mapping.stage),
        chunk_condition(mapping, range),
    )
}

fn update(mapping: &Mapping) -> String {
    let set = mapping.assignments.iter().filter_map(|a| Some(format!("{} = (\n{}\n)", a.column, a.update.as_ref()?)));
    format!(
        "UPDATE {} AS target SET {}\nFROM {}\nWHERE {}\nRETURNING 1",
        mapping.target,
        set.collect::<Vec<_>>().join(", "),
        // In the order of the key, so that chunks lock target rows in one order and touch neighbouring pages together.
        sorted(&format!("SELECT * FROM {S}"), mapping),
        same_key(mapping, "target", ROWS),
    )
}

fn insert(mapping: &Mapping) -> String {
    let inserted = mapping.assignments.iter().filter_map(|a| Some((&a.column, a.insert.as_ref()?)));
    let (columns, values): (Vec<&Ident>, Vec<String>) =
        inserted.map(|(c, value)| (c, format!("(\n{value}\n)"))).unzip();
    let strict = mapping.operation == Operation::Insert && mapping.existing == Existing::Error;
    let rows = if strict {
        format!("SELECT * FROM {S}")
    } else {
        format!(
            "SELECT * FROM {S} WHERE NOT EXISTS (SELECT 1 FROM {} AS t WHERE {})",
            mapping.target,
            same_key(mapping, "t", S)
        )
    };
    let conflict = if strict {
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
        sorted(&rows, mapping),
    )
}

fn duplicate_keys(mapping: &Mapping) -> String {
    let aliases = key_aliases(mapping);
    let not_null = aliases.iter().map(|alias| format!("{alias} IS NOT NULL")).collect::<Vec<_>>().join(" AND ");
    format!("SELECT 1 FROM {S} WHERE {not_null} GROUP BY {} HAVING pg_catalog.count(*) > 1", aliases.join(", "))
}

fn sorted(rows: &str, mapping: &Mapping) -> String {
    let columns = mapping.stage_columns.iter().enumerate();
    let columns =
        columns.map(|(n, column)| format!("{ROWS}.{} AS {column}", column_alias(n))).collect::<Vec<_>>().join(", ");
    let order = key_aliases(mapping).join(", ");
    // `stage` is the staged row and nothing more: an expression may take it whole, as `to_jsonb(stage)` does.
    format!("({rows} ORDER BY {order}) AS {ROWS} CROSS JOIN LATERAL (SELECT {columns}) AS stage")
}

fn same_key(mapping: &Mapping, target: &str, staged: &str) -> String {
    let pairs = mapping.key.iter().enumerate();
    pairs
        .map(|(n, key)| format!("{target}.{} = {staged}.{}", key.column, key_alias(n)))
        .collect::<Vec<_>>()
        .join(" AND ")
}

fn key_aliases(mapping: &Mapping) -> Vec<String> {
    (0..mapping.key.len()).map(key_alias).collect()
}

/// A name for the materialized column, so that only `stage` has the stage's own.
fn column_alias(n: usize) -> String {
    Ident::exact(format!("stagemill column {}", n + 1)).to_string()
}

/// A name that no stage column has by accident.
fn key_alias(n: usize) -> String {
    Ident::exact(format!("stagemill key {}", n + 1)).to_string()
}

fn count(name: &str) -> String {
    format!("(SELECT pg_catalog.count(*) FROM {name})")
}
