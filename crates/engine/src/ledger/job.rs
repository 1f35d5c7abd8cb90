//! The job table: jobs by name, for executions that name one.

use tokio_postgres::types::Type;

use crate::{
    failure::{Class, Failure},
    finding,
    job::Job,
    pg::Connection,
};

/// A line of the job table.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Listed {
    /// The job's name.
    pub name: String,
    /// When it was put there, ISO 8601.
    pub updated_at: String,
    /// The role that put it there.
    pub updated_by: String,
}

/// Stores a job, in the place of one of the same name.
///
/// # Errors
/// What the server or the connection says.
pub async fn put(connection: &Connection, job: &Job) -> Result<(), Failure> {
    let sql = "INSERT INTO stagemill.job (name, spec) VALUES ($1, $2)
               ON CONFLICT (name) DO UPDATE SET spec = excluded.spec, updated_at = pg_catalog.clock_timestamp(), updated_by = CURRENT_USER";
    connection.query(sql, &[(&job.name, Type::TEXT), (&job.to_value(), Type::JSONB)]).await?;
    Ok(())
}

/// Reads a job by name.
///
/// # Errors
/// [`Class::BadJob`] when there is none of that name, or it can't be read by this version.
pub async fn get(connection: &Connection, name: &str) -> Result<Job, Failure> {
    let row = connection.query_opt("SELECT spec FROM stagemill.job WHERE name = $1", &[(&name, Type::TEXT)]).await?;
    let Some(row) = row else {
        return Err(unknown(name));
    };
    Job::from_value(row.get(0)).map_err(|findings| {
        Failure::new(
            Class::BadJob,
            format!("job {name:?} of the job table can't be used: {}", finding::join(&findings)),
        )
    })
}

fn unknown(name: &str) -> Failure {
    Failure::new(
        Class::BadJob,
        format!(
            "there is no job {name:?} in the job table: `stagemill job list` shows those there are, `stagemill job put FILE` adds one"
        ),
    )
}

/// Removes a job. Its runs keep the job that they ran.
///
/// # Errors
/// [`Class::BadJob`] when there is none of that name.
pub async fn remove(connection: &Connection, name: &str) -> Result<(), Failure> {
    let sql = "DELETE FROM stagemill.job WHERE name = $1 RETURNING name";
    let removed = connection.query_opt(sql, &[(&name, Type::TEXT)]).await?;
    removed.map(|_| ()).ok_or_else(|| unknown(name))
}

/// Lists the jobs.
///
/// # Errors
/// What the server or the connection says.
pub async fn list(connection: &Connection) -> Result<Vec<Listed>, Failure> {
    let sql = "SELECT name, pg_catalog.to_char(updated_at, 'YYYY-MM-DD\"T\"HH24:MI:SSOF'), updated_by FROM stagemill.job ORDER BY name";
    let rows = connection.query(sql, &[]).await?;
    Ok(rows.iter().map(|row| Listed { name: row.get(0), updated_at: row.get(1), updated_by: row.get(2) }).collect())
}
