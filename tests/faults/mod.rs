//! Faults at random moments and at every named point of a chunk's life: nothing is lost, nothing is applied twice, and the log table tells the truth.
//!
//! `STAGEMILL_FAULTS` sets how many are injected (`make faults`), `STAGEMILL_SEED` which; a failure prints its seed. The program that is
//! harmed is the real `stagemill`, named by `STAGEMILL_BIN` or built beside the tests.

mod disk;
mod fault;
mod people;
pub mod proxy;
mod scene;
mod suite;
pub mod workload;

/// Faults in a plain `cargo test`.
const FAULTS: u32 = 40;

#[test]
fn whatever_breaks_nothing_is_lost_and_nothing_is_applied_twice() {
    let from_environment = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let wanted = from_environment("STAGEMILL_FAULTS").and_then(|n| u32::try_from(n).ok()).unwrap_or(FAULTS);
    let seed = from_environment("STAGEMILL_SEED").unwrap_or_else(|| fastrand::u64(..));
    println!("seed {seed}");
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let table = runtime.block_on(suite::run(wanted, seed));
    println!("{table}");
}
