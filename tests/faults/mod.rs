//! Faults at random moments and at every named point of a chunk's life: nothing is lost, nothing is applied twice, and the log table tells the truth.
//!
//! `STAGEMILL_FAULTS` sets how many are injected (`make faults`), `STAGEMILL_SEED` which; a failure prints its seed. Harmed are the
//! real `stagemill`, named by `STAGEMILL_BIN` or built beside the tests, and the functions' binaries under the real state machine.

mod disk;
mod fault;
mod functions;
mod people;
pub mod program;
pub mod proxy;
mod scene;
mod silence;
mod suite;
pub mod workload;

use scene::Scene;

/// How many faults are injected, of those that `make faults` asks for; and the seed that says which.
fn asked(short: u32, share: f64) -> (u32, u64) {
    let from_environment = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let wanted = from_environment("STAGEMILL_FAULTS").map_or(short, |wanted| (wanted as f64 * share).ceil() as u32);
    let seed = from_environment("STAGEMILL_SEED").unwrap_or_else(|| fastrand::u64(..));
    println!("seed {seed}");
    (wanted, seed)
}

fn wait_for(suite: impl Future<Output = suite::Table>) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    println!("{}", runtime.block_on(suite));
}

#[test]
fn whatever_breaks_nothing_is_lost_and_nothing_is_applied_twice() {
    let (wanted, seed) = asked(40, 0.9);
    wait_for(async {
        let scene = Scene::start().await;
        suite::run(&program::Program::new(), &scene, wanted, seed).await
    });
}

#[test]
fn whatever_breaks_under_the_state_machine_nothing_is_lost_and_nothing_is_applied_twice() {
    let (wanted, seed) = asked(8, 0.1);
    wait_for(async {
        let scene = Scene::start().await;
        suite::run(&functions::Functions::start(&scene).await, &scene, wanted, seed).await
    });
}
