//! What a job means once the catalog has been asked: exact names, an expression for each column and branch, the cut columns.
//!
//! It is stored with the run, so that every executor builds the same statements.

use serde::{Deserialize, Serialize};

use crate::{
    chunk::CutColumn,
    ident::{Ident, TableName},
    job::{Existing, Operation},
    settings::Settings,
    table::Leaf,
};

/// A job, resolved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mapping {
    /// The stage table.
    pub stage: TableName,
    /// The stage's columns, in their order.
    pub stage_columns: Vec<Ident>,
    /// The heaps that held the stage when the run was planned.
    pub stage_leaves: Vec<Leaf>,
    /// The target table.
    pub target: TableName,
    /// The job's condition over `stage`.
    pub filter: Option<String>,
    /// What is done.
    pub operation: Operation,
    /// For `insert`: what an existing key means.
    pub existing: Existing,
    /// The target's key, in the order in which rows are sorted.
    pub key: Vec<KeyColumn>,
    /// The target's columns and their values.
    pub assignments: Vec<Assignment>,
    /// The columns that key ranges cut along; empty for block ranges.
    pub cut: Vec<CutColumn>,
    /// Whether a unique index of the stage, or a count at planning, shows that no two staged rows have one target key.
    pub keys_are_unique: bool,
    /// Whether an inserted column is GENERATED ALWAYS AS IDENTITY.
    pub overrides_identity: bool,
    /// Settings of every chunk's transaction.
    pub settings: Settings,
}

/// A column of the target's key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyColumn {
    /// The target's column.
    pub column: Ident,
    /// The staged row's value of it.
    pub expression: String,
    /// The target column's collation, quoted; `None` where its type has none.
    pub collation: Option<String>,
}

/// A target column and what it gets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Assignment {
    /// The target's column.
    pub column: Ident,
    /// Its value in a row that is inserted.
    pub insert: Option<String>,
    /// Its value in a row that is updated.
    pub update: Option<String>,
}
