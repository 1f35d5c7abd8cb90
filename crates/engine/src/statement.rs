//! The SQL that applies one chunk: one statement that reads the chunk's rows once, changes the target and counts what it did.

mod changes;
mod count;
mod staged;
mod used;
mod user;
mod write;

pub use count::{
    contradictions, count_deletes, count_duplicates, count_new, count_outside, count_rows, count_untaken, count_window,
    snapshot,
};
pub use staged::{FROZEN, chunk_condition, delete_frozen, freeze, frozen, key_texts, keys_of_rejects, row_of_texts};
pub use user::statements;
pub use write::lock;

use crate::{chunk::Range, ident::Ident, job::Operation, mapping::Mapping};

/// Names that hide no table which an expression's subquery reads.
const T: &str = "\"stagemill taken\"";
const S: &str = "\"stagemill staged\"";
const R: &str = "\"stagemill ranked\"";
const W: &str = "\"stagemill newest\"";
const N: &str = "\"stagemill missing\"";
const K: &str = "\"stagemill kept\"";
const U: &str = "\"stagemill updated\"";
const I: &str = "\"stagemill inserted\"";
const X: &str = "\"stagemill deleted\"";
const D: &str = "\"stagemill duplicates\"";
const ROWS: &str = "\"stagemill rows\"";

/// The number of a row in the list, from 1, where an insert goes by what the update before it found.
const NTH: &str = "\"stagemill row\"";

/// The numbers of the rows that were updated, in ascending order, as an array; its only column is called like it.
const A: &str = "\"stagemill updated rows\"";

/// Where a statement reads the staged rows.
#[derive(Debug, Clone, Copy)]
pub enum Source<'a> {
    /// From the stage: the rows of a chunk.
    Chunk(&'a Range),
    /// From those rows of the chunk's frozen list whose numbers lie between these, both inclusive.
    Frozen(i64, i64),
    /// From the whole frozen list.
    AllFrozen,
}

/// The statements of a chunk: one of ours, or those of the user's own.
pub fn of_chunk(mapping: &Mapping, range: &Range) -> Vec<String> {
    match mapping.operation {
        Operation::Sql => statements(mapping, range),
        _ => vec![apply(mapping, Source::Chunk(range))],
    }
}

/// The columns of the one row that [`apply`] returns, each a bigint: what an operation does not have is 0.
pub const FOUND: [&str; 13] = [
    "staged",
    "superseded",
    "unusable",
    "ties",
    "duplicates",
    "deletes",
    "missing",
    "kept",
    "stale",
    "same",
    "inserted",
    "updated",
    "deleted",
];

/// The statement for the rows of a chunk.
///
/// The upsert is an UPDATE and an INSERT over one materialized list rather than ON CONFLICT DO UPDATE, which sees `excluded` only, raises NOT NULL
/// violations for rows that exist, burns a sequence value for each of them and locks rows that its WHERE skips (PostgreSQL 15).
pub fn apply(mapping: &Mapping, source: Source<'_>) -> String {
    let mut with = staged::rows(mapping, source);
    let mut found = Found::default();
    // The rows that are written, and the condition that tells them from deletes.
    let (rows, written) = match &mapping.changes {
        Some(_) => {
            with.extend(changes::newest(mapping));
            changes::count(mapping, &mut found);
            (W, format!("NOT {}", changes::IS_DELETE))
        }
        None => {
            found.set("staged", count(S));
            (S, "true".to_owned())
        }
    };
    if mapping.changes.is_none() && !mapping.keys_are_unique {
        with.push(format!("{D} AS (\n{}\n)", count::duplicate_keys(mapping)));
        found.set("duplicates", count(D));
    }
    if mapping.counts_missing() {
        with.push(format!("{N} AS MATERIALIZED (\n{}\n)", write::missing(mapping, rows, &written)));
        found.set("missing", count(N));
        with.push(format!("{K} AS (\n{}\n)", write::kept(mapping, rows, &written)));
        found.set("kept", count(K));
    }
    if mapping.operation.deletes() {
        let deletes = if mapping.changes.is_some() { changes::IS_DELETE } else { "true" };
        with.push(format!("{X} AS (\n{}\n)", write::delete(mapping, rows, deletes)));
        found.set("deleted", count(X));
    }
    if mapping.operation.updates() {
        with.push(format!("{U} AS (\n{}\n)", write::update(mapping, rows, &written)));
        found.set("updated", count(U));
    }
    if mapping.operation.inserts() {
        let rows = if mapping.inserts_what_was_not_updated() {
            with.push(write::updated_rows());
            write::not_updated(rows, &written)
        } else if mapping.counts_missing() {
            format!("SELECT * FROM {N}")
        } else {
            write::missing(mapping, rows, &written)
        };
        with.push(format!("{I} AS (\n{}\n)", write::insert(mapping, &rows)));
        found.set("inserted", count(I));
    }
    format!("WITH {}\nSELECT {}", with.join(",\n"), found.columns())
}

/// What the statement returns, in the order of [`FOUND`].
#[derive(Default)]
struct Found(std::collections::BTreeMap<&'static str, String>);

impl Found {
    fn set(&mut self, name: &'static str, value: String) {
        self.0.insert(name, value);
    }

    fn columns(&self) -> String {
        let column = |name: &&str| format!("{} AS {name}", self.0.get(name).map_or("0::bigint", String::as_str));
        FOUND.iter().map(column).collect::<Vec<_>>().join(",\n       ")
    }
}

/// Rows of a list, each beside `stage`, the staged row and nothing more: an expression may take it whole, as `to_jsonb(stage)` does.
fn beside_stage(rows: &str, mapping: &Mapping) -> String {
    let columns = used::columns(mapping).into_iter();
    let columns: Vec<String> = columns.map(|(n, column)| format!("{ROWS}.{} AS {column}", column_alias(n))).collect();
    format!("({rows}) AS {ROWS} CROSS JOIN LATERAL (SELECT {}) AS stage", columns.join(", "))
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

impl Mapping {
    fn guard(&self) -> Option<&crate::mapping::Ordered> {
        self.changes.as_ref().and_then(|rules| rules.guard.as_ref())
    }

    /// Whether missing rows are counted by looking them up in the target, since what is updated does not tell.
    fn counts_missing(&self) -> bool {
        self.operation.updates() && (self.skip_unchanged || self.guard().is_some())
    }

    /// Whether each row that the update does not find is inserted, and need not be looked up once more.
    fn inserts_what_was_not_updated(&self) -> bool {
        self.operation.updates() && self.operation.inserts() && !self.counts_missing()
    }

    fn is_strict_insert(&self) -> bool {
        self.operation == Operation::Insert && self.existing == crate::job::Existing::Error
    }
}
