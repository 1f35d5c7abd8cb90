//! One session, with unnamed statements only: behind a transaction pooler a named one belongs to somebody else's session.

use std::time::Duration;

use tokio_postgres::{
    Client, Error, Row, SimpleQueryMessage,
    tls::TlsStream,
    types::{ToSql, Type},
};

use super::failure;
use crate::failure::{Class, Failure};

/// `server_version_num` of the oldest server: TID range scans and `client_connection_check_interval` came with 14.
const OLDEST: i32 = 140_000;

/// A parameter and its type, so that no round trip is spent on asking.
pub type Param<'a> = (&'a (dyn ToSql + Sync), Type);

/// A session.
#[derive(Debug)]
pub struct Connection {
    client: Client,
}

impl Connection {
    pub(super) fn start<S, T>(
        connected: Result<(Client, tokio_postgres::Connection<S, T>), Error>,
    ) -> Result<Self, Error>
    where
        S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
        T: TlsStream + Unpin + Send + 'static,
    {
        let (client, mut connection) = connected?;
        tokio::spawn(async move {
            // Asked for message by message: awaited as a whole it logs the server's notices, in which a trigger can say anything.
            while let Some(message) = std::future::poll_fn(|context| connection.poll_message(context)).await {
                if let Err(error) = message {
                    // Whoever uses the client gets the error too, and reports it there.
                    tracing::debug!(failure = %failure(&error), "a connection ended");
                    break;
                }
            }
        });
        Ok(Self { client })
    }

    pub(super) async fn prepare_session(&self, idle_limit: Option<Duration>) -> Result<(), Failure> {
        let row = self.query_one("SELECT pg_catalog.current_setting('server_version_num')::int4", &[]).await?;
        refuse_old(row.get(0))?;
        // Without the check an orphaned statement ran on for 7.5 of its 8 seconds; keepalives find peers that vanished. Linux goes by the user
        // timeout instead of the count where both are set, and looks only when a probe is due: with 30 s they were there for longer than that.
        let mut wishes = vec![
            "SET client_connection_check_interval = '500ms'".to_owned(),
            "SET tcp_keepalives_idle = 10".to_owned(),
            "SET tcp_keepalives_interval = 5".to_owned(),
            "SET tcp_keepalives_count = 3".to_owned(),
            "SET tcp_user_timeout = '20s'".to_owned(),
        ];
        wishes.extend(idle_limit.map(|limit| format!("SET idle_session_timeout = '{}s'", limit.as_secs())));
        for wish in wishes {
            if let Err(refused) = self.batch(&wish).await {
                if refused.class == Class::ConnectionLost {
                    return Err(refused);
                }
                tracing::debug!(failure = %refused, "{wish} was refused; going on without");
            }
        }
        Ok(())
    }

    /// Whether the session is over.
    pub fn is_closed(&self) -> bool {
        self.client.is_closed()
    }

    /// Runs one statement and returns its rows.
    ///
    /// # Errors
    /// What the server or the connection says.
    pub async fn query(&self, sql: &str, params: &[Param<'_>]) -> Result<Vec<Row>, Failure> {
        self.client.query_typed(sql, params).await.map_err(|error| failure(&error))
    }

    /// Runs one statement that returns at most one row.
    ///
    /// # Errors
    /// What the server or the connection says.
    pub async fn query_opt(&self, sql: &str, params: &[Param<'_>]) -> Result<Option<Row>, Failure> {
        Ok(self.query(sql, params).await?.into_iter().next())
    }

    /// Runs one statement that returns a row.
    ///
    /// # Errors
    /// What the server or the connection says, or that there was no row.
    pub async fn query_one(&self, sql: &str, params: &[Param<'_>]) -> Result<Row, Failure> {
        let row = self.query_opt(sql, params).await?;
        row.ok_or_else(|| Failure::new(Class::Internal, "a statement of the ledger returned no row"))
    }

    /// Runs one statement without parameters and returns how many rows it reports.
    ///
    /// # Errors
    /// What the server or the connection says.
    pub async fn execute(&self, sql: &str) -> Result<u64, Failure> {
        self.client.execute_typed(sql, &[]).await.map_err(|error| failure(&error))
    }

    /// Runs statements without parameters, in one round trip.
    ///
    /// # Errors
    /// What the server or the connection says.
    pub async fn batch(&self, sql: &str) -> Result<Vec<SimpleQueryMessage>, Failure> {
        self.client.simple_query(sql).await.map_err(|error| failure(&error))
    }

    /// Begins a transaction on the ledger. What a role has set as its `statement_timeout`, for people's queries mostly, would end the writing of
    /// very many chunks as if somebody had cancelled it.
    ///
    /// # Errors
    /// What the server or the connection says.
    pub async fn begin(&self) -> Result<(), Failure> {
        self.batch("BEGIN; SET LOCAL statement_timeout = '600s'").await.map(|_| ())
    }

    /// Commits the open transaction when `result` is Ok, else rolls it back. COMMIT is sent alone: a client killed before it must leave
    /// nothing behind that commits.
    ///
    /// # Errors
    /// `result`'s, or the failure of COMMIT.
    pub async fn end<T>(&self, result: Result<T, Failure>) -> Result<T, Failure> {
        match result {
            Ok(value) => {
                self.batch("COMMIT").await?;
                Ok(value)
            }
            Err(failure) => {
                if let Err(second) = self.batch("ROLLBACK").await {
                    tracing::debug!(failure = %second, "rolling back failed; the server does it when the session ends");
                }
                Err(failure)
            }
        }
    }
}

/// Refuses servers that lack what stagemill relies on.
fn refuse_old(server_version_num: i32) -> Result<(), Failure> {
    if server_version_num >= OLDEST {
        return Ok(());
    }
    let text = format!("the server is PostgreSQL {}; stagemill needs 14 or newer", server_version_num / 10_000);
    Err(Failure::new(Class::Configuration, text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_older_than_14_is_refused_by_its_version() {
        assert_eq!(refuse_old(140_000), Ok(()));
        let refused = refuse_old(130_023).unwrap_err();
        assert!(refused.message().starts_with("the server is PostgreSQL 13;"), "{refused}");
    }
}
