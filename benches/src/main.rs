//! `stagemill-bench`: measures stagemill beside what a user would otherwise do, and writes RESULTS.md. `make bench` builds all of it and runs this.

mod contestant;
mod goal;
mod machine;
mod part;
mod plot;
mod price;
mod program;
mod race;
mod report;
mod results;
mod sandbox;
mod server;
mod state_machine;
mod statistic;
mod workload;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use anyhow::Result;
use clap::{Parser, ValueEnum};

use machine::Machine;
use part::{Effort, Part, coordination, lambda, planning, read_bound, write};
use results::{Measured, Results};

/// Measures stagemill beside what a user would otherwise do.
#[derive(Debug, Parser)]
struct Args {
    /// The parts to measure; all when none is named. Those not named keep what was measured before.
    parts: Vec<Part>,
    /// Try out the harness: sizes too small to mean anything
    #[arg(long)]
    quick: bool,
    /// Measure nothing: write RESULTS.md and the plot anew
    #[arg(long)]
    report: bool,
    /// How often each contestant runs
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    repetitions: u32,
    /// The folder of results.json, RESULTS.md and the plot [default: benches, with --quick target/bench-quick]
    #[arg(long)]
    into: Option<PathBuf>,
}

fn main() -> Result<ExitCode> {
    let args = Args::parse();
    // A try must not take the place of what was measured.
    let quick = || program::repository().join("target/bench-quick");
    let into = args.into.unwrap_or_else(|| if args.quick { quick() } else { program::benches() });
    fs::create_dir_all(&into)?;
    let path = into.join("results.json");
    let mut results = Results::load(&path)?;
    let parts = match (args.report, args.parts.is_empty()) {
        (true, _) => &[],
        (false, true) => Part::value_variants(),
        (false, false) => &args.parts[..],
    };
    let effort = Effort { quick: args.quick, repetitions: if args.quick { 1 } else { args.repetitions } };
    let mut whole = true;
    for part in parts {
        whole &= match part {
            Part::Write => measure(*part, effort, &mut results.write, write::run),
            Part::ReadBound => measure(*part, effort, &mut results.read_bound, read_bound::run),
            Part::Planning => measure(*part, effort, &mut results.planning, planning::run),
            Part::Coordination => measure(*part, effort, &mut results.coordination, coordination::run),
            Part::Lambda => measure(*part, effort, &mut results.lambda, lambda::run),
        };
        // After each part: what was measured is kept whatever becomes of the next one.
        results.save(&path)?;
        document(&results, &into)?;
    }
    document(&results, &into)?;
    Ok(if whole { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Writes RESULTS.md and the plot.
fn document(results: &Results, into: &Path) -> Result<()> {
    fs::write(into.join("plot.svg"), plot::draw(results)?)?;
    fs::write(into.join("RESULTS.md"), report::write(results))?;
    Ok(())
}

/// Measures a part in the place of what was measured before. Returns whether it is whole.
fn measure<T: Default>(
    part: Part,
    effort: Effort,
    measured: &mut Measured<T>,
    run: impl FnOnce(Effort, &mut T) -> Result<()>,
) -> bool {
    let name = part.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default();
    eprintln!("== {name}");
    let began = Instant::now();
    let mut found = T::default();
    let failed = run(effort, &mut found).err().map(|error| format!("{error:#}"));
    if let Some(error) = &failed {
        eprintln!("{name} failed, what it measured so far is kept: {error}");
    }
    let whole = failed.is_none();
    let quick = if effort.quick { " (quick)" } else { "" };
    *measured = Measured {
        at: jiff::Timestamp::now().strftime("%Y-%m-%d %H:%M UTC").to_string(),
        command: format!("make bench BENCH=\"{name}\"{quick}"),
        quick: effort.quick,
        machine: Machine::look(),
        seconds: began.elapsed().as_secs_f64(),
        failed,
        found,
    };
    eprintln!("== {name}: {:.0} s", measured.seconds);
    whole
}
