//! The sandbox's one connection.

use std::time::Duration;

use stagemill_engine::{failure::Failure, pg::Connection};
use tokio::sync::{Mutex, MutexGuard};

use crate::secret::Database;

/// A frozen sandbox's connection may be dead without a word: it has to answer within this.
const ANSWERS_WITHIN: Duration = Duration::from_secs(3);

/// A connection that outlives invocations.
pub struct Session {
    /// What is wrong with the environment is said when the first event can be answered: a function that ends before
    /// that is only `Runtime.ExitError` to the state machine.
    database: Result<Database, Failure>,
    connection: Mutex<Option<Connection>>,
}

/// The connection, for one invocation.
pub type Open<'a> = tokio::sync::MappedMutexGuard<'a, Connection>;

impl Session {
    /// A session on the database that the environment names; nothing is opened yet.
    pub async fn from_env() -> Self {
        Self { database: Database::from_env().await, connection: Mutex::new(None) }
    }

    /// The connection, alive: the last invocation's, or a new one.
    ///
    /// # Errors
    /// When the environment is incomplete, or the database can't be reached, or refuses.
    pub async fn open(&self) -> Result<Open<'_>, Failure> {
        let mut held = self.connection.lock().await;
        let connection = match held.take() {
            Some(connection) if is_alive(&connection).await => connection,
            _ => self.database.as_ref().map_err(Clone::clone)?.connect().await?,
        };
        // Put back at once: the guard hands it out, and a failed invocation leaves it to the next one's check.
        held.get_or_insert(connection);
        MutexGuard::try_map(held, Option::as_mut).map_err(|_| {
            Failure::new(stagemill_engine::failure::Class::Internal, "the connection that was just opened is gone")
        })
    }
}

/// Whether a session answers, and from a server that can be written to: after a failover it may be a reader's.
async fn is_alive(connection: &Connection) -> bool {
    // A transaction that an aborted invocation left open is not one to go on with.
    let question = async {
        connection.batch("ROLLBACK").await?;
        connection.query_one("SELECT NOT pg_catalog.pg_is_in_recovery()", &[]).await
    };
    !connection.is_closed()
        && matches!(tokio::time::timeout(ANSWERS_WITHIN, question).await, Ok(Ok(row)) if row.get::<_, bool>(0))
}
