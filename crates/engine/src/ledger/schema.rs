//! The ledger's schema: numbered migrations, applied by `stagemill init`.
//!
//! No migration library: those looked at take no lock of their own, and two `init`s at once raced to 23505.

use tokio_postgres::types::Type;

use crate::{
    failure::{Class, Failure},
    pg::Connection,
};

/// The migrations, in order; version n is the n-th.
const MIGRATIONS: [&str; 2] =
    [include_str!("../../migrations/0001_ledger.sql"), include_str!("../../migrations/0002_live_control.sql")];

/// The version that this program reads and writes.
pub const VERSION: i32 = MIGRATIONS.len() as i32;

/// Held while migrating: `CREATE SCHEMA IF NOT EXISTS` alone is no protection against a second one.
const MIGRATION_LOCK: i64 = super::lock_key(0);

/// Creates the ledger or brings it up to date. Returns the version found, 0 for none.
///
/// # Errors
/// When the schema is newer than this program, or the role may not create it.
pub async fn migrate(connection: &Connection) -> Result<i32, Failure> {
    connection.begin().await?;
    let result = migrate_in_transaction(connection).await;
    connection.end(result).await.map_err(|failure| match failure.sqlstate.as_deref() {
        Some("42501") => {
            failure.while_doing("creating the ledger needs CREATE on the database, or on its schema `stagemill`")
        }
        _ => failure,
    })
}

async fn migrate_in_transaction(connection: &Connection) -> Result<i32, Failure> {
    connection.query("SELECT pg_catalog.pg_advisory_xact_lock($1)", &[(&MIGRATION_LOCK, Type::INT8)]).await?;
    let found = version(connection).await?;
    if found > VERSION {
        return Err(newer(found));
    }
    if found == 0 {
        connection
            .batch(
                "CREATE SCHEMA IF NOT EXISTS stagemill;
                 CREATE TABLE stagemill.migration (
                     version integer PRIMARY KEY, applied_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp())",
            )
            .await?;
    }
    for (number, sql) in (1..).zip(MIGRATIONS).skip(usize::try_from(found).unwrap_or(0)) {
        connection.batch(sql).await?;
        connection.query("INSERT INTO stagemill.migration (version) VALUES ($1)", &[(&number, Type::INT4)]).await?;
    }
    Ok(found)
}

/// Checks that the ledger is there, in the version that this program knows.
///
/// # Errors
/// [`Class::Ledger`], with what to type.
pub async fn require(connection: &Connection) -> Result<(), Failure> {
    match version(connection).await? {
        VERSION => Ok(()),
        0 => Err(Failure::new(
            Class::Ledger,
            "this database has no ledger (schema `stagemill`): run `stagemill init` first",
        )),
        found if found > VERSION => Err(newer(found)),
        found => Err(Failure::new(
            Class::Ledger,
            format!(
                "the ledger is at version {found}, this program needs {VERSION}: run `stagemill init` to bring it up to date"
            ),
        )),
    }
}

fn newer(found: i32) -> Failure {
    Failure::new(
        Class::Ledger,
        format!("the ledger is at version {found}, newer than this program's {VERSION}: install the newer stagemill"),
    )
}

async fn version(connection: &Connection) -> Result<i32, Failure> {
    let there = connection.query_one("SELECT pg_catalog.to_regclass('stagemill.migration') IS NOT NULL", &[]).await?;
    if !there.get::<_, bool>(0) {
        return Ok(0);
    }
    let row = connection.query_one("SELECT pg_catalog.max(version) FROM stagemill.migration", &[]).await?;
    Ok(row.get::<_, Option<i32>>(0).unwrap_or(0))
}
