//! What was measured on.

use std::fs;
use std::process::Command;

use anyhow::Result;
use serde::{Deserialize, Serialize};

use crate::{
    program::{repository, timed},
    server::Server,
};

/// The machine and its programs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Machine {
    pub(crate) processor: String,
    pub(crate) cores: usize,
    pub(crate) memory_gb: u64,
    pub(crate) system: String,
    pub(crate) postgres: String,
    pub(crate) python: String,
    pub(crate) rust: String,
    /// The commit, with `+` where files were changed since.
    pub(crate) commit: String,
}

impl Machine {
    /// Looks at this one. What can't be found out is left empty.
    pub(crate) fn look() -> Self {
        let memory_kb: u64 =
            field("/proc/meminfo", "MemTotal").split(' ').next().and_then(|kb| kb.parse().ok()).unwrap_or(0);
        let changed = if say("git", &["status", "--porcelain", "--untracked-files=no"]).is_empty() { "" } else { "+" };
        Self {
            processor: field("/proc/cpuinfo", "model name"),
            cores: std::thread::available_parallelism().map_or(0, Into::into),
            memory_gb: memory_kb.div_ceil(1024 * 1024),
            system: say("uname", &["-sr"]),
            postgres: Server::start("16MB", &[]).map(|server| server.version().to_owned()).unwrap_or_default(),
            python: say("python3", &["--version"]),
            rust: say("rustc", &["--version"]),
            commit: say("git", &["rev-parse", "--short", "HEAD"]) + changed,
        }
    }
}

/// The first value of a name in a file of `name : value` lines.
pub(crate) fn field(file: &str, name: &str) -> String {
    let text = fs::read_to_string(file).unwrap_or_default();
    let values = text.lines().filter_map(|line| line.split_once(':')).filter(|(key, _)| key.trim() == name);
    values.map(|(_, value)| value.trim().to_owned()).next().unwrap_or_default()
}

/// Seconds of a processor that a process used so far, and its children that have ended, to 0.01.
pub(crate) fn processor_seconds(process: u32) -> Result<f64> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat"))?;
    // After the name, which stands in parentheses and may hold anything: the 12th to 15th are its own and its children's user and system time.
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    let ticks: f64 = fields.skip(11).take(4).filter_map(|field| field.parse::<f64>().ok()).sum();
    Ok(ticks / 100.0)
}

fn say(program: &str, arguments: &[&str]) -> String {
    let mut command = Command::new(program);
    command.args(arguments).current_dir(repository());
    timed(command).map(|(text, _)| text.trim().to_owned()).unwrap_or_default()
}
