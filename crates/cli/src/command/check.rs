//! `stagemill check`: everything that is wrong with a job, or doubtful.

use serde_json::json;
use stagemill_engine::{check, finding::Finding};

use crate::{
    args::{Changes, JobArgs},
    exit::{CliError, Exit},
    jobfile, server, table,
    world::{Stream, World},
};

pub(crate) async fn run(args: JobArgs, world: &World) -> Result<Exit, CliError> {
    // A file that can't be read as a job needs no server to say so.
    let findings = match find(&args, world).await {
        Err(CliError::Findings { findings, .. }) => findings,
        other => other?,
    };
    let ok = !Finding::any_error(&findings);
    if args.json {
        world.print_json(&json!({ "job": args.job, "ok": ok, "findings": findings }))?;
    } else if findings.is_empty() {
        world.print(&format!("job {}: nothing found, it can run", args.job))?;
    } else {
        let verdict = if ok { "it can run" } else { "it can't run" };
        world.print(&format!("job {}: {verdict}\n{}", args.job, table::findings(&findings, Stream::Out)))?;
    }
    Ok(if ok { Exit::Done } else { Exit::BadJob })
}

async fn find(args: &JobArgs, world: &World) -> Result<Vec<Finding>, CliError> {
    if jobfile::is_file(&args.job) {
        jobfile::read(args.job.as_ref())?;
    }
    let server = server::server(&world.connect)?;
    let job = jobfile::load(&args.job, Changes::default(), &server).await?;
    let connection = server::connect(&server).await?;
    Ok(check::thoroughly(&connection, &job).await?.findings)
}
