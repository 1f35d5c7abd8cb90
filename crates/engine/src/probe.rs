//! Questions to the server that change nothing, asked under the settings that a run's chunks will have.

use tokio_postgres::Row;

use crate::{
    failure::Failure,
    pg::{Connection, Param},
    settings::{self, Settings},
};

/// Planning has no deadline of its own; a question that takes longer than this is a question too many.
const LONGEST: std::time::Duration = std::time::Duration::from_secs(600);

/// Asks one question in a read-only transaction of its own, so that an error spoils nothing.
///
/// # Errors
/// What the server or the connection says.
pub async fn ask(
    connection: &Connection,
    settings: &Settings,
    sql: &str,
    params: &[Param<'_>],
) -> Result<Vec<Row>, Failure> {
    let begin = format!("BEGIN ISOLATION LEVEL READ COMMITTED READ ONLY;\n{}", settings::set_local(settings, LONGEST));
    let answered = match connection.batch(&begin).await {
        Ok(_) => connection.query(sql, params).await,
        Err(refused) => Err(refused),
    };
    connection.end(answered).await
}

/// Asks a question whose answer is one row.
///
/// # Errors
/// What the server or the connection says, or that there was no row.
pub async fn ask_one(
    connection: &Connection,
    settings: &Settings,
    sql: &str,
    params: &[Param<'_>],
) -> Result<Row, Failure> {
    let rows = ask(connection, settings, sql, params).await?;
    let none = || Failure::new(crate::failure::Class::Internal, "a question to the catalog had no answer");
    rows.into_iter().next().ok_or_else(none)
}
