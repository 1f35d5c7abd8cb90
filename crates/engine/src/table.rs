//! What the catalog says of a table.

use serde::{Deserialize, Serialize};

use crate::ident::{Ident, TableName};

/// A stage or target table.
#[derive(Debug, Clone, PartialEq)]
pub struct Table {
    /// Its object id.
    pub oid: u32,
    /// Its name, with the schema.
    pub name: TableName,
    /// What it is.
    pub kind: Kind,
    /// Its columns, in their order.
    pub columns: Vec<Column>,
    /// Its valid indexes.
    pub indexes: Vec<Index>,
    /// The heaps that hold its rows: itself, or its partitions and children.
    pub leaves: Vec<Leaf>,
    /// Rows by the last ANALYZE; negative when there was none.
    pub estimated_rows: f64,
}

/// What kind of relation it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A heap of its own: a table or a materialized view.
    Table,
    /// A partitioned table: its leaves hold the rows.
    Partitioned,
    /// A view or a foreign table: no heap that block ranges could cut.
    NoHeap,
}

/// A column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    /// Its name.
    pub name: Ident,
    /// Its type with modifiers, as SQL writes it.
    pub type_name: String,
    /// Its type without modifiers and domains.
    pub base_type: String,
    /// That type as a cast writes it that changes no value: `bpchar` and not `character`, which is one character long.
    pub bare_type: String,
    /// Whether its `=` holds for the same values only: not for 1 day and 24 hours, nor for 1.0 and
    /// 1.00 in a `numeric` without a scale, nor for two spellings under a collation that takes them for one.
    pub exact_equality: bool,
    /// Its collation, quoted; `None` where the type has none.
    pub collation: Option<String>,
    /// Whether the column can't be NULL.
    pub not_null: bool,
    /// Whether the server computes it (`GENERATED ALWAYS AS (…)`).
    pub generated: bool,
    /// Whether it is `GENERATED ALWAYS AS IDENTITY`.
    pub identity_always: bool,
}

/// A valid index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Index {
    /// Its key columns; `None` stands for an expression.
    pub columns: Vec<Option<Ident>>,
    /// Whether it keeps two equal keys out.
    pub unique: bool,
    /// Whether it does so at once (not deferrable).
    pub immediate: bool,
    /// Whether it covers a part of the rows only.
    pub partial: bool,
    /// Whether it is a B-tree in the types' own order, ascending, so that key ranges can be read from it.
    pub ordered: bool,
    /// Whether NULLs count as equal (PostgreSQL 15: `NULLS NOT DISTINCT`).
    pub nulls_not_distinct: bool,
}

/// A heap that holds rows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leaf {
    /// Its object id.
    pub oid: u32,
    /// Its name.
    pub name: TableName,
    /// The file that holds it; another one after VACUUM FULL, CLUSTER or TRUNCATE.
    pub filenode: u32,
}

impl Table {
    /// The column of that name.
    pub fn column(&self, name: &Ident) -> Option<&Column> {
        self.columns.iter().find(|column| column.name == *name)
    }

    /// Whether a unique index over exactly these columns can tell every row, now and at once.
    pub fn has_unique_key(&self, key: &[Ident]) -> bool {
        self.indexes.iter().any(|index| index.is_arbiter() && same_set(&index.plain_columns(), key))
    }

    /// Whether no two rows can agree on all these columns.
    pub fn proves_unique(&self, columns: &[Ident]) -> bool {
        self.indexes.iter().any(|index| {
            let plain = index.plain_columns();
            index.is_arbiter()
                && plain.len() == index.columns.len()
                && plain.iter().all(|column| columns.contains(column))
        })
    }

    /// The columns in the order of an index that starts with them, so that ranges of them can be read from it.
    pub fn indexed_order(&self, columns: &[Ident]) -> Option<Vec<Ident>> {
        self.indexes
            .iter()
            .filter(|index| index.ordered && !index.partial)
            .map(|index| index.columns.iter().take(columns.len()).flatten().cloned().collect::<Vec<_>>())
            .find(|leading| same_set(leading, columns))
    }
}

impl Index {
    fn is_arbiter(&self) -> bool {
        self.unique && self.immediate && !self.partial && !self.nulls_not_distinct
    }

    fn plain_columns(&self) -> Vec<Ident> {
        if self.columns.iter().all(Option::is_some) {
            self.columns.iter().flatten().cloned().collect()
        } else {
            Vec::new()
        }
    }
}

fn same_set(a: &[Ident], b: &[Ident]) -> bool {
    a.len() == b.len() && a.iter().all(|column| b.contains(column))
}
