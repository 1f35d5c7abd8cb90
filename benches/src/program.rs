//! Programs that are measured, and those that help.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// A program's file.
#[derive(Debug, Clone)]
pub(crate) struct Program(PathBuf);

/// The repository's root.
pub(crate) fn repository() -> PathBuf {
    // This package lies directly under it.
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new(".")).to_owned()
}

/// This package's folder.
pub(crate) fn benches() -> PathBuf {
    repository().join("benches")
}

impl Program {
    /// A release program of this workspace.
    pub(crate) fn release(name: &str) -> Result<Self> {
        let path = repository().join("target/release").join(name);
        if !path.is_file() {
            bail!("{} is not there: `make bench` builds it", path.display());
        }
        Ok(Self(path))
    }

    /// `stagemill`.
    pub(crate) fn stagemill() -> Result<Self> {
        Self::release("stagemill")
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// A command for a database, in this folder if any: log files are written there.
    pub(crate) fn command(&self, arguments: &[&str], url: &str) -> Command {
        let mut command = Command::new(&self.0);
        command.args(arguments).env("DATABASE_URL", url);
        command
    }

    /// Runs it to its end.
    pub(crate) fn run(&self, arguments: &[&str], url: &str) -> Result<String> {
        let (output, _) = timed(self.command(arguments, url))?;
        Ok(output)
    }
}

/// Runs a command to its end, and says what it printed and how long it took, its start included.
pub(crate) fn timed(mut command: Command) -> Result<(String, Duration)> {
    command.stdin(Stdio::null());
    let began = Instant::now();
    let output = command.output().with_context(|| format!("{} can't be started", command.get_program().display()))?;
    let took = began.elapsed();
    if !output.status.success() {
        bail!("{}", failed(&command, &output));
    }
    Ok((String::from_utf8(output.stdout)?, took))
}

fn failed(command: &Command, output: &Output) -> String {
    let texts = [&output.stderr, &output.stdout].map(|text| String::from_utf8_lossy(text).trim().to_owned());
    format!("{} failed ({}): {}", command.get_program().display(), output.status, texts.join("\n"))
}

/// The Python that has psycopg, in an environment under target/.
pub(crate) fn python() -> Result<Program> {
    let folder = repository().join("target/bench-python");
    let python = folder.join("bin/python");
    let requirements = benches().join("peers/requirements.txt");
    if !folder.join("complete").is_file() {
        let mut create = Command::new("python3");
        create.args(["-m", "venv"]).arg(&folder);
        timed(create)?;
        let mut install = Command::new(&python);
        install.args(["-m", "pip", "install", "--quiet", "--no-deps", "--requirement"]).arg(&requirements);
        timed(install)?;
        std::fs::write(folder.join("complete"), "")?;
    }
    Ok(Program(python))
}
