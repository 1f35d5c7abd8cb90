//! A number of rows, or a share of the staged ones.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A limit: rows, or a percentage of the staged rows as text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged, expecting = "expected a number of rows, or a percentage as text (\"1%\")")]
pub enum Limit {
    /// So many rows.
    Rows(u32),
    /// A share of the staged rows: `"1%"`, `"0.5%"`.
    Percent(String),
}

impl Limit {
    /// The percentage, where it is one; an error when the text is none.
    fn percent(text: &str) -> Option<f64> {
        let number: f64 = text.trim().strip_suffix('%')?.trim().parse().ok()?;
        (0.0..=100.0).contains(&number).then_some(number)
    }

    /// Whether it can be used.
    pub fn is_valid(&self) -> bool {
        match self {
            Self::Rows(_) => true,
            Self::Percent(text) => Self::percent(text).is_some(),
        }
    }

    /// Whether the staged rows have to be counted to know it.
    pub const fn is_share(&self) -> bool {
        matches!(self, Self::Percent(_))
    }

    /// The limit in rows, of so many staged ones.
    pub fn rows(&self, staged: i64) -> i64 {
        match self {
            Self::Rows(rows) => i64::from(*rows),
            Self::Percent(text) => {
                // Validated when the job was read.
                let exact = staged as f64 * Self::percent(text).unwrap_or(0.0) / 100.0;
                // 0.57 % of 10,000 are 57 rows; in binary 56.99999999999999.
                let whole = if (exact - exact.round()).abs() <= 1e-9 * exact { exact.round() } else { exact.floor() };
                (whole as i64).min(staged)
            }
        }
    }
}

/// As a person would write it.
impl std::fmt::Display for Limit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Rows(rows) => write!(f, "{rows}"),
            Self::Percent(text) => f.write_str(text),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_rows_or_a_share_of_the_staged_rows() {
        let read = |text: &str| serde_json::from_str::<Limit>(text).ok().filter(Limit::is_valid);
        for (text, rows) in
            [("7", 7), ("0", 0), (r#""1%""#, 40), (r#""0.05 %""#, 2), (r#""100%""#, 4_000), (r#""28.35%""#, 1_134)]
        {
            assert_eq!(read(text).map(|limit| limit.rows(4_000)), Some(rows), "{text}");
        }
        for text in [r#""1""#, r#""many%""#, r#""101%""#, r#""-1%""#, r#""NaN%""#, "-1", "1.5"] {
            assert_eq!(read(text), None, "{text}");
        }
    }
}
