//! Questions to the server that change nothing, asked under the settings that a run's chunks will have.

use std::time::{Duration, Instant};

use tokio_postgres::{Row, types::Type};

use crate::{
    failure::{self, Class, Failure},
    ident::TableName,
    pg::{Connection, Param, catalog},
    settings::{self, Settings},
    table::Table,
};

/// Planning has no deadline of its own; a question that takes longer than this is a question too many.
pub(crate) const LONGEST: Duration = Duration::from_secs(600);

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
    let begin = begin(settings, LONGEST);
    let asked = Instant::now();
    let answered = match connection.batch(&begin).await {
        Ok(_) => connection.query(sql, params).await,
        Err(refused) => Err(refused),
    };
    match connection.end(answered).await {
        Err(failure) if failure.sqlstate.as_deref() == Some("57014") => {
            Err(failure.as_class(failure::cancelled(asked.elapsed(), LONGEST)))
        }
        Err(failure) => Err(of_a_write(connection, failure).await),
        answered => answered,
    }
}

/// What would write is refused here as on a standby, by the same SQLSTATE: there the connection is to the wrong server, here the question is wrong.
async fn of_a_write(connection: &Connection, failure: Failure) -> Failure {
    if failure.sqlstate.as_deref() != Some("25006") {
        return failure;
    }
    match connection.query_one("SELECT pg_catalog.pg_is_in_recovery()", &[]).await {
        Ok(row) if !row.get::<_, bool>(0) => failure.as_class(Class::BadJob),
        _ => failure,
    }
}

/// Asks a question that is worth no more than `limit`; `None` when there was no answer by then.
///
/// # Errors
/// What the server or the connection says.
pub async fn ask_within(
    connection: &Connection,
    settings: &Settings,
    limit: Duration,
    sql: &str,
) -> Result<Option<Vec<Row>>, Failure> {
    let answered = match connection.batch(&begin(settings, limit)).await {
        Ok(_) => connection.query(sql, &[]).await,
        Err(refused) => Err(refused),
    };
    match connection.end(answered).await {
        Err(late) if late.sqlstate.as_deref() == Some("57014") => Ok(None),
        Err(failure) => Err(of_a_write(connection, failure).await),
        Ok(rows) => Ok(Some(rows)),
    }
}

fn begin(settings: &Settings, limit: Duration) -> String {
    format!("BEGIN ISOLATION LEVEL READ COMMITTED READ ONLY;\n{}", settings::set_local_for_whole(settings, limit))
}

/// Reads a table from the catalog, named and described as the run's `search_path` has it.
///
/// # Errors
/// What the server or the connection says.
pub async fn table(connection: &Connection, settings: &Settings, name: &TableName) -> Result<Option<Table>, Failure> {
    let table = match connection.batch(&begin(settings, LONGEST)).await {
        Ok(_) => catalog::table(connection, name).await,
        Err(refused) => Err(refused),
    };
    connection.end(table).await
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
    let none = || Failure::new(Class::Internal, "a question to the catalog had no answer");
    rows.into_iter().next().ok_or_else(none)
}

/// Whether a time (ISO 8601) is longer ago than this, by the server's clock.
///
/// # Errors
/// When it is no time, or the server can't be asked.
pub async fn is_past(connection: &Connection, at: &str, ago: Duration) -> Result<bool, Failure> {
    let sql = "SELECT pg_catalog.clock_timestamp() - $1::text::timestamptz > $2 * interval '1 second'";
    let row = connection.query_one(sql, &[(&at, Type::TEXT), (&ago.as_secs_f64(), Type::FLOAT8)]).await?;
    Ok(row.get(0))
}
