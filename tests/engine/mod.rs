//! The engine against real PostgreSQL.

mod dba;
mod fence;
mod findings;
mod oracle;
mod property;
mod runs;
mod tls;
mod traps;
