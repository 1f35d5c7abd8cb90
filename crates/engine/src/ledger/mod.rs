//! The ledger: jobs, runs, rounds and chunks, in the schema `stagemill` of the database that holds stage and target.
//!
//! A chunk's ledger row is written in the transaction that changes the target, so whether a chunk was applied is never a guess.

pub mod by_hand;
pub mod chunk;
pub mod job;
pub mod prune;
pub mod reject;
pub mod run;
pub mod schema;
pub mod summary;
pub mod timeline;

/// The advisory lock of a run: work transactions hold it shared, whoever closes or takes over the run takes it alone, so that what is in
/// flight drains and nothing starts. The upper half tells stagemill's locks from others.
const fn lock_key(run: i64) -> i64 {
    (0x7374_6d6c_i64 << 32) | (run & 0xffff_ffff)
}
