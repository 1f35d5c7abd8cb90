//! What a command finds around it: the terminal, the connection that was asked for, the wish to stop.

use std::{
    fs::File,
    io::{self, IsTerminal, Write},
    process::ExitCode,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicI64, Ordering},
    },
};

use anstyle::{AnsiColor, Style};
use indicatif::MultiProgress;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::{
    args::ConnectArgs,
    exit::{CliError, Exit},
};

/// The world of one command.
pub(crate) struct World {
    /// Where the server is, as typed.
    pub(crate) connect: ConnectArgs,
    /// Where bars are drawn: whatever else goes to stderr is written between two drawings.
    pub(crate) bars: MultiProgress,
    /// The log file of the run that is driven.
    pub(crate) log_file: Arc<OnceLock<File>>,
    stop: OnceLock<CancellationToken>,
    /// The run whose chunks are in flight; 0 for none.
    in_flight: Arc<AtomicI64>,
}

impl World {
    pub(crate) fn new(connect: ConnectArgs) -> Self {
        Self {
            connect,
            bars: MultiProgress::new(),
            log_file: Arc::default(),
            stop: OnceLock::new(),
            in_flight: Arc::default(),
        }
    }

    /// Writes a command's result to stdout. A reader that has seen enough (`stagemill status | head`) is no error.
    pub(crate) fn print(&self, text: &str) -> Result<(), CliError> {
        let mut out = io::stdout().lock();
        let end = if text.ends_with('\n') { "" } else { "\n" };
        match write!(out, "{text}{end}").and_then(|()| out.flush()) {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
                Err(CliError::Internal(format!("cannot write to stdout: {error}")))
            }
            _ => Ok(()),
        }
    }

    /// Writes a result for programs to stdout.
    pub(crate) fn print_json(&self, value: &impl serde::Serialize) -> Result<(), CliError> {
        let text = serde_json::to_string_pretty(value)
            .map_err(|error| CliError::Internal(format!("cannot write JSON: {error}")))?;
        self.print(&text)
    }

    /// Tells people something, on stderr.
    pub(crate) fn say(&self, text: &str) {
        say(&self.bars, text);
    }

    /// Reports an error: for people on stderr, for programs on stdout too. Returns the code to end with.
    pub(crate) fn report(&self, error: &CliError, json: bool) -> ExitCode {
        if json {
            // What can't be written to stdout is on stderr all the same.
            let _ = self.print_json(&error.for_programs());
        }
        let text = error.for_people();
        match error {
            CliError::Interrupted(_) => self.say(&text),
            _ => self.say(&format!("{} {text}", styled(Stream::Err, AnsiColor::Red, "error:"))),
        }
        error.exit().into()
    }

    /// Cancelled when somebody asks for an end (Ctrl-C, SIGTERM). From the first call on, the first signal only asks; the second one ends the
    /// process at once, and the server rolls back what is in flight.
    pub(crate) fn stop(&self) -> CancellationToken {
        self.stop.get_or_init(|| listen(self.bars.clone(), Arc::clone(&self.in_flight))).clone()
    }

    /// Says which run's chunks are in flight, which whoever asks for an end has to wait for.
    pub(crate) fn set_in_flight(&self, run: Option<i64>) {
        self.in_flight.store(run.unwrap_or(0), Ordering::Relaxed);
    }

    /// Runs what may be broken off at any point, until it is done or somebody asks for an end.
    pub(crate) async fn unless_stopped<T>(
        &self,
        what: &str,
        work: impl Future<Output = Result<T, CliError>>,
    ) -> Result<T, CliError> {
        let stop = self.stop();
        tokio::select! {
            done = work => done,
            () = stop.cancelled() => Err(CliError::Interrupted(format!("interrupted: {what}"))),
        }
    }
}

/// Tells people something, on stderr, between two drawings of a bar.
pub(crate) fn say(bars: &MultiProgress, text: &str) {
    // Nothing can be told to whoever closed stderr.
    bars.suspend(|| {
        let _ = writeln!(io::stderr(), "{text}");
    });
}

fn listen(bars: MultiProgress, in_flight: Arc<AtomicI64>) -> CancellationToken {
    let asked = CancellationToken::new();
    let stop = asked.clone();
    tokio::spawn(async move {
        let signals = (signal(SignalKind::interrupt()), signal(SignalKind::terminate()));
        let (Ok(mut interrupt), Ok(mut terminate)) = signals else {
            tracing::warn!("signals can't be listened to: Ctrl-C ends the process at once");
            return;
        };
        loop {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            let run = in_flight.load(Ordering::Relaxed);
            if asked.is_cancelled() {
                let next = if run > 0 {
                    format!("\n  stagemill resume {run}    goes on with the rest")
                } else {
                    String::new()
                };
                say(&bars, &format!("ended at once; the server rolls back what was in flight{next}"));
                std::process::exit(Exit::Interrupted as i32);
            }
            asked.cancel();
            if run > 0 {
                say(&bars, "stopping: what is in flight finishes; once more ends at once and rolls it back");
            }
        }
    });
    stop
}

/// Where a text goes.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Stream {
    Out,
    Err,
}

/// Whether people asked for no colours (<https://no-color.org>).
pub(crate) fn no_color() -> bool {
    std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
}

/// A text in a colour, where there are colours.
pub(crate) fn styled(stream: Stream, color: AnsiColor, text: &str) -> String {
    let terminal = match stream {
        Stream::Out => io::stdout().is_terminal(),
        Stream::Err => io::stderr().is_terminal(),
    };
    if no_color() || !terminal {
        return text.to_owned();
    }
    let style = Style::new().bold().fg_color(Some(color.into()));
    format!("{style}{text}{style:#}")
}
