//! Which staged rows a run takes, and what becomes of them.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The column that tells new rows from those that an earlier run took.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Watermark {
    /// The stage's column: a number, a time, or digits as text (read as a number). It must not be NULL.
    pub column: String,
    /// How far a run looks back behind the last one, for rows that were committed late: an interval for a time (`"10 minutes"`), else a number.
    /// Rows in it are applied again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub overlap: Option<String>,
}

/// What becomes of staged rows that were taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum StageRows {
    /// They stay.
    #[default]
    Keep,
    /// Each chunk deletes its rows in the transaction that applies them.
    Delete,
    /// The stage is truncated at the end of a complete run, if it holds no row that the run did not take.
    Truncate,
}

impl StageRows {
    pub(super) fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// What becomes of a chunk that holds rows which can't be applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnBadRow {
    /// It fails; the others go on.
    #[default]
    Fail,
    /// Its bad rows are set aside, the others are applied.
    Quarantine,
}

impl OnBadRow {
    pub(super) fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// How a run makes sure at its end that the stage did not change under it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Verify {
    /// Rows that came or changed since it was planned are counted.
    #[default]
    NewRows,
    /// These, and all rows once more: deleted ones are missed too.
    Count,
    /// Not at all.
    Off,
}

impl Verify {
    pub(super) fn is_default(&self) -> bool {
        *self == Self::default()
    }
}
