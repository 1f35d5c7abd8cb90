//! `stagemill job`: the job table.

mod diff;

use serde_json::json;
use stagemill_engine::ledger;

use crate::{
    args::JobCommand,
    exit::{CliError, Exit},
    jobfile, server, table,
    world::World,
};

pub(crate) async fn run(command: JobCommand, world: &World) -> Result<Exit, CliError> {
    match command {
        JobCommand::Put { file, json } => {
            let job = jobfile::read(&file)?;
            let (server, connection) = server::connect_with_ledger(&world.connect).await?;
            ledger::job::put(&connection, &job).await?;
            if json {
                world.print_json(&json!({ "job": job.name }))?;
            } else {
                world.print(&format!(
                    "{server}: job {} is stored\n  stagemill check {0}    checks it against this database\n  stagemill run {0}      runs it",
                    job.name
                ))?;
            }
        }
        JobCommand::List { json } => {
            let (_, connection) = server::connect_with_ledger(&world.connect).await?;
            let jobs = ledger::job::list(&connection).await?;
            if json {
                world.print_json(&jobs)?;
            } else if jobs.is_empty() {
                world.print("the job table is empty: `stagemill job put FILE` adds a job")?;
            } else {
                let mut table = table::new(["job", "stored at", "by"]);
                for job in jobs {
                    table.add_row(vec![job.name, job.updated_at, job.updated_by]);
                }
                world.print(&table.to_string())?;
            }
        }
        JobCommand::Show { name, .. } => {
            let (_, connection) = server::connect_with_ledger(&world.connect).await?;
            world.print_json(&ledger::job::get(&connection, &name).await?)?;
        }
        JobCommand::Diff { job, other, json } => return diff::run(&job, other.as_deref(), json, world).await,
        JobCommand::Rm { name, json } => {
            let (server, connection) = server::connect_with_ledger(&world.connect).await?;
            ledger::job::remove(&connection, &name).await?;
            if json {
                world.print_json(&json!({ "job": name, "removed": true }))?;
            } else {
                world.print(&format!(
                    "{server}: job {name} is removed; its runs stay in the log table (`stagemill status --job {name}`)"
                ))?;
            }
        }
    }
    Ok(Exit::Done)
}
