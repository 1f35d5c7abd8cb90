//! All that was measured: `results.json`, of which RESULTS.md and the plot are made. Parts are measured and kept separately.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::{
    machine::Machine,
    part::{coordination::Coordination, lambda::Lambda, planning::Cut},
    race::Race,
};

/// The last measurement of each part.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Results {
    pub(crate) write: Measured<Vec<Race>>,
    pub(crate) read_bound: Measured<Vec<Race>>,
    pub(crate) planning: Measured<Vec<Cut>>,
    pub(crate) coordination: Measured<Coordination>,
    pub(crate) lambda: Measured<Lambda>,
}

/// What was measured of a part, when and on what.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Measured<T> {
    /// When; empty for never.
    pub(crate) at: String,
    pub(crate) command: String,
    /// Sizes too small to mean anything: to try out the harness.
    pub(crate) quick: bool,
    pub(crate) machine: Machine,
    pub(crate) seconds: f64,
    /// Why it is not whole.
    pub(crate) failed: Option<String>,
    pub(crate) found: T,
}

impl Results {
    /// Reads what was measured before; nothing where the file is not there.
    pub(crate) fn load(path: &Path) -> Result<Self> {
        match fs::read_to_string(path) {
            Ok(text) => serde_json::from_str(&text).with_context(|| {
                format!("{} is of another version of the harness: remove it and measure again", path.display())
            }),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(error).with_context(|| format!("{} can't be read", path.display())),
        }
    }

    /// Writes all of it.
    pub(crate) fn save(&self, path: &Path) -> Result<()> {
        fs::write(path, serde_json::to_string_pretty(self)? + "\n")
            .with_context(|| format!("{} can't be written", path.display()))
    }
}
