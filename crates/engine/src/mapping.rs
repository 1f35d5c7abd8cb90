//! What a job means once the catalog has been asked: exact names, an expression for each column and branch, the cut columns.
//!
//! It is stored with the run, so that every executor builds the same statements.

use serde::{Deserialize, Serialize};

use crate::{
    chunk::CutColumn,
    ident::{self, Ident, TableName},
    job::{Existing, Operation, StageRows},
    settings::Settings,
    table::{Column, Leaf},
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
    /// Whether the stage has a heap of its own, where rows have a place and a transaction that wrote them.
    pub stage_has_heap: bool,
    /// The job's condition over `stage`.
    pub filter: Option<String>,
    /// Which of these rows are this run's, where the job has a watermark.
    pub window: Option<Window>,
    /// What becomes of staged rows that were taken.
    pub stage_rows: StageRows,
    /// What is done.
    pub operation: Operation,
    /// For `insert`: what an existing key means.
    pub existing: Existing,
    /// For `changes`: what a staged row is.
    pub changes: Option<ChangeRules>,
    /// For `sql`: the user's statements.
    pub statements: Vec<String>,
    /// Whether target rows that are already as they should be are left alone.
    pub skip_unchanged: bool,
    /// How many rows may be set aside; `None` where a bad row fails its chunk.
    pub reject_limit: Option<i64>,
    /// What the stage's planning saw (`pg_current_snapshot()`): what it did not see is new. `None` where nobody will ask.
    pub snapshot: Option<String>,
    /// Of the transactions that were neither older than all that were open then nor newer, those of which a staged row was seen: a subtransaction
    /// of an open one is in no snapshot. `None` where they were too many.
    #[serde(default)]
    pub seen: Option<Vec<i64>>,
    /// Rows that came or changed, before the snapshot, in chunks that had been applied by then: nobody takes them.
    #[serde(default)]
    pub changed_before: i64,
    /// The target's key, in the order in which rows are sorted.
    pub key: Vec<KeyColumn>,
    /// The target's columns and their values.
    pub assignments: Vec<Assignment>,
    /// The columns that key ranges cut along; empty for block ranges.
    pub cut: Vec<CutColumn>,
    /// Whether staged rows of one key always lie in one chunk.
    pub keys_together: bool,
    /// Whether a unique index of the stage, or a count at planning, shows that no two staged rows have one target key.
    pub keys_are_unique: bool,
    /// Whether an inserted column is GENERATED ALWAYS AS IDENTITY.
    pub overrides_identity: bool,
    /// Settings of every chunk's transaction.
    pub settings: Settings,
}

impl Mapping {
    /// Two tables and an operation, and nothing else yet.
    pub fn new(stage: TableName, target: TableName, operation: Operation) -> Self {
        Self {
            stage,
            stage_columns: Vec::new(),
            stage_leaves: Vec::new(),
            target,
            stage_has_heap: true,
            filter: None,
            window: None,
            stage_rows: StageRows::Keep,
            operation,
            existing: Existing::Skip,
            changes: None,
            statements: Vec::new(),
            skip_unchanged: false,
            reject_limit: None,
            snapshot: None,
            seen: None,
            changed_before: 0,
            key: Vec::new(),
            assignments: Vec::new(),
            cut: Vec::new(),
            keys_together: false,
            keys_are_unique: false,
            overrides_identity: false,
            settings: Settings::new(),
        }
    }

    /// The conditions over `stage` that tell the run's rows: its window, and the job's own condition.
    pub fn row_conditions(&self) -> Vec<String> {
        let window = self.window.iter().map(Window::condition);
        // A line of its own: an expression may end in a comment.
        window.chain(self.filter.iter().map(|filter| format!("(\n{filter}\n)"))).collect()
    }
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
    /// How the new value is compared with the old one; `None` where it is not, since it is of its own time.
    pub compare: Option<Compare>,
}

/// How a column's new value is compared with its old one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Compare {
    /// The column's type without modifiers: a cast to it changes no value that the column would take.
    pub type_name: String,
    /// Whether the texts are compared: the type has no equality, or calls values equal that are not the same.
    pub as_text: bool,
}

impl Compare {
    /// The way for a column.
    pub fn of(column: &Column) -> Self {
        Self { type_name: column.bare_type.clone(), as_text: !column.exact_equality }
    }
}

/// For `changes`: what a staged row is, and how new.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChangeRules {
    /// The stage's column that says what the row is.
    pub indicator: Ident,
    /// The indicators of an insert and of an update.
    pub writes: [String; 2],
    /// The indicator of a delete.
    pub delete: String,
    /// The stage's column that says how new it is.
    pub order: Ordered,
    /// The target's column that keeps the order of the newest change applied to its row.
    pub guard: Option<Ordered>,
}

/// A column whose values have an order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ordered {
    /// The column.
    pub column: Ident,
    /// Whether it is text that holds numbers: as text '9' is greater than '10'.
    pub is_text: bool,
}

impl Ordered {
    /// Its value in a row of `table`, in its order.
    pub fn value(&self, table: &str) -> String {
        if self.is_text {
            format!("CAST({table}.{} AS pg_catalog.numeric)", self.column)
        } else {
            format!("{table}.{}", self.column)
        }
    }
}

/// The rows that are a run's, where the job has a watermark.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Window {
    /// The stage's column.
    pub column: Ordered,
    /// The type in which its values are compared.
    pub type_name: String,
    /// How far behind the last run's high it begins.
    pub overlap: Option<String>,
    /// Its bounds, fixed by planning.
    pub bounds: Option<Bounds>,
}

/// The bounds of a window, as the server wrote them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bounds {
    /// Rows are above it; `None` for all.
    pub low: Option<String>,
    /// Rows are up to and including it; `None` when there never was a row.
    pub high: Option<String>,
}

impl Window {
    /// The condition over `stage` for its rows.
    pub fn condition(&self) -> String {
        let Some(bounds) = &self.bounds else { return "true".to_owned() };
        let Some(high) = &bounds.high else { return "false".to_owned() };
        let value = self.column.value("stage");
        let bound = |text: &str| format!("CAST({} AS {})", ident::literal(text), self.type_name);
        let above = bounds.low.as_ref().map(|low| format!("{value} > {} AND ", bound(low))).unwrap_or_default();
        format!("{above}{value} <= {}", bound(high))
    }
}
