//! The log file: one JSON object a line, each message readable alone. Warnings go to stderr as well, between two drawings of the bar.

use std::{
    fmt,
    fs::{self, File, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
    sync::Mutex,
};

use indicatif::MultiProgress;
use tracing::{Event, Level, Subscriber, level_filters::LevelFilter};
use tracing_subscriber::{
    EnvFilter, Layer,
    fmt::{FmtContext, FormatEvent, FormatFields, MakeWriter, format::Writer},
    layer::SubscriberExt,
    registry::LookupSpan,
    util::SubscriberInitExt,
};

use crate::{exit::CliError, world::World};

/// The target of events that are shown on stderr by other means, or would flood it: they go to the file alone.
pub(crate) const FILE_ONLY: &str = "stagemill::chunk";

/// Warnings to stderr, and everything from `info` on to a file in `folder`, when there is one; STAGEMILL_LOG chooses otherwise. Returns the
/// file's path.
pub(crate) fn start(world: &World, file: Option<(&Path, &str)>) -> Result<Option<PathBuf>, CliError> {
    let opened = file.map(|(folder, job)| open(folder, job)).transpose()?;
    let (path, file) = opened.unzip();
    let wanted = EnvFilter::builder()
        .with_default_directive(LevelFilter::INFO.into())
        .with_env_var("STAGEMILL_LOG")
        .from_env()
        .map_err(|error| {
            CliError::Usage(format!(
                "STAGEMILL_LOG can't be used: {error}; write info, debug or stagemill_engine=debug"
            ))
        })?;
    let to_file = file.map(|file| {
        tracing_subscriber::fmt::layer().json().flatten_event(true).with_writer(Mutex::new(file)).with_filter(wanted)
    });
    let to_stderr = tracing_subscriber::fmt::layer()
        .with_ansi(false)
        .event_format(ForPeople)
        .with_writer(Between(world.bars.clone()))
        .with_filter(tracing_subscriber::filter::filter_fn(|event| {
            *event.level() <= Level::WARN && event.target() != FILE_ONLY
        }));
    // Set once a process: a second start has no effect.
    let _ = tracing_subscriber::registry().with(to_file).with(to_stderr).try_init();
    Ok(path)
}

fn open(folder: &Path, job: &str) -> Result<(PathBuf, File), CliError> {
    let time = jiff::ZonedDateTime::now().strftime("%Y%m%d_%H%M%S").to_string();
    let refused = |error: io::Error| {
        CliError::Usage(format!(
            "cannot write a log file in {}: {error}; name another folder with --log-dir",
            folder.display()
        ))
    };
    fs::create_dir_all(folder).map_err(refused)?;
    // Two runs in one second must not share a file.
    for n in 1..100 {
        let more = if n == 1 { String::new() } else { format!("_{n}") };
        let path = folder.join(format!("{job}_{time}{more}.log"));
        let path = path.strip_prefix(".").map(Path::to_path_buf).unwrap_or(path);
        match OpenOptions::new().append(true).create_new(true).open(&path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            opened => return opened.map(|file| (path, file)).map_err(refused),
        }
    }
    Err(refused(io::ErrorKind::AlreadyExists.into()))
}

/// `warning: message (field=value ...)`.
struct ForPeople;

impl<S, N> FormatEvent<S, N> for ForPeople
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, context: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let word = if *event.metadata().level() == Level::ERROR { "error" } else { "warning" };
        write!(writer, "{word}: ")?;
        context.format_fields(writer.by_ref(), event)?;
        writeln!(writer)
    }
}

/// Writes to stderr between two drawings of the bar.
struct Between(MultiProgress);

impl<'a> MakeWriter<'a> for Between {
    type Writer = BetweenWriter<'a>;

    fn make_writer(&'a self) -> Self::Writer {
        BetweenWriter(&self.0)
    }
}

struct BetweenWriter<'a>(&'a MultiProgress);

impl Write for BetweenWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.suspend(|| io::stderr().write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}
