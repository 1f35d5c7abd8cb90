//! The engine against real PostgreSQL.

mod changes;
mod control;
mod dba;
mod emptied;
mod even;
mod fence;
mod findings;
mod injection;
mod losses;
mod oracle;
mod own_sql;
mod partitions;
mod pooler;
mod property;
mod prune;
mod rejects;
mod resume;
mod runs;
mod skip;
mod split;
pub mod tls;
mod traps;
mod types;
mod unchanged;
mod verdict;
mod watermark;
