//! An update whose sessions wait for reads most of the time, as on storage behind a network.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::Effort;
use crate::{
    contestant::Contestant,
    program::{benches, timed},
    race::{Course, Race},
    server::Server,
    workload::{Operation, Secondary, Size, make_target, make_template},
};

/// How long each read of a page waits.
const WAIT_US: u32 = 500;

/// A cache much smaller than the target; the stage, which was just loaded, has room in it. With 128 MB its rows, in random order, are read again and again.
const CACHE: &str = "256MB";

/// Beside the published setting; the best of these is the Python program's best.
const PYTHON: [(u32, u32); 4] = [(32, 20_000), (32, 10_000), (32, 5_000), (64, 5_000)];

pub(crate) fn run(effort: Effort, races: &mut Vec<Race>) -> Result<()> {
    let shim = Shim::build()?;
    let (library, flag) = (shim.library.display().to_string(), shim.flag.display().to_string());
    let wait = WAIT_US.to_string();
    let environment =
        [("LD_PRELOAD", library.as_str()), ("SLOW_READS_US", wait.as_str()), ("SLOW_READS_WHILE", flag.as_str())];
    let server = Server::start(CACHE, &environment)?;
    let slow = |on: bool| shim.set(on);
    let target = if effort.quick { 200_000 } else { 4_000_000 };
    let sizes =
        if effort.quick { [20_000, 60_000] } else { [400_000, 1_000_000] }.map(|staged| Size { staged, target });
    eprintln!("read-bound: filling {target} target rows");
    make_target(&server, "base", sizes[0], Secondary::Near)?;
    let template = make_template(&server, "base", Operation::Update, sizes[0])?;
    let course = Course {
        server: &server,
        template: &template,
        operation: Operation::Update,
        size: sizes[0],
        warm: false,
        slow: &slow,
    };
    let fixed = [8, 16, 32, 64].map(|n| Contestant::Stagemill { parallelism: Some(n) });
    let contestants: Vec<_> = fixed
        .into_iter()
        .chain([
            Contestant::Stagemill { parallelism: None },
            Contestant::Limit { sessions: 32 },
            Contestant::Limit { sessions: 64 },
            Contestant::Threads { threads: 20, rows: 50_000 },
        ])
        .collect();
    // They take minutes: one lap. The sorted statement, which reads along the index, takes twice as long again as the plain one, and is left out.
    let once: Vec<_> = [Contestant::Single, Contestant::Procedure]
        .into_iter()
        .chain([1, 2, 4].map(|n| Contestant::Stagemill { parallelism: Some(n) }))
        .collect();
    races.push(course.race("update, read-bound", &contestants, &once, effort.repetitions)?);
    server.drop_database(&template)?;
    let template = make_template(&server, "base", Operation::Update, sizes[1])?;
    let course = Course { template: &template, size: sizes[1], ..course };
    races.push(against_python(&course, effort)?);
    server.drop_database(&template)?;
    make_target(&server, "far", sizes[0], Secondary::Far)?;
    let template = make_template(&server, "far", Operation::Update, sizes[0])?;
    let course = Course { template: &template, size: sizes[0], ..course };
    let contestants = [
        Contestant::Single,
        Contestant::Limit { sessions: 64 },
        Contestant::Stagemill { parallelism: Some(64) },
        Contestant::Stagemill { parallelism: None },
    ];
    races.push(course.race("update, read-bound, secondary index in no order", &contestants, &[], 1)?);
    Ok(())
}

/// So many staged rows that all threads of the published setting have work.
fn against_python(course: &Course<'_>, effort: Effort) -> Result<Race> {
    let (best, tried) = course.best(&PYTHON.map(|(threads, rows)| Contestant::Threads { threads, rows }))?;
    let contestants =
        [Contestant::Threads { threads: 20, rows: 50_000 }, best, Contestant::Stagemill { parallelism: None }];
    let race =
        course.race("update of 1M staged rows, read-bound", &contestants, &[], effort.repetitions.div_ceil(2))?;
    Ok(Race { tried, ..race })
}

/// The library that makes reads slow, and the file that switches it on.
struct Shim {
    library: PathBuf,
    flag: PathBuf,
    _folder: tempfile::TempDir,
}

impl Shim {
    /// Compiles it into a folder that the server's user may enter.
    fn build() -> Result<Self> {
        let folder = tempfile::tempdir()?;
        fs::set_permissions(folder.path(), Permissions::from_mode(0o755))?;
        let library = folder.path().join("slow_reads.so");
        let mut compile = Command::new("cc");
        compile.args(["-O2", "-Wall", "-shared", "-fPIC", "-o"]).arg(&library).arg(source()).arg("-ldl");
        timed(compile).context("the library that makes reads slow can't be compiled")?;
        Ok(Self { library, flag: folder.path().join("slow"), _folder: folder })
    }

    fn set(&self, on: bool) -> Result<()> {
        if on {
            fs::write(&self.flag, "")?;
        } else if Path::exists(&self.flag) {
            fs::remove_file(&self.flag)?;
        }
        Ok(())
    }
}

fn source() -> PathBuf {
    benches().join("shim/slow_reads.c")
}
