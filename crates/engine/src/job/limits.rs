//! What a run must not push the server over.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Limits that hold a run back while one is exceeded: chunks in flight finish, none is started, and afterwards the run goes on slower.
/// Sessions are those of others: the run's own do not count.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Held back while more sessions of others than this are active.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub active_sessions: Option<u32>,
    /// Held back while more sessions of others than this wait for a lock.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub waiting_locks: Option<u32>,
    /// Held back while a replica is more seconds behind than this.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replica_lag_seconds: Option<u32>,
    /// Held back while a transaction of others has been open for more seconds than this.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub transaction_age_seconds: Option<u32>,
    /// Held back while fewer connections than this are left for ordinary roles.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub free_connections: Option<u32>,
    /// Held back while this SELECT of one boolean answers true (or fails); asked in a read-only transaction.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sql: Option<String>,
    /// The run is stopped when limits have held it back for so many minutes without a pause; never when left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 10_080))]
    pub abort_after_minutes: Option<u32>,
}

impl Limits {
    /// Whether there is any limit.
    pub const fn is_none(&self) -> bool {
        !self.looks_at_sessions()
            && self.replica_lag_seconds.is_none()
            && self.free_connections.is_none()
            && self.sql.is_none()
    }

    /// Whether it needs to see what sessions of other roles do; without a privilege not even their kind can be seen.
    pub const fn looks_at_sessions(&self) -> bool {
        self.active_sessions.is_some()
            || self.waiting_locks.is_some()
            || self.transaction_age_seconds.is_some()
            || self.free_connections.is_some()
    }
}
