//! `~/.pgpass` (or PGPASSFILE): passwords by host, port, database and user.

use std::{fs, os::unix::fs::PermissionsExt, path::PathBuf};

/// Who wants to connect where.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Login<'a> {
    pub(crate) host: &'a str,
    pub(crate) port: u16,
    pub(crate) database: &'a str,
    pub(crate) user: &'a str,
}

/// Looks a password up. A file that others may read is passed over, as libpq does.
pub(crate) fn find(login: Login<'_>) -> Option<String> {
    let path = std::env::var_os("PGPASSFILE")
        .map(PathBuf::from)
        .or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".pgpass")))?;
    let metadata = fs::metadata(&path).ok().filter(fs::Metadata::is_file)?;
    if metadata.permissions().mode() & 0o077 != 0 {
        tracing::warn!("{} is passed over, because others may read it: chmod 600 {0}", path.display());
        return None;
    }
    lookup(&fs::read_to_string(path).ok()?, login)
}

fn lookup(text: &str, login: Login<'_>) -> Option<String> {
    let port = login.port.to_string();
    let wanted = [login.host, &port, login.database, login.user];
    text.lines().filter(|line| !line.starts_with('#')).find_map(|line| {
        let fields = split(line);
        let [.., password] = fields.as_slice() else { return None };
        let matches = fields.len() == 5 && fields.iter().zip(wanted).all(|(field, want)| field == "*" || field == want);
        matches.then(|| password.clone())
    })
}

/// Fields between colons; a backslash keeps the character behind it.
fn split(line: &str) -> Vec<String> {
    let mut fields = vec![String::new()];
    let mut characters = line.chars();
    while let Some(c) = characters.next() {
        match c {
            ':' => fields.push(String::new()),
            c => {
                let kept = if c == '\\' { characters.next() } else { Some(c) };
                if let (Some(field), Some(kept)) = (fields.last_mut(), kept) {
                    field.push(kept);
                }
            }
        }
    }
    fields
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_line_that_fits_has_the_password() {
        let text = "# passwords\nother:5432:*:etl:no\ndb:5432:edw:etl:a\\:b\n*:*:*:*:last\n";
        let login = Login { host: "db", port: 5432, database: "edw", user: "etl" };
        assert_eq!(lookup(text, login).as_deref(), Some("a:b"));
        assert_eq!(lookup(text, Login { port: 1, ..login }).as_deref(), Some("last"));
        assert_eq!(lookup("db:5432:edw:etl\n", login), None);
    }
}
