//! The job file: what the user typed, read strictly, with everything that is wrong said at once.
//!
//! Nothing here asks the server; [`crate::check`] does.

mod changes;
mod limit;
mod limits;
mod parallelism;
pub mod placeholder;
mod read;
mod staged;
mod text;

use std::collections::BTreeMap;

pub use changes::Changes;
pub use limit::Limit;
pub use limits::Limits;
pub use parallelism::Parallelism;
pub use staged::{OnBadRow, StageRows, Verify, Watermark};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::finding::Finding;

/// A stage table, a target table, and how the one is applied to the other.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Job {
    /// The job's name: its key in the job table and the dimension of its metrics.
    #[schemars(regex(pattern = "^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}$"))]
    pub name: String,
    /// Where the rows come from.
    pub stage: Stage,
    /// Where the rows go.
    pub target: Target,
    /// What is done with them.
    pub operation: Operation,
    /// For `insert`: what a staged row means whose key the target has already.
    #[serde(default, skip_serializing_if = "Existing::is_default")]
    pub existing: Existing,
    /// What each target column gets; all columns that stage and target have in common when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub columns: Option<Columns>,
    /// For `changes`: where a staged row says what it is and how new it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub changes: Option<Changes>,
    /// For `sql`: the statements, each with `{chunk}` where the chunk's condition over `stage` goes; they run in order in the chunk's
    /// transaction. With `"by": "sql"` also `{start_id}` and `{end_id}`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sql: Vec<String>,
    /// A run that would delete more rows than this is refused before it deletes anything: rows, or a percentage of the staged rows as text
    /// (`"5%"`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_deletes: Option<Limit>,
    /// Whether target rows that are already as they should be are left alone, and counted as unchanged.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub skip_unchanged: bool,
    /// A column of the stage: a run takes only what is newer than the last complete run of this job took.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub watermark: Option<Watermark>,
    /// What becomes of the staged rows that were taken.
    #[serde(default, skip_serializing_if = "StageRows::is_default")]
    pub stage_rows: StageRows,
    /// What becomes of a chunk that holds rows which can't be applied.
    #[serde(default, skip_serializing_if = "OnBadRow::is_default")]
    pub on_bad_row: OnBadRow,
    /// With `"on_bad_row": "quarantine"`: how many rows may be set aside before the run fails: rows, or a percentage of the staged rows as
    /// text (`"1%"`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_rejects: Option<Limit>,
    /// How a run makes sure at its end that the stage did not change under it.
    #[serde(default, skip_serializing_if = "Verify::is_default")]
    pub verify: Verify,
    /// How the stage table is cut.
    #[serde(default)]
    pub chunks: Chunks,
    /// How many chunks are applied at a time: a number, `"auto"` (the run finds the best number, up to 64), or `{"auto": 128}`.
    #[serde(default)]
    pub parallelism: Parallelism,
    /// What the run must not push the server over: while a limit is exceeded it is held back.
    #[serde(default, skip_serializing_if = "Limits::is_none")]
    pub limits: Limits,
    /// In how many minutes from its start a run has to be done. Where it will not be, people are told before the time is up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 10_080))]
    pub deadline_minutes: Option<u32>,
    /// How often a chunk is tried.
    #[serde(default)]
    pub retry: Retry,
    /// PostgreSQL settings for the chunks' transactions: `work_mem`, `lock_timeout`, `statement_timeout`, `search_path`, `TimeZone` and
    /// others of a list that `check` prints when a name is not on it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub session: BTreeMap<String, String>,
    /// Whether another run on the same stage and target may be open at the same time.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub share_tables: bool,
}

/// The stage table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Stage {
    /// `schema.table`, as in SQL.
    pub table: String,
    /// An SQL condition over `stage`: rows outside it are not of this job.
    #[serde(default, rename = "where", skip_serializing_if = "Option::is_none")]
    pub filter: Option<String>,
}

/// The target table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Target {
    /// `schema.table`, as in SQL.
    pub table: String,
    /// The columns of a unique index of the target, by which a staged row finds its target row; none for `sql`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub key: Vec<String>,
}

/// What is done with the staged rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Operation {
    /// Rows whose key the target does not have are inserted.
    Insert,
    /// Target rows whose key is staged are updated; staged rows without one are skipped.
    Update,
    /// Update where the target has the key, else insert.
    Upsert,
    /// Target rows whose key is staged are deleted; staged rows without one are skipped.
    Delete,
    /// The newest staged change of a key is applied: an upsert, or a delete.
    Changes,
    /// The user's own statements.
    Sql,
}

impl Operation {
    /// Whether it can insert rows into the target.
    pub const fn inserts(self) -> bool {
        matches!(self, Self::Insert | Self::Upsert | Self::Changes)
    }

    /// Whether it can update rows of the target.
    pub const fn updates(self) -> bool {
        matches!(self, Self::Update | Self::Upsert | Self::Changes)
    }

    /// Whether it can delete rows of the target.
    pub const fn deletes(self) -> bool {
        matches!(self, Self::Delete | Self::Changes)
    }

    /// The word in a job file.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Insert => "insert",
            Self::Update => "update",
            Self::Upsert => "upsert",
            Self::Delete => "delete",
            Self::Changes => "changes",
            Self::Sql => "sql",
        }
    }
}

/// For `insert`: what an existing key means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Existing {
    /// The staged row is skipped, and counted.
    #[default]
    Skip,
    /// The staged row is an error (SQLSTATE 23505).
    Error,
}

impl Existing {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// What each target column gets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged, expecting = "expected a list of column names, or an object of column: SQL expression")]
pub enum Columns {
    /// Columns that have the same name in stage and target.
    Same(Vec<String>),
    /// Target column: its value.
    Map(BTreeMap<String, Value>),
}

/// A target column's value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(
    untagged,
    expecting = "expected an SQL expression, or {\"insert\": expression, \"update\": expression} with at least one of the two"
)]
pub enum Value {
    /// The same SQL expression over `stage` whether the row is inserted or updated.
    Both(String),
    /// Another expression for each; a branch that is left out leaves the column alone.
    Each(Branches),
}

/// The two expressions of a column whose branches differ.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Branches {
    /// The expression over `stage` for a row that is inserted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub insert: Option<String>,
    /// The expression over `stage` and `target` for a row that is updated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub update: Option<String>,
}

/// How the stage table is cut into chunks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Chunks {
    /// Along what.
    pub by: ChunkBy,
    /// Rows in a chunk, as nearly as can be planned; fewer where parallelism would otherwise lack chunks.
    #[schemars(range(min = 1, max = 10_000_000))]
    pub rows: u32,
    /// With `"by": "sql"`, and with the operation `sql`: the stage's column that is cut along. With `"by": "sql"` it is the target's key when
    /// left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub column: Option<String>,
    /// With `"by": "sql"`: a SELECT of two columns, the first and the last value of each chunk.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub query: Option<String>,
}

impl Default for Chunks {
    fn default() -> Self {
        Self { by: ChunkBy::Auto, rows: 5_000, column: None, query: None }
    }
}

/// Along what the stage table is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ChunkBy {
    /// Key ranges where the stage has an index on the key, else block ranges.
    Auto,
    /// Block ranges of the stage's heap.
    Ctid,
    /// Ranges of the target's key.
    Key,
    /// Ranges that the job's own query gives.
    Sql,
}

/// How often a chunk is tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Retry {
    /// Attempts at one chunk.
    #[schemars(range(min = 1, max = 100))]
    pub attempts: u32,
    /// Rounds over the chunks that are left.
    #[schemars(range(min = 1, max = 100))]
    pub rounds: u32,
}

impl Default for Retry {
    fn default() -> Self {
        Self { attempts: 10, rounds: 4 }
    }
}

impl Job {
    /// Reads a job file.
    ///
    /// # Errors
    /// Everything that is wrong with the text, each with the field it concerns.
    pub fn parse(text: &str) -> Result<Self, Vec<Finding>> {
        Self::from_value(text::read(text).map_err(|fault| vec![fault])?)
    }

    /// Reads a job from JSON that has been parsed: the job table's, or an execution's input.
    ///
    /// # Errors
    /// Everything that is wrong with it, each with the field it concerns.
    pub fn from_value(value: serde_json::Value) -> Result<Self, Vec<Finding>> {
        read::job(value)
    }

    /// Whether a text can be a job's name.
    pub fn is_name(text: &str) -> bool {
        read::is_job_name(text)
    }

    /// The JSON Schema of a job file, for editors: `jobs/job.schema.json`.
    pub fn schema() -> schemars::Schema {
        schemars::schema_for!(Self)
    }

    /// The job as JSON, as it is stored in the ledger.
    pub fn to_value(&self) -> serde_json::Value {
        // Every field is a string, a number or a map of them: nothing that serde_json could refuse.
        serde_json::to_value(self).unwrap_or_default()
    }
}
