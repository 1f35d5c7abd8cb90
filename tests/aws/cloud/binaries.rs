//! The functions' release binaries.

use super::function::FunctionName;
use super::repository;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

/// The folder of the functions' binaries: what `STAGEMILL_FUNCTIONS` names (an absolute path), else they are built now, once, as they are
/// shipped. That takes minutes when nothing is built yet, so the Makefile does it before the tests.
pub fn binaries() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| {
        let folder = std::env::var_os("STAGEMILL_FUNCTIONS").map_or_else(build, PathBuf::from);
        let missing = FunctionName::ALL.into_iter().find(|function| !folder.join(function.name()).exists());
        assert_eq!(missing, None, "{} has no binary of this function", folder.display());
        folder
    })
}

fn build() -> PathBuf {
    let root = repository();
    let mut cargo = Command::new(option_env!("CARGO").unwrap_or("cargo"));
    cargo.current_dir(&root).args(["build", "--release", "--message-format=json-render-diagnostics"]);
    for function in FunctionName::ALL {
        cargo.args(["-p", function.name()]);
    }
    let output = cargo.stderr(Stdio::inherit()).output().expect("cargo can be run");
    assert!(output.status.success(), "the functions do not compile");
    let messages = String::from_utf8_lossy(&output.stdout);
    let executable = messages.lines().find_map(|line| {
        let message: serde_json::Value = serde_json::from_str(line).ok()?;
        message["executable"].as_str().map(PathBuf::from)
    });
    let executable = executable.expect("cargo names the binaries it made");
    executable.parent().expect("a file is in a folder").to_owned()
}
