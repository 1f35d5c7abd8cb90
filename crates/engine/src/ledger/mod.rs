//! The ledger: jobs, runs, rounds and chunks, in the schema `stagemill` of the database that holds stage and target.
//!
//! A chunk's ledger row is written in the transaction that changes the target, so whether a chunk was applied is never a guess.

pub mod by_hand;
pub mod chunk;
pub mod hold;
pub mod job;
pub mod pace;
pub mod prune;
pub mod reject;
pub mod run;
pub mod schema;
pub mod summary;
pub mod timeline;

/// The advisory lock of a run: work transactions hold it shared, whoever closes or takes over the run takes it alone, so that what is in
/// flight drains and nothing starts. The upper half tells stagemill's locks from others.
const fn lock_key(run: i64) -> i64 {
    (LOCK_SPACE << 32) | (run & 0xffff_ffff)
}

const LOCK_SPACE: i64 = 0x7374_6d6c;

/// The number of work transactions of the run `$1`: those that hold its lock shared. They end with their sessions, so it counts no worker
/// that died.
fn in_flight() -> String {
    format!(
        "(SELECT pg_catalog.count(*) FROM pg_catalog.pg_locks l
          WHERE l.locktype = 'advisory' AND l.objsubid = 1 AND l.classid = {LOCK_SPACE} AND l.objid = ($1 & 4294967295)::oid
            AND l.mode = 'ShareLock' AND l.granted
            AND l.database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database()))"
    )
}
