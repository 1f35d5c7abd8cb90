//! The parts of the benchmark. Each keeps what it has found so far when it fails.

pub(crate) mod coordination;
pub(crate) mod lambda;
pub(crate) mod planning;
pub(crate) mod read_bound;
pub(crate) mod write;

use clap::ValueEnum;

/// A part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Part {
    /// All operations, with everything in the cache
    Write,
    /// An update for which waiting for reads dominates
    ReadBound,
    /// Cutting up to 40 million staged rows
    Planning,
    /// What a chunk costs beside its statement
    Coordination,
    /// The functions: size, start, memory, and what they would cost
    Lambda,
}

/// How a part is run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Effort {
    /// Sizes too small to mean anything.
    pub(crate) quick: bool,
    pub(crate) repetitions: u32,
}

/// One session a core is best where nothing waits.
pub(crate) fn cores() -> u32 {
    std::thread::available_parallelism().map_or(2, |cores| u32::try_from(cores.get()).unwrap_or(2))
}
