//! Names of tables and columns, and the one place where they and literals are quoted.
//!
//! A job writes names as SQL does: `edw_ods.account`, `Account` (folded to `account`) or `"Account"` (kept).

use std::fmt;

use postgres_protocol::escape;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// PostgreSQL cuts longer names silently (`NAMEDATALEN` - 1), and a cut name is another object.
const MAX_BYTES: usize = 63;

/// Why a text is not a name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotAName {
    /// Nothing between the dots or the quotes.
    #[error("the name is empty")]
    Empty,
    /// A character that needs quotes around the name.
    #[error("`{}` can't stand in a name that is not in double quotes; write \"\\\"…\\\"\" around the name", crate::finding::shown(*.0, 16))]
    NeedsQuotes(char),
    /// A quote that is not closed, or text after it.
    #[error("the double quotes don't pair up")]
    Quotes,
    /// NUL can't be part of a name.
    #[error("the name contains a NUL character")]
    Nul,
    /// Longer than PostgreSQL keeps.
    #[error("the name has {0} bytes; PostgreSQL keeps 63")]
    TooLong(usize),
    /// More than `schema.table`.
    #[error("a table is `table` or `schema.table`, this has {0} parts")]
    Parts(usize),
}

/// One exact name, as the catalog holds it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Ident(String);

impl Ident {
    /// A name exactly as the catalog has it.
    pub fn exact(name: impl Into<String>) -> Self {
        Self(name.into())
    }

    /// A name that a person gave exactly as it is, without quotes.
    ///
    /// # Errors
    /// When PostgreSQL can't hold it, or would cut it to another one.
    pub fn given(name: &str) -> Result<Self, NotAName> {
        checked(name.to_owned())
    }

    /// Reads a column's name as SQL would: folded to lower case unless in double quotes.
    ///
    /// # Errors
    /// When the text is not one name.
    pub fn parse(text: &str) -> Result<Self, NotAName> {
        let mut parts = split(text)?;
        match (parts.pop(), parts.len()) {
            (Some(part), 0) => Ok(part),
            (_, n) => Err(NotAName::Parts(n + 1)),
        }
    }

    /// The name without quotes, for messages and comparisons.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Ident {
    /// The name as a person would write it: quoted only where it has to be.
    pub fn as_in_sql(&self) -> String {
        if Self::parse(&self.0).is_ok_and(|parsed| parsed == *self) { self.0.clone() } else { self.to_string() }
    }
}

/// Quoted, so that whatever the name contains it stays a name.
impl fmt::Display for Ident {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&escape::escape_identifier(&self.0))
    }
}

/// A table's name, with its schema once the catalog has been asked.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TableName {
    /// The schema; `None` means that the session's `search_path` decides.
    pub schema: Option<Ident>,
    /// The table's own name.
    pub name: Ident,
}

impl TableName {
    /// Reads `table` or `schema.table` as SQL would.
    ///
    /// # Errors
    /// When the text is neither.
    pub fn parse(text: &str) -> Result<Self, NotAName> {
        let mut parts = split(text)?;
        let count = parts.len();
        match (parts.pop(), parts.pop(), count) {
            (Some(name), schema, 1 | 2) => Ok(Self { schema, name }),
            _ => Err(NotAName::Parts(count)),
        }
    }
}

impl TableName {
    /// The name as a person would write it.
    pub fn as_in_sql(&self) -> String {
        self.schema.iter().chain([&self.name]).map(Ident::as_in_sql).collect::<Vec<_>>().join(".")
    }
}

impl fmt::Display for TableName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.schema {
            Some(schema) => write!(f, "{schema}.{}", self.name),
            None => self.name.fmt(f),
        }
    }
}

/// A text as an SQL literal, safe whatever `standard_conforming_strings` says.
pub fn literal(text: &str) -> String {
    escape::escape_literal(text).trim_start().to_owned()
}

/// A list of names, quoted.
pub fn list<'a>(names: impl IntoIterator<Item = &'a Ident>) -> String {
    names.into_iter().map(Ident::to_string).collect::<Vec<_>>().join(", ")
}

fn split(text: &str) -> Result<Vec<Ident>, NotAName> {
    let mut parts = Vec::new();
    let mut rest = text.trim();
    loop {
        let (part, after) = match rest.strip_prefix('"') {
            Some(quoted) => take_quoted(quoted)?,
            None => take_plain(rest)?,
        };
        parts.push(checked(part)?);
        match after.strip_prefix('.') {
            Some(next) => rest = next,
            None if after.is_empty() => return Ok(parts),
            None => return Err(NotAName::Quotes),
        }
    }
}

fn take_quoted(text: &str) -> Result<(String, &str), NotAName> {
    let mut name = String::new();
    let mut rest = text;
    loop {
        let end = rest.find('"').ok_or(NotAName::Quotes)?;
        name.push_str(&rest[..end]);
        rest = &rest[end + 1..];
        match rest.strip_prefix('"') {
            Some(next) => {
                name.push('"');
                rest = next;
            }
            None => return Ok((name, rest)),
        }
    }
}

fn take_plain(text: &str) -> Result<(String, &str), NotAName> {
    let end = text.find('.').unwrap_or(text.len());
    let (name, rest) = text.split_at(end);
    if let Some(odd) = name.chars().find(|c| !(c.is_alphanumeric() || *c == '_' || *c == '$')) {
        return Err(if odd == '\0' { NotAName::Nul } else { NotAName::NeedsQuotes(odd) });
    }
    if let Some(digit) = name.chars().next().filter(|c| c.is_ascii_digit() || *c == '$') {
        return Err(NotAName::NeedsQuotes(digit));
    }
    // PostgreSQL folds ASCII letters only, in every multi-byte encoding.
    Ok((name.to_ascii_lowercase(), rest))
}

fn checked(name: String) -> Result<Ident, NotAName> {
    match name.len() {
        0 => Err(NotAName::Empty),
        _ if name.contains('\0') => Err(NotAName::Nul),
        n if n > MAX_BYTES => Err(NotAName::TooLong(n)),
        _ => Ok(Ident(name)),
    }
}

impl JsonSchema for Ident {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Ident".into()
    }

    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        String::json_schema(generator)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn column(text: &str) -> String {
        Ident::parse(text).unwrap().to_string()
    }

    #[test]
    fn unquoted_names_fold_to_lower_case_and_quoted_ones_do_not() {
        assert_eq!(column("Acct_Id"), r#""acct_id""#);
        assert_eq!(column(r#""Acct Id""#), r#""Acct Id""#);
        assert_eq!(TableName::parse(r#"Edw."My Table""#).unwrap().to_string(), r#""edw"."My Table""#);
    }

    #[test]
    fn whatever_a_name_contains_it_stays_a_name() {
        assert_eq!(column(r#""a""; DROP TABLE x; --""#), r#""a""; DROP TABLE x; --""#);
        assert_eq!(column("größe"), r#""größe""#);
        assert_eq!((Ident::exact("a b").as_in_sql(), Ident::exact("ab").as_in_sql()), (r#""a b""#.into(), "ab".into()));
        assert_eq!(literal("it's"), "'it''s'");
        assert_eq!(literal(r"a\b"), r"E'a\\b'");
    }

    #[test]
    fn a_text_that_is_no_name_says_why() {
        assert_eq!(Ident::parse(""), Err(NotAName::Empty));
        assert_eq!(Ident::parse("a b"), Err(NotAName::NeedsQuotes(' ')));
        assert_eq!(Ident::parse("a;b"), Err(NotAName::NeedsQuotes(';')));
        assert_eq!(Ident::parse("1a"), Err(NotAName::NeedsQuotes('1')));
        assert_eq!(Ident::parse(r#""a"#), Err(NotAName::Quotes));
        assert_eq!(Ident::parse(r#""a"b"#), Err(NotAName::Quotes));
        assert_eq!(Ident::parse("a\0"), Err(NotAName::Nul));
        assert_eq!(Ident::parse("a.b"), Err(NotAName::Parts(2)));
        assert_eq!(Ident::parse(&"x".repeat(64)), Err(NotAName::TooLong(64)));
        assert_eq!(TableName::parse("a.b.c"), Err(NotAName::Parts(3)));
        assert_eq!(Ident::given("a.B \"c").unwrap().as_str(), "a.B \"c");
        assert_eq!(
            [Ident::given(""), Ident::given(&"é".repeat(32))],
            [Err(NotAName::Empty), Err(NotAName::TooLong(64))]
        );
    }
}
