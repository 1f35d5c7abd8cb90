//! Odd inputs for property tests, and the runner that feeds them.
//!
//! A plain `cargo test` feeds each property a short selection, the same each time. `STAGEMILL_FUZZ=N` feeds N times as many, which differ from run to
//! run (`make fuzz`); `STAGEMILL_SEED` repeats one. What fails is shrunk and printed: put it into `tests/fuzz/corpus`, which is replayed for good.

pub mod json;
pub mod sql;
pub mod text;

use std::{
    cell::Cell,
    time::{Duration, Instant},
};

use proptest::{
    strategy::Strategy,
    test_runner::{Config, RngAlgorithm, TestCaseError, TestRng, TestRunner},
};

/// Longer than any input takes on a loaded machine: what takes longer hangs, or would, were the input larger.
const PATIENCE: Duration = Duration::from_secs(5);

/// Feeds `usual` inputs, or `STAGEMILL_FUZZ` times as many, to a property that tells whether the input was accepted, and prints what was done.
///
/// # Panics
/// When the property does not hold for an input, which is shrunk first.
pub fn run<S: Strategy>(name: &str, usual: u32, inputs: S, property: impl Fn(S::Value) -> Result<bool, TestCaseError>)
where
    S::Value: Clone,
{
    let number = |variable: &str| std::env::var(variable).ok().and_then(|text| text.parse::<u64>().ok());
    let asked = number("STAGEMILL_FUZZ");
    let seed = number("STAGEMILL_SEED").unwrap_or_else(|| if asked.is_some() { fastrand::u64(..) } else { 0 });
    let cases = u32::try_from(u64::from(usual).saturating_mul(asked.unwrap_or(1).max(1))).unwrap_or(u32::MAX);
    let config = Config { cases, failure_persistence: None, max_shrink_iters: 5_000, ..Config::default() };
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let mut runner = TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &bytes));
    let accepted = Cell::new(0_u32);
    let began = Instant::now();
    let result = runner.run(&inputs, |input| {
        let started = Instant::now();
        let took = property(input)?;
        accepted.set(accepted.get() + u32::from(took));
        let took = started.elapsed();
        if took > PATIENCE { Err(TestCaseError::fail(format!("took {took:?}"))) } else { Ok(()) }
    });
    if let Err(error) = result {
        panic!("{name}, STAGEMILL_SEED={seed}: {error}");
    }
    let (time, share) = (began.elapsed().as_secs_f64(), 100 * u64::from(accepted.get()) / u64::from(cases.max(1)));
    println!("\nfuzz: {cases} inputs in {time:.1} s, {share} % accepted: {name} (STAGEMILL_SEED={seed})");
}

/// What every message to a person has to be: not empty, not endless, and nothing in it that steers a terminal or that the ledger can't store.
///
/// # Errors
/// When it is not so.
pub fn is_fit_to_be_read(message: &str) -> Result<(), TestCaseError> {
    let fault = if message.trim().is_empty() {
        "is empty"
    } else if message.len() > 20_000 {
        "is endless"
    } else if message.contains(|c: char| c.is_control() && !matches!(c, '\n' | '\t')) {
        "has control characters"
    } else {
        return Ok(());
    };
    Err(TestCaseError::fail(format!("a message {fault}: {:?}", message.chars().take(300).collect::<String>())))
}
