//! Reads SQL as far as its quotes: what is code, and what is only quoted.

/// The statement with each string as `?` and each quoted name as `@`: what is left is code, and must not depend on any name or value.
///
/// # Errors
/// When a quote is not closed, or a string means something else where `standard_conforming_strings` is off.
pub fn skeleton(sql: &str) -> Result<String, String> {
    let mut code = String::new();
    let mut rest = sql;
    while let Some(at) = rest.find(['\'', '"']) {
        let (before, quoted) = rest.split_at(at);
        let escapes = quoted.starts_with('\'') && before.ends_with('E');
        code += before.strip_suffix('E').filter(|_| escapes).unwrap_or(before);
        code.push(if quoted.starts_with('\'') { '?' } else { '@' });
        rest = &quoted[end(quoted, escapes).ok_or_else(|| format!("a quote is not closed: {sql}"))?..];
        if quoted.starts_with('\'') && !escapes && quoted[..quoted.len() - rest.len()].contains('\\') {
            return Err(format!("a backslash in a plain string: {sql}"));
        }
    }
    Ok(code + rest)
}

/// Behind the quote that closes.
fn end(quoted: &str, escapes: bool) -> Option<usize> {
    let mut characters = quoted.char_indices().peekable();
    let (_, quote) = characters.next()?;
    while let Some((at, c)) = characters.next() {
        if c == '\\' && escapes {
            characters.next()?;
        } else if c == quote {
            match characters.peek() {
                Some((_, next)) if *next == quote => drop(characters.next()),
                _ => return Some(at + quote.len_utf8()),
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quoted_things_are_told_from_code() {
        assert_eq!(skeleton(r#"SELECT "a""b", 'it''s', E'\\\'' FROM x"#).unwrap(), "SELECT @, ?, ? FROM x");
        assert_eq!(skeleton("'a'; DROP TABLE x; --'").unwrap_err(), "a quote is not closed: 'a'; DROP TABLE x; --'");
        assert!(skeleton(r"'a\'").is_err());
    }
}
