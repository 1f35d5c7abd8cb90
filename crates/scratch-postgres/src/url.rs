//! How clients are told where the server is.

use std::fmt::Write;
use std::path::Path;

/// `postgres://user:password@127.0.0.1:port/database`.
pub(crate) fn tcp(user: &str, password: Option<&str>, port: u16, database: &str) -> String {
    let password = password.map(|password| format!(":{}", percent(password))).unwrap_or_default();
    format!("postgres://{}{password}@127.0.0.1:{port}/{}", percent(user), percent(database))
}

/// `host=/folder port=... user=... dbname=...`.
pub(crate) fn socket(user: &str, folder: &Path, port: u16, database: &str) -> String {
    let folder = quote(&folder.to_string_lossy());
    format!("host={folder} port={port} user={} dbname={}", quote(user), quote(database))
}

fn percent(text: &str) -> String {
    text.bytes().fold(String::new(), |mut escaped, byte| {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            escaped.push(char::from(byte));
        } else {
            // Writing to a String never fails.
            let _ = write!(escaped, "%{byte:02X}");
        }
        escaped
    })
}

/// A value of a libpq key/value string.
fn quote(value: &str) -> String {
    format!("'{}'", value.replace('\\', r"\\").replace('\'', r"\'"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_escape_what_would_end_a_part() {
        assert_eq!(tcp("me", Some("a/b@c:é"), 5, "x y"), "postgres://me:a%2Fb%40c%3A%C3%A9@127.0.0.1:5/x%20y");
        assert_eq!(
            socket("me", Path::new("/tmp/it's"), 5, r"a\b"),
            r"host='/tmp/it\'s' port=5 user='me' dbname='a\\b'"
        );
    }
}
