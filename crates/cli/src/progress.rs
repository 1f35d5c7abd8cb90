//! How far a run is: a bar on a terminal, a line every few seconds elsewhere.

use std::{
    fmt,
    io::IsTerminal,
    sync::{
        Arc, Mutex,
        atomic::{AtomicI64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use anstyle::AnsiColor;
use indicatif::{ProgressBar, ProgressState, ProgressStyle};
use stagemill_engine::{apply::Report, outcome::Tally, retry::Next};

use crate::{
    log::FILE_ONLY,
    table::{count, many, whole_duration},
    world::{Stream, World, styled},
};

/// Between two lines, where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(5);

/// Failures that are shown as they happen; the log file and `stagemill chunks` have them all.
const SHOWN: i64 = 5;

/// What the workers have reported so far.
#[derive(Debug)]
struct Counters {
    started: Instant,
    chunks: i64,
    /// Chunks and rows that earlier processes applied.
    before: (i64, i64),
    applied: AtomicI64,
    rows: AtomicI64,
    retries: AtomicI64,
    failed: AtomicI64,
    /// How many chunks may be in flight; 0 while nobody has said.
    sessions: AtomicI64,
    /// Why none is started.
    held: Mutex<Option<String>>,
}

/// The progress of a run.
pub(crate) struct Progress<'a> {
    world: &'a World,
    run: i64,
    counters: Arc<Counters>,
    bar: Option<ProgressBar>,
    lines: Option<tokio::task::JoinHandle<()>>,
}

impl<'a> Progress<'a> {
    /// Starts to show the progress of a run, from what its ledger says.
    pub(crate) fn start(world: &'a World, job: &str, run: i64, tally: &Tally, quiet: bool) -> Self {
        let counters = Arc::new(Counters {
            started: Instant::now(),
            chunks: tally.chunks,
            before: (tally.processed, tally.counts.staged),
            applied: AtomicI64::new(0),
            rows: AtomicI64::new(0),
            retries: AtomicI64::new(0),
            failed: AtomicI64::new(0),
            sessions: AtomicI64::new(0),
            held: Mutex::default(),
        });
        let terminal = std::io::stderr().is_terminal();
        let bar = (terminal && !quiet).then(|| bar(world, job, &counters));
        let lines = (!terminal && !quiet)
            .then(|| tokio::spawn(lines(world.bars.clone(), job.to_owned(), Arc::clone(&counters))));
        Self { world, run, counters, bar, lines }
    }

    /// Takes a worker's report.
    pub(crate) fn report(&self, report: &Report<'_>) {
        match report {
            Report::Applied { chunk, counts, took } => {
                self.counters.applied.fetch_add(1, Relaxed);
                self.counters.rows.fetch_add(counts.staged, Relaxed);
                tracing::debug!(target: FILE_ONLY, run = self.run, chunk, staged_rows = counts.staged, inserted_rows = counts.inserted,
                    updated_rows = counts.updated, took_ms = took.as_millis(), "chunk {chunk} was applied");
                if let Some(bar) = &self.bar {
                    bar.inc(1);
                }
            }
            Report::Failed { chunk, attempt, failure, next } => {
                let follows = match next {
                    Next::Retry => "it is tried again",
                    Next::NextRound => "it is tried again after the others",
                    Next::Split => "two halves are tried in its place",
                    Next::Fail => "it is given up, the others go on",
                    Next::Halt => "nothing more of the run is started",
                };
                tracing::warn!(target: FILE_ONLY, run = self.run, chunk, attempt, class = ?failure.class, sqlstate = failure.sqlstate,
                    "chunk {chunk} failed in attempt {attempt}: {failure}; {follows}");
                if matches!(next, Next::Retry | Next::NextRound | Next::Split) {
                    self.counters.retries.fetch_add(1, Relaxed);
                } else {
                    let ends = if *next == Next::Halt { ", which ends the run" } else { "" };
                    let what = styled(Stream::Err, AnsiColor::Yellow, &format!("chunk {chunk} failed{ends}:"));
                    self.show(&format!("{what} {failure} [{:?}]", failure.class));
                }
            }
            Report::AtRisk(at_risk) => {
                let late = whole_duration(at_risk.late_seconds.ceil());
                tracing::warn!(target: FILE_ONLY, run = self.run, late_s = at_risk.late_seconds, "the deadline will probably be missed");
                let what = styled(Stream::Err, AnsiColor::Yellow, "deadline at risk:");
                self.world.say(&format!(
                    "{what} by what was measured so far the run ends {late} late; `stagemill set-parallelism {} N` makes it faster, if the server can be",
                    self.run
                ));
            }
            Report::Pace { allowed, held } => {
                tracing::info!(target: FILE_ONLY, run = self.run, allowed, held, "{}", held.map_or_else(|| many(i64::from(*allowed), "chunk at a time", "chunks at a time"), |why| format!("held back: {why}")));
                if let (Some(why), None) = (held, self.counters.note_hold(*held)) {
                    self.world.say(&format!("held back: {why}"));
                }
                self.counters.sessions.store(i64::from(*allowed), Relaxed);
            }
        }
    }

    fn show(&self, text: &str) {
        let nth = self.counters.failed.fetch_add(1, Relaxed) + 1;
        if nth <= SHOWN {
            self.world.say(text);
        } else if nth == SHOWN + 1 {
            self.world.say(&format!(
                "more chunks failed: the log file has them, and so has `stagemill chunks {} --open`",
                self.run
            ));
        }
    }

    /// Removes the bar.
    pub(crate) fn finish(self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
            self.world.bars.remove(bar);
        }
    }
}

impl Drop for Progress<'_> {
    fn drop(&mut self) {
        if let Some(lines) = &self.lines {
            lines.abort();
        }
    }
}

fn bar(world: &World, job: &str, counters: &Arc<Counters>) -> ProgressBar {
    let bar = ProgressBar::new(counters.chunks.unsigned_abs()).with_position(counters.before.0.unsigned_abs());
    let text = Arc::clone(counters);
    // The text is made anew at each drawing, so that the rate falls when nothing comes.
    let style = ProgressStyle::with_template("{prefix:.cyan} {wide_bar:.cyan/dim} {percent:>3} %  {text}")
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .progress_chars("━╸━")
        .with_key("text", move |_: &ProgressState, out: &mut dyn fmt::Write| {
            let _ = out.write_str(&text.for_bar());
        });
    let bar = world.bars.add(bar.with_style(style).with_prefix(job.to_owned()));
    bar.enable_steady_tick(Duration::from_millis(150));
    bar
}

async fn lines(bars: indicatif::MultiProgress, job: String, counters: Arc<Counters>) {
    loop {
        tokio::time::sleep(LINE_EVERY).await;
        crate::world::say(&bars, &format!("{job}: {}", counters.for_line()));
    }
}

impl Counters {
    fn done(&self) -> i64 {
        self.before.0 + self.applied.load(Relaxed)
    }

    fn rows_a_second(&self) -> i64 {
        (self.rows.load(Relaxed) as f64 / self.started.elapsed().as_secs_f64().max(0.001)) as i64
    }

    /// Time left, by the chunks that this process applied.
    fn left(&self) -> Option<String> {
        let applied = self.applied.load(Relaxed);
        let seconds = self.started.elapsed().as_secs_f64() / applied as f64 * (self.chunks - self.done()) as f64;
        (applied > 0).then(|| whole_duration(seconds.ceil()))
    }

    /// Takes note of why none is started, for whoever draws. Returns what was noted before. Nothing may be said with the note in hand: the bar is
    /// drawn by a thread of its own, which reads it and meanwhile lets nobody else write.
    fn note_hold(&self, why: Option<&str>) -> Option<String> {
        self.held.lock().ok().and_then(|mut noted| std::mem::replace(&mut *noted, why.map(str::to_owned)))
    }

    fn retries(&self) -> i64 {
        self.retries.load(Relaxed)
    }

    /// How fast it may go: only where that is not what was said at the start.
    fn pace(&self) -> String {
        let held = self.held.lock().ok().and_then(|held| held.clone());
        match (held, self.sessions.load(Relaxed)) {
            (Some(why), _) => format!("  held back: {why}"),
            (None, 0) => String::new(),
            (None, sessions) => format!("  {}", many(sessions, "session", "sessions")),
        }
    }

    fn for_bar(&self) -> String {
        let rows = self.before.1 + self.rows.load(Relaxed);
        let retries =
            if self.retries() > 0 { format!("  {}", many(self.retries(), "retry", "retries")) } else { String::new() };
        let left = self.left().map(|left| format!("  {left} left")).unwrap_or_default();
        format!(
            "{} rows  {}/s  {}/{} chunks{left}{retries}{}",
            count(rows),
            count(self.rows_a_second()),
            count(self.done()),
            count(self.chunks),
            self.pace()
        )
    }

    fn for_line(&self) -> String {
        let left = self.left().map(|left| format!(", about {left} left")).unwrap_or_default();
        format!(
            "{} of {} chunks, {} rows, {} rows/s{left}, {}, {} failed{}",
            count(self.done()),
            count(self.chunks),
            count(self.before.1 + self.rows.load(Relaxed)),
            count(self.rows_a_second()),
            many(self.retries(), "retry", "retries"),
            count(self.failed.load(Relaxed)),
            self.pace().replacen("  ", ", ", 1)
        )
    }
}

/// The progress of a run that others drive, as its ledger tells it.
#[cfg(feature = "aws")]
pub(crate) struct Watched<'a> {
    world: &'a World,
    bar: Option<ProgressBar>,
    /// When the last line was written, where there is no terminal.
    said: Option<Instant>,
}

#[cfg(feature = "aws")]
impl<'a> Watched<'a> {
    /// Nothing is known yet.
    pub(crate) fn start(world: &'a World) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let style = ProgressStyle::with_template("{prefix:.cyan} {wide_bar:.cyan/dim} {percent:>3} %  {msg}")
                .unwrap_or_else(|_| ProgressStyle::default_bar())
                .progress_chars("━╸━");
            world.bars.add(ProgressBar::new(1).with_style(style))
        });
        Self { world, bar, said: None }
    }

    /// Shows how far the run is; without one the execution is between two, waits its turn, or the ledger can't be asked.
    pub(crate) fn show(&mut self, run: Option<&stagemill_engine::ledger::summary::Summary>) {
        let text = run.map_or_else(|| "the execution is running".to_owned(), state);
        if let Some(bar) = &self.bar {
            if let Some(run) = run {
                bar.set_prefix(run.job.clone());
                bar.set_length(run.tally.chunks.max(1).unsigned_abs());
                bar.set_position(run.tally.processed.unsigned_abs());
            }
            bar.set_message(text);
        } else if self.said.is_none_or(|said| said.elapsed() >= LINE_EVERY) {
            self.said = Some(Instant::now());
            self.world.say(&run.map_or_else(|| text.clone(), |run| format!("{}: {text}", run.job)));
        }
    }

    /// Removes the bar.
    pub(crate) fn finish(self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
            self.world.bars.remove(bar);
        }
    }
}

/// Where a run stands, in a line.
#[cfg(feature = "aws")]
fn state(run: &stagemill_engine::ledger::summary::Summary) -> String {
    let tally = &run.tally;
    let held = run.held.as_ref().map(|why| format!(", held back: {why}")).unwrap_or_default();
    let failed = if tally.failed > 0 { format!(", {} failed", count(tally.failed)) } else { String::new() };
    let rows = (tally.counts.staged as f64 / run.seconds.max(0.001)) as i64;
    format!(
        "run {} {}, {} of {} chunks, {} rows, {} rows/s, {}{failed}{held}",
        run.run,
        run.status.as_str(),
        count(tally.processed),
        count(tally.chunks),
        count(tally.counts.staged),
        count(rows),
        many(tally.retries, "retry", "retries")
    )
}

#[cfg(test)]
mod tests {
    use indicatif::{InMemoryTerm, MultiProgress, ProgressDrawTarget};

    use super::*;
    use crate::args::ConnectArgs;

    #[test]
    fn a_hold_is_said_while_the_bar_is_drawn() {
        let mut world = World::new(ConnectArgs::default());
        let terminal = ProgressDrawTarget::term_like_with_hz(Box::new(InMemoryTerm::new(4, 80)), 255);
        world.bars = MultiProgress::with_draw_target(terminal);
        // What hangs must not keep this test.
        let world: &'static World = Box::leak(Box::new(world));
        let progress = Progress::start(world, "job", 1, &Tally::default(), true);
        let bar = bar(world, "job", &progress.counters);
        let both = Arc::new(std::sync::Barrier::new(2));
        let (drawn, there) = (bar.clone(), Arc::clone(&both));
        std::thread::spawn(move || {
            there.wait();
            while !drawn.is_finished() {
                drawn.force_draw();
            }
        });
        let (ended, all_said) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            both.wait();
            for n in 0..100 {
                progress.report(&Report::Pace { allowed: 1, held: (n % 2 == 0).then_some("by a test") });
            }
            let _ = ended.send(());
        });
        all_said.recv_timeout(Duration::from_secs(30)).expect("it hangs");
        bar.finish();
    }

    #[test]
    fn a_line_says_how_far_it_is_and_how_long_it_takes() {
        let counters = Counters {
            started: Instant::now() - Duration::from_secs(10),
            chunks: 100,
            before: (20, 1_000),
            applied: 40.into(),
            rows: 200_000.into(),
            retries: 1.into(),
            failed: 0.into(),
            sessions: 4.into(),
            held: None.into(),
        };
        let line = counters.for_line();
        assert!(line.starts_with("60 of 100 chunks, 201,000 rows, "), "{line}");
        assert!(line.contains(" rows/s, about 1") && line.ends_with("s left, 1 retry, 0 failed, 4 sessions"), "{line}");
        let fresh = Counters { applied: 0.into(), rows: 0.into(), retries: 0.into(), ..counters };
        assert_eq!(fresh.for_bar(), "1,000 rows  0/s  20/100 chunks  4 sessions");
    }
}
