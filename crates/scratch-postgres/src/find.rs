//! Where the PostgreSQL server programs are.

use std::env;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::Error;

/// The environment variable that names the folder.
const VARIABLE: &str = "SCRATCH_POSTGRES_BIN";

/// The programs a folder must hold.
const PROGRAMS: [&str; 2] = ["initdb", "postgres"];

/// Where Homebrew keeps its formulas: Apple silicon, Intel, Linux.
const HOMEBREW: [&str; 3] = ["/opt/homebrew/opt", "/usr/local/opt", "/home/linuxbrew/.linuxbrew/opt"];

/// A place to look in: its name for the error, and the folders it stands for.
type Place = (&'static str, fn() -> Vec<PathBuf>);

/// The folder that holds `initdb` and `postgres`.
pub(crate) fn bin_dir(given: Option<&Path>) -> Result<PathBuf, Error> {
    if let Some(folder) = given {
        return check(folder, "given to the builder");
    }
    if let Some(folder) = env::var_os(VARIABLE).filter(|folder| !folder.is_empty()) {
        return check(Path::new(&folder), "from SCRATCH_POSTGRES_BIN");
    }
    let places: [Place; 4] = [
        ("/usr/lib/postgresql/*/bin", || versions(Path::new("/usr/lib/postgresql"), "")),
        ("the folder `pg_config --bindir` names", || pg_config().into_iter().collect()),
        ("PATH", || env::var_os("PATH").map(|path| env::split_paths(&path).collect()).unwrap_or_default()),
        ("Homebrew's postgresql@*/bin", || {
            HOMEBREW.iter().flat_map(|opt| versions(Path::new(opt), "postgresql@")).collect()
        }),
    ];
    let found = places.iter().flat_map(|(_, folders)| folders()).find(|folder| missing(folder).is_none());
    let found = found
        .ok_or_else(|| Error::NotFound { looked_in: places.iter().map(|(name, _)| (*name).to_owned()).collect() })?;
    absolute(&found)
}

fn check(folder: &Path, given_by: &'static str) -> Result<PathBuf, Error> {
    if let Some(missing) = missing(folder) {
        return Err(Error::WrongFolder { folder: folder.to_owned(), given_by, missing });
    }
    absolute(folder)
}

/// The programs are run from another working directory.
fn absolute(folder: &Path) -> Result<PathBuf, Error> {
    fs::canonicalize(folder).map_err(Error::io("find", folder))
}

/// The first program a folder lacks.
fn missing(folder: &Path) -> Option<&'static str> {
    let executable = |program: &&str| {
        fs::metadata(folder.join(program)).is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
    };
    PROGRAMS.into_iter().find(|program| !executable(program))
}

/// The `bin` folders of `parent/<prefix><version>`, the newest version first.
fn versions(parent: &Path, prefix: &str) -> Vec<PathBuf> {
    let mut found: Vec<(Vec<u32>, PathBuf)> = fs::read_dir(parent)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            Some((version(entry.file_name().to_str()?.strip_prefix(prefix)?)?, entry.path().join("bin")))
        })
        .collect();
    found.sort();
    found.into_iter().rev().map(|(_, folder)| folder).collect()
}

/// `9.6` and `16` as numbers, so that 16 comes after 9.6.
fn version(text: &str) -> Option<Vec<u32>> {
    text.split('.').map(|part| part.parse().ok()).collect()
}

fn pg_config() -> Option<PathBuf> {
    let output = Command::new("pg_config").arg("--bindir").stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
    let folder = String::from_utf8(output.stdout).ok()?;
    (output.status.success() && !folder.trim().is_empty()).then(|| PathBuf::from(folder.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn newest_version_comes_first() -> std::io::Result<()> {
        let parent = tempfile::tempdir()?;
        for name in ["9.6", "16", "15", "common", "16.1"] {
            fs::create_dir(parent.path().join(name))?;
        }
        let names: Vec<PathBuf> = ["16.1", "16", "15", "9.6"].map(|name| parent.path().join(name).join("bin")).into();
        assert_eq!(versions(parent.path(), ""), names);
        Ok(())
    }
}
