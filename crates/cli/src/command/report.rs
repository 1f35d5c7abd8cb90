//! `stagemill report`: a run as one HTML page.

use std::{
    fs::OpenOptions,
    io::{ErrorKind, Write},
    path::{Path, PathBuf},
};

use stagemill_engine::{
    failure::Failure,
    ledger::{self, timeline::Timeline},
    pg::Connection,
};

use super::taken::{self, Life};
use crate::{
    args::ReportArgs,
    drive,
    exit::{CliError, Exit},
    report, server,
    world::World,
};

pub(crate) async fn run(args: ReportArgs, world: &World) -> Result<Exit, CliError> {
    // Before the work, not after it.
    let file = target(&args)?;
    let (_, connection) = server::connect_with_ledger(&world.connect).await?;
    let timeline = ledger::timeline::read(&connection, args.run).await?;
    if args.json {
        world.print_json(&report::facts_for_programs(&timeline))?;
        return Ok(Exit::Done);
    }
    let next = next(&connection, &timeline).await?;
    let written = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let page = report::page(&timeline, next.as_deref(), written)?;
    match file {
        None => world.print(&page)?,
        Some(file) => {
            let file = if file.as_os_str().is_empty() { named(&timeline) } else { file };
            write(&file, &page, args.force)?;
            world.print(&file.display().to_string())?;
        }
    }
    Ok(Exit::Done)
}

/// The file that was asked for; none for stdout, an empty path for one named by the job.
fn target(args: &ReportArgs) -> Result<Option<PathBuf>, CliError> {
    let Some(file) = &args.output else { return Ok(Some(PathBuf::new())) };
    if file.as_os_str() == "-" || args.json {
        return Ok(None);
    }
    if file.exists() && !args.force {
        return Err(is_there(file));
    }
    Ok(Some(file.clone()))
}

fn named(timeline: &Timeline) -> PathBuf {
    // A job's name holds nothing that a path could be led astray by.
    format!("{}_run_{}.html", timeline.run.job, timeline.run.run).into()
}

fn write(file: &Path, page: &str, force: bool) -> Result<(), CliError> {
    let mut options = OpenOptions::new();
    options.write(true).truncate(true).create(force).create_new(!force);
    options.open(file).and_then(|mut file| file.write_all(page.as_bytes())).map_err(|error| match error.kind() {
        ErrorKind::AlreadyExists => is_there(file),
        _ => CliError::Usage(format!(
            "cannot write the report to {}: {error}; -o FILE takes another place",
            file.display()
        )),
    })
}

fn is_there(file: &Path) -> CliError {
    CliError::Usage(format!("{} is there already: --force overwrites it, -o FILE takes another place", file.display()))
}

/// What to type next, where the run is not complete.
async fn next(connection: &Connection, timeline: &Timeline) -> Result<Option<String>, Failure> {
    let run = &timeline.run;
    let gone =
        run.status.is_open() && matches!(taken::life(&ledger::run::open_run(connection, run.run).await?), Life::Gone);
    Ok(drive::next(run, gone))
}
