//! The job that a command was given: a file, or a name in the job table.

use std::{fs, io, path::Path};

use stagemill_engine::{finding::Finding, job::Job, ledger, pg::Server};

use crate::{args::Changes, exit::CliError, server};

/// Reads the job that was named. A path that ends in `.json` or exists is a file; anything else is a name in the job table.
pub(crate) async fn load(named: &str, changes: Changes, server: &Server) -> Result<Job, CliError> {
    let job = if is_file(named) { read(Path::new(named))? } else { from_table(named, server).await? };
    change(job, changes, named)
}

/// Whether the job is named by a file.
pub(crate) fn is_file(named: &str) -> bool {
    let path = Path::new(named);
    path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("json")) || path.is_file()
}

/// Reads a job file.
pub(crate) fn read(path: &Path) -> Result<Job, CliError> {
    let text = fs::read_to_string(path).map_err(|error| {
        let what = match error.kind() {
            io::ErrorKind::NotFound => {
                "there is no such file; give a job file, or the name of a job in the job table (`stagemill job list`)"
                    .into()
            }
            io::ErrorKind::InvalidData => "it is not UTF-8 text".into(),
            _ => error.to_string(),
        };
        CliError::Usage(format!("cannot read the job file {}: {what}", path.display()))
    })?;
    Job::parse(&text).map_err(|findings| refused(&path.display().to_string(), findings))
}

async fn from_table(name: &str, server: &Server) -> Result<Job, CliError> {
    let connection = server::connect(server).await?;
    let looked_up = async {
        ledger::schema::require(&connection).await?;
        ledger::job::get(&connection, name).await
    };
    looked_up.await.map_err(|failure| {
        CliError::from(
            failure.while_doing(&format!("no file {name:?} here, so it is a name in the job table of {server}")),
        )
    })
}

/// The job with what the command line changes, held to the same ranges as the file.
pub(crate) fn change(mut job: Job, changes: Changes, named: &str) -> Result<Job, CliError> {
    job.parallelism = changes.parallelism.unwrap_or(job.parallelism);
    job.chunks.rows = changes.rows.unwrap_or(job.chunks.rows);
    Job::from_value(job.to_value()).map_err(|findings| refused(named, findings))
}

fn refused(named: &str, findings: Vec<Finding>) -> CliError {
    CliError::Findings { what: format!("job {named}"), findings }
}
