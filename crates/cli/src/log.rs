//! The log file: one JSON object a line, each message readable alone. Warnings go to stderr as well, between two drawings of the bar.

use std::{
    fmt,
    fs::{self, File, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, OnceLock},
};

use indicatif::MultiProgress;
use tracing::{
    Event, Level, Subscriber,
    field::{Field, Visit},
    level_filters::LevelFilter,
};
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

/// Starts to show warnings on stderr, and to write everything from `info` on to the log file once there is one; STAGEMILL_LOG chooses
/// otherwise.
pub(crate) fn start(world: &World) -> Result<(), CliError> {
    let wanted = EnvFilter::builder()
        .with_default_directive(LevelFilter::INFO.into())
        .with_env_var("STAGEMILL_LOG")
        .from_env()
        .map_err(|error| {
            CliError::Usage(format!(
                "STAGEMILL_LOG can't be used: {error}; write info, debug or stagemill_engine=debug"
            ))
        })?;
    let to_file = tracing_subscriber::fmt::layer()
        .json()
        .flatten_event(true)
        .with_writer(ToFile(Arc::clone(&world.log_file)))
        .with_filter(wanted);
    let to_stderr = tracing_subscriber::fmt::layer()
        .with_ansi(false)
        .event_format(ForPeople)
        .with_writer(Between { bars: world.bars.clone(), last: Mutex::default() })
        .with_filter(tracing_subscriber::filter::filter_fn(|event| {
            *event.level() <= Level::WARN && event.target() != FILE_ONLY
        }));
    tracing_subscriber::registry()
        .with(to_file)
        .with(to_stderr)
        .try_init()
        .map_err(|error| CliError::Internal(format!("cannot log: {error}")))
}

/// Opens the log file of a run in `folder`. Returns its path.
pub(crate) fn to_file(world: &World, folder: &Path, job: &str) -> Result<PathBuf, CliError> {
    let (path, file) = open(folder, job)?;
    // A process drives one run, and so has one file.
    let _ = world.log_file.set(file);
    Ok(path)
}

/// Removes a log file in which nothing stands.
pub(crate) fn remove_empty(path: Option<&Path>) {
    if let Some(path) = path.filter(|path| fs::metadata(path).is_ok_and(|file| file.len() == 0)) {
        let _ = fs::remove_file(path);
    }
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

/// `warning: message: failure (field=value)`, without what people know or can't use.
struct ForPeople;

impl<S, N> FormatEvent<S, N> for ForPeople
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, _: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let word = if *event.metadata().level() == Level::ERROR { "error" } else { "warning" };
        let mut fields = Fields::default();
        event.record(&mut fields);
        writeln!(writer, "{word}: {}{}{}", fields.message, fields.failure, fields.others)
    }
}

#[derive(Default)]
struct Fields {
    message: String,
    failure: String,
    others: String,
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        match field.name() {
            "message" => self.message = format!("{value:?}"),
            "failure" => self.failure = format!(": {value:?}"),
            "run" | "worker" => {}
            name => self.others += &format!(" ({name}={value:?})"),
        }
    }
}

/// Writes to the log file, when it is open. Each event is one write.
struct ToFile(Arc<OnceLock<File>>);

impl<'a> MakeWriter<'a> for ToFile {
    type Writer = Box<dyn Write + 'a>;

    fn make_writer(&'a self) -> Self::Writer {
        match self.0.get() {
            Some(file) => Box::new(file),
            None => Box::new(io::sink()),
        }
    }
}

/// Writes to stderr between two drawings of the bar, and nothing twice in a row.
struct Between {
    bars: MultiProgress,
    last: Mutex<Vec<u8>>,
}

impl<'a> MakeWriter<'a> for Between {
    type Writer = BetweenWriter<'a>;

    fn make_writer(&'a self) -> Self::Writer {
        BetweenWriter(self)
    }
}

struct BetweenWriter<'a>(&'a Between);

impl Write for BetweenWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // Several workers often say the same thing.
        if let Ok(mut last) = self.0.last.lock() {
            if *last == bytes {
                return Ok(bytes.len());
            }
            bytes.clone_into(&mut last);
        }
        self.0.bars.suspend(|| io::stderr().write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}
