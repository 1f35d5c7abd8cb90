//! How many chunks are applied at a time.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// More sessions than this are not tried by a run that finds the number itself, unless the job says so.
const MOST_TRIED: u32 = 64;

/// How many chunks are applied at a time: a number, or `"auto"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged, expecting = "expected a number, \"auto\", or {\"auto\": the most to try}")]
pub enum Parallelism {
    /// So many.
    Fixed(#[schemars(range(min = 1, max = 1000))] u32),
    /// The run finds the best number, up to 64.
    Auto(Auto),
    /// The run finds the best number, up to this one.
    UpTo(UpTo),
}

/// The word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Auto {
    /// The run finds the number itself.
    Auto,
}

/// The word, and a bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct UpTo {
    /// The most to try.
    #[schemars(range(min = 1, max = 1000))]
    pub auto: u32,
}

impl Parallelism {
    /// The most chunks at a time.
    pub const fn most(self) -> u32 {
        match self {
            Self::Fixed(number) => number,
            Self::Auto(Auto::Auto) => MOST_TRIED,
            Self::UpTo(UpTo { auto }) => auto,
        }
    }

    /// Whether the run finds the number itself.
    pub const fn is_auto(self) -> bool {
        !matches!(self, Self::Fixed(_))
    }

    /// What is typed on a command line: a number or `auto`.
    ///
    /// # Errors
    /// When it is neither.
    pub fn parse(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto(Auto::Auto)),
            number => number.parse().map(Self::Fixed).map_err(|_| format!("{number:?} is neither a number nor `auto`")),
        }
    }
}

impl Default for Parallelism {
    fn default() -> Self {
        Self::Fixed(4)
    }
}

impl From<u32> for Parallelism {
    fn from(number: u32) -> Self {
        Self::Fixed(number)
    }
}

/// As a person would say it.
impl std::fmt::Display for Parallelism {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Fixed(number) => write!(f, "{number}"),
            Self::Auto(_) | Self::UpTo(_) => write!(f, "auto, up to {}", self.most()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parallelism_is_a_number_or_auto_with_or_without_a_bound() {
        let read = |text: &str| serde_json::from_str::<Parallelism>(text).ok();
        assert_eq!(read("16").map(|p| (p.most(), p.is_auto())), Some((16, false)));
        assert_eq!(read(r#""auto""#).map(|p| (p.most(), p.is_auto())), Some((64, true)));
        assert_eq!(read(r#"{"auto": 128}"#).map(|p| (p.most(), p.is_auto())), Some((128, true)));
        for wrong in [r#""fast""#, r#"{"auto": 4, "step": 2}"#, "-1", "1.5", "null", "[]"] {
            assert_eq!(read(wrong), None, "{wrong}");
        }
    }
}
