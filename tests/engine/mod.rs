//! The engine against real PostgreSQL.

mod fence;
mod findings;
mod oracle;
mod runs;
mod tls;
