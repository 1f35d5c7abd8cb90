//! RESULTS.md, made of what was measured and of nothing else but NOTES.md, which a person writes.

mod paper;

use std::fmt::Write as _;

use crate::{
    goal,
    part::{lambda::Lambda, planning::Cut},
    program::benches,
    race::{Entrant, Race},
    results::{Measured, Results},
    statistic::{median, times_as_fast},
};

const INTRODUCTION: &str = "# Results

Written by `make bench` from `results.json`; what a person has to say of it is in NOTES.md and stands at the end. Times are wall time of whole
programs, from their start to their end, stagemill's own start included. Contestants are interleaved: in each repetition everybody runs once, on a
fresh copy of the tables, after a checkpoint. Figures are medians. After the first repetition checksums over all of the target showed that everybody had
done the same work. The target has a primary key and a secondary index, on a column that grows with the key where nothing else is said; its pages are full, so
that an update makes new entries in both. Staged rows lie in random order. The server does not wait for disks (`fsync = off`), and autovacuum is off.

![times as fast as the single statement](plot.svg)
";

const SHIM: &str = "
A library preloaded into the server delays each read of a page of a relation by 0.5 ms, and the server's cache (256 MB) is much smaller than the target.
What this does not show: storage that slows down when many ask at once, or has a limit on operations a second; reads of several pages at a time and
read-ahead, as real storage has them; slow writes, and slow commits; a network between client and server. Sessions wait here without costing anything.
";

/// All of it.
pub(crate) fn write(results: &Results) -> String {
    let mut text = INTRODUCTION.to_owned();
    text.push_str(&measured(results));
    text.push_str(&goals(results));
    part(&mut text, "In the cache", "write", &results.write, |races| races.iter().map(race).collect());
    part(&mut text, "Read-bound", "read-bound", &results.read_bound, |races| {
        SHIM.to_owned() + &races.iter().map(race).collect::<String>()
    });
    part(&mut text, "Planning", "planning", &results.planning, |cuts| planning(cuts));
    part(&mut text, "Coordination", "coordination", &results.coordination, coordination);
    part(&mut text, "Lambda", "lambda", &results.lambda, lambda);
    let notes = std::fs::read_to_string(benches().join("NOTES.md")).unwrap_or_default();
    let _ = write!(text, "\n{}", notes.trim_start());
    text
}

/// A part, if it was measured.
fn part<T>(text: &mut String, title: &str, name: &str, measured: &Measured<T>, body: impl Fn(&T) -> String) {
    let _ = writeln!(text, "\n## {title}");
    if measured.at.is_empty() {
        let _ = writeln!(text, "\nNot measured yet: `make bench BENCH={name}`.");
        return;
    }
    if measured.quick {
        text.push_str("\n**A try of the harness: sizes too small to mean anything.**\n");
    }
    if let Some(error) = &measured.failed {
        let first = error.lines().next().unwrap_or_default();
        let _ = writeln!(text, "\n**Not whole: {first}**");
    }
    text.push_str(&body(&measured.found));
}

/// Machine, versions, date and command of each part.
fn measured(results: &Results) -> String {
    let mut text = "\n| part | date | command | took | machine | versions |\n|---|---|---|---|---|---|\n".to_owned();
    let mut row = |at: &str, command: &str, seconds: f64, machine: &crate::machine::Machine| {
        if at.is_empty() {
            return;
        }
        let part = command.split('"').nth(1).unwrap_or_default();
        let _ = writeln!(
            text,
            "| {part} | {at} | `{command}` | {seconds:.0} s | {}, {} cores, {} GB, {} | PostgreSQL {}, {}, {}, commit {} |",
            machine.processor,
            machine.cores,
            machine.memory_gb,
            machine.system,
            machine.postgres,
            machine.python,
            machine.rust,
            machine.commit
        );
    };
    let Results { write, read_bound, planning, coordination, lambda } = results;
    row(&write.at, &write.command, write.seconds, &write.machine);
    row(&read_bound.at, &read_bound.command, read_bound.seconds, &read_bound.machine);
    row(&planning.at, &planning.command, planning.seconds, &planning.machine);
    row(&coordination.at, &coordination.command, coordination.seconds, &coordination.machine);
    row(&lambda.at, &lambda.command, lambda.seconds, &lambda.machine);
    text
}

fn goals(results: &Results) -> String {
    let mut text = "\n## Goals\n\n| | goal | result | met |\n|---|---|---|---|\n".to_owned();
    for goal in goal::all(results) {
        let (result, met) = match &goal.result {
            None => ("not measured", "-"),
            Some(outcome) => (outcome.text.as_str(), if outcome.met { "yes" } else { "**no**" }),
        };
        let _ = writeln!(text, "| {} | {} | {result} | {met} |", goal.what, goal.goal);
    }
    text
}

fn race(race: &Race) -> String {
    let mut text = format!(
        "\n### {}\n\n{} staged rows on {}.\n\n| | seconds | each | server's processors, s | rows/s | against the single statement | ledger: planning, applying, all |\n|---|---|---|---|---|---|---|\n",
        race.name,
        thousands(race.size.staged),
        thousands(race.size.target)
    );
    let single = race.find(|contestant| *contestant == crate::contestant::Contestant::Single).map(Entrant::seconds);
    for entrant in &race.entrants {
        let ratio = single.as_ref().and_then(|single| times_as_fast(&entrant.seconds(), single));
        let _ = writeln!(
            text,
            "| {} | {} | {} | {} | {} | {} | {} |",
            entrant.contestant.name(),
            entrant.median().map_or("-".to_owned(), |seconds| format!("{seconds:.2}")),
            each(entrant),
            entrant.processor().map_or("-".to_owned(), |seconds| format!("{seconds:.2}")),
            entrant.median().map_or("-".to_owned(), |seconds| thousands((race.size.staged as f64 / seconds) as u64)),
            ratio.map_or("-".to_owned(), |ratio| format!("{ratio:.2}x")),
            ledger(entrant),
        );
    }
    text.push_str(&tried(race));
    text
}

fn each(entrant: &Entrant) -> String {
    match &entrant.failed {
        Some(error) => format!("failed: {}", error.lines().next().unwrap_or_default().replace('|', "/")),
        None => entrant.seconds().iter().map(|seconds| format!("{seconds:.2}")).collect::<Vec<_>>().join(", "),
    }
}

/// What the ledger says of the last lap, and what `"auto"` tried in it.
fn ledger(entrant: &Entrant) -> String {
    let Some(ledger) = entrant.laps.last().and_then(|lap| lap.ledger.as_ref()) else { return String::new() };
    let parts = format!("{:.2}, {:.2}, {:.2} s", ledger.planning, ledger.applying, ledger.seconds);
    let Some(settled) = &ledger.settled else { return parts };
    let tried: Vec<String> =
        settled.tried.iter().map(|(after, sessions)| format!("{sessions} at {after:.2}")).collect();
    format!("{parts}; {}", tried.join(", "))
}

fn tried(race: &Race) -> String {
    if race.tried.is_empty() {
        return String::new();
    }
    let laps = race
        .tried
        .iter()
        .filter_map(|entrant| Some(format!("{}: {:.2} s", entrant.contestant.name(), entrant.median()?)));
    format!("\nTried once each for the Python program's best setting: {}.\n", laps.collect::<Vec<_>>().join("; "))
}

fn planning(cuts: &[Cut]) -> String {
    let mut text = "
`stagemill plan --json`, from its start to its end, and the same within a run (chunks written to the ledger). Rows of each chunk were counted for real.

| staged rows | keys | by | chunks | `plan`, s | in a run, s | mean rows | most rows | most over mean |
|---|---|---|---|---|---|---|---|---|
"
    .to_owned();
    for cut in cuts {
        let _ = writeln!(
            text,
            "| {} | {} | {} | {} | {:.3} | {:.3} | {:.0} | {} | {:.2} |",
            thousands(cut.rows),
            if cut.skewed { "skewed" } else { "even" },
            cut.by,
            thousands(cut.chunks),
            median(&cut.plan_seconds).unwrap_or(f64::NAN),
            cut.run_planning_seconds,
            cut.mean,
            cut.largest,
            cut.largest / cut.mean
        );
    }
    text
}

fn coordination(found: &crate::part::coordination::Coordination) -> String {
    let ms = |values: &[f64]| median(values).map_or("-".to_owned(), |ms| format!("{ms:.2}"));
    let mut text = format!(
        "
Statements that touch nothing: the difference between runs of {} and of {} chunks, a chunk. It includes the ledger's two statements and two commits.
The executor is the function's own process behind Lambda's runtime API, called once for all chunks. The execution is one of the real state machine with the
real functions on a local interpreter, with as many items in both runs: its transitions fall out, and their time on AWS is another one anyway.

| | ms |
|---|---|
| a chunk, `stagemill run`, 1 session | {} |
| a chunk, `stagemill run`, a session a core (the run's time by its chunks) | {} |
| a chunk, in an executor | {} |
| a chunk, in an execution of the state machine, one executor at a time | {} |
| of which a processor is busy in the executor | {} |
| a call of an executor that finds nothing to do | {} |
",
        found.chunks.0,
        found.chunks.1,
        ms(&found.local_ms),
        ms(&found.local_parallel_ms),
        ms(&found.executor_ms),
        ms(&found.execution_ms),
        ms(&found.executor_processor_ms),
        ms(&found.call_ms)
    );
    text.push_str("\nA real update, 400,000 staged rows on 4,000,000 in the cache, by the size of its chunks:\n\n| rows a chunk | rows/s |\n|---|---|\n");
    for growth in &found.growth {
        let _ = writeln!(text, "| {} | {} |", thousands(growth.rows), thousands(growth.rows_a_second as u64));
    }
    text
}

fn lambda(found: &Lambda) -> String {
    let mut text = "\n| function | zip, MB | init, ms | peak memory, credentials from a secret, MB | peak memory, TLS, MB |\n|---|---|---|---|---|\n".to_owned();
    for function in &found.functions {
        let _ = writeln!(
            text,
            "| {} | {:.2} | {:.1} | {:.1} | {:.1} |",
            function.name,
            function.zip_bytes as f64 / 1e6,
            median(&function.init_ms).unwrap_or(f64::NAN),
            function.peak_mb,
            function.peak_tls_mb
        );
    }
    if let Some(batch) = &found.batch {
        let _ = writeln!(
            text,
            "\nThe batch: {} staged rows on {}, all of it by one executor, in {} chunks: {:.1} s, of which its own process kept a processor of this machine busy for {:.2} s. \
             Init is from the process's start until it asks for an event, on this machine; Lambda's own start of a sandbox comes on top.",
            thousands(batch.size.staged),
            thousands(batch.size.target),
            batch.chunks,
            batch.executor_seconds,
            batch.executor_processor_seconds
        );
    }
    text.push_str(&paper::cost());
    text
}

/// A number as people write it.
fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let groups: Vec<&str> =
        digits.as_bytes().rchunks(3).rev().filter_map(|group| std::str::from_utf8(group).ok()).collect();
    groups.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_are_set_apart() {
        assert_eq!([0, 999, 1_000, 40_000_000].map(thousands), ["0", "999", "1,000", "40,000,000"]);
    }

    #[test]
    fn what_was_not_measured_is_said_so() {
        let text = write(&Results::default());
        assert!(
            text.contains("Not measured yet: `make bench BENCH=planning`") && text.contains("| not measured | - |"),
            "{text}"
        );
    }
}
