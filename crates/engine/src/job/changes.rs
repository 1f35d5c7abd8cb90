//! What the operation `changes` has to know of the stage.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// For `changes`: which columns say what a staged row is. An insert and an update are alike: the row is updated where the target has its key,
/// else inserted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Changes {
    /// The stage's column that says whether the row was inserted, updated or deleted.
    pub operation: String,
    /// The stage's column by which the newest change of a key is found: a number, a time, or digits as text (read as a number).
    pub order: String,
    /// The indicator of an insert.
    #[serde(default = "letter_i")]
    pub insert: String,
    /// The indicator of an update.
    #[serde(default = "letter_u")]
    pub update: String,
    /// The indicator of a delete.
    #[serde(default = "letter_d")]
    pub delete: String,
    /// A column of the target that keeps the order of the newest change applied to its row: older ones are refused, whenever they come.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guard: Option<String>,
}

fn letter_i() -> String {
    "I".to_owned()
}

fn letter_u() -> String {
    "U".to_owned()
}

fn letter_d() -> String {
    "D".to_owned()
}
