//! The places in a statement of the user's own where a chunk's rows are named.

/// The chunk's condition over `stage`.
const CHUNK: &str = "{chunk}";
/// The first and the last value of a chunk that the job's own query gave.
const START: &str = "{start_id}";
const END: &str = "{end_id}";

/// Whether a statement names the chunk's rows.
pub fn is_in(statement: &str) -> bool {
    let code = without_comments(statement);
    code.contains(CHUNK) || names_ids(&code)
}

/// The statement with its comments taken out; what looks like one in quotes is none.
fn without_comments(statement: &str) -> String {
    let mut code = String::new();
    let mut rest = statement;
    while let Some(at) = rest.find(['-', '/', '\'', '"']) {
        let (before, after) = rest.split_at(at);
        code.push_str(before);
        let (kept, end) = match after.get(..2) {
            Some("--") => (0, after.find('\n').unwrap_or(after.len())),
            Some("/*") => (0, after.find("*/").map_or(after.len(), |end| end + 2)),
            _ if after.starts_with(['\'', '"']) => {
                let quote = &after[..1];
                let end = after[1..].find(quote).map_or(after.len(), |end| end + 2);
                (end, end)
            }
            _ => (1, 1),
        };
        code.push_str(&after[..kept]);
        rest = &after[end..];
    }
    code + rest
}

/// Whether a statement names a chunk's first and last value.
pub fn names_ids(statement: &str) -> bool {
    statement.contains(START) && statement.contains(END)
}

/// The statement for one chunk. What is put in is never looked at again: a value of a row, or a name, may hold the text of a placeholder, and filling
/// that in would end its quotes.
pub fn fill(statement: &str, condition: &str, ids: Option<(&str, &str)>) -> String {
    let mut filled = String::with_capacity(statement.len() + condition.len());
    let mut rest = statement;
    while let Some(at) = rest.find('{') {
        let (before, place) = rest.split_at(at);
        filled += before;
        let known = [(CHUNK, Some(condition)), (START, ids.map(|ids| ids.0)), (END, ids.map(|ids| ids.1))];
        let given = known.iter().find_map(|(name, value)| Some((place.strip_prefix(name)?, (*value)?)));
        let (after, value) = given.unwrap_or((&place[1..], "{"));
        filled += value;
        rest = after;
    }
    filled + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_put_in_is_not_filled_in_again() {
        let ids = Some(("'{end_id}'", "'{chunk}'"));
        assert_eq!(
            fill("f({start_id}, {end_id}) {chunk}", "n = '{start_id}'", ids),
            "f('{end_id}', '{chunk}') n = '{start_id}'"
        );
        assert_eq!(fill("'{}' {start_id} {chunk", "true", None), "'{}' {start_id} {chunk");
    }

    #[test]
    fn a_placeholder_in_a_comment_is_none() {
        for (statement, expected) in [
            ("DELETE FROM t WHERE {chunk}", true),
            ("UPDATE t SET n = n - 1 / 2 WHERE {chunk} -- as it was", true),
            ("/* all of it */ DELETE FROM t -- one\nWHERE id BETWEEN {start_id} AND {end_id}", true),
            ("DELETE FROM t WHERE a <> '--' AND \"/*\" <> '' AND {chunk}", true),
            ("DELETE FROM t WHERE ä = '-' -- {chunk}", false),
            ("DELETE FROM t -- {chunk}", false),
            ("DELETE FROM t /* {chunk} */ WHERE id > {start_id} -- {end_id}", false),
        ] {
            assert_eq!(is_in(statement), expected, "{statement}");
        }
    }
}
