//! Logs: to people or to machines, on stderr and in the run directory, around progress bars.
//!
//! Invariant: stdout stays free for results; a log line never tears a progress bar when the hook is
//! set; what to log is said by one variable, `OCTET_LOG`.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tracing::Subscriber;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;

#[cfg(test)]
mod tests;

/// The variable that says what to log, e.g. `debug` or `info,octet_learner=trace`.
pub const LOG_VARIABLE: &str = "OCTET_LOG";

/// What is logged when nothing is said. The transport's own news is for those who ask.
const DEFAULT_FILTER: &str = "info,h2=warn,hyper=warn,hyper_util=warn,tonic=warn,tower=warn";

/// How lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    #[default]
    Human,
    /// One JSON object a line.
    Json,
}

/// Runs a write to the terminal with the progress bars out of the way, for example
/// `move |write| bars.suspend(write)` with `indicatif::MultiProgress`.
pub type AroundWrite = Arc<dyn Fn(&mut dyn FnMut()) + Send + Sync>;

/// What to log where.
#[derive(Clone, Default)]
pub struct LogOptions {
    /// How lines look on stderr.
    pub format: LogFormat,
    /// What to log; the default when `None`. Usually the value of [`LOG_VARIABLE`].
    pub filter: Option<String>,
    /// A file that gets every line too, as JSON; appended to.
    pub file: Option<PathBuf>,
    /// Wraps every write to stderr.
    pub around_write: Option<AroundWrite>,
}

/// Why logging could not begin.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The filter cannot be read.
    #[error(
        "{LOG_VARIABLE}=`{filter}`: {problem}; expected e.g. `debug` or `info,octet_learner=trace`"
    )]
    Filter {
        /// The filter.
        filter: String,
        /// What is wrong with it.
        problem: String,
    },
    /// The log file cannot be opened.
    #[error("cannot open the log file {}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Something logs already.
    #[error("logging was already set up in this process")]
    AlreadySet,
}

impl LogOptions {
    /// The options with the filter from [`LOG_VARIABLE`].
    pub fn from_environment() -> Self {
        Self { filter: std::env::var(LOG_VARIABLE).ok(), ..Self::default() }
    }
}

/// Begins logging for the whole process.
///
/// # Errors
/// The filter or the file is no good, or logging had begun before.
pub fn init(options: &LogOptions) -> Result<(), TelemetryError> {
    let around = options.around_write.clone();
    let colour = io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let stderr = Terminal { around, out: io::stderr };
    subscriber(options, stderr, colour)?.try_init().map_err(|_| TelemetryError::AlreadySet)
}

/// What [`init`] sets for the process, over any writer.
fn subscriber<W>(
    options: &LogOptions,
    terminal: W,
    colour: bool,
) -> Result<impl Subscriber + Send + Sync, TelemetryError>
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let text = match options.filter.as_deref().map(str::trim) {
        None | Some("") => DEFAULT_FILTER,
        Some(filter) => filter,
    };
    let filter = EnvFilter::try_new(text).map_err(|error| TelemetryError::Filter {
        filter: text.to_owned(),
        problem: error.to_string(),
    })?;
    let file = options.file.as_deref().map(open).transpose()?.map(|file| json(Arc::new(file)));
    let terminal = match options.format {
        LogFormat::Json => json(terminal),
        LogFormat::Human => tracing_subscriber::fmt::layer()
            .with_ansi(colour)
            .with_target(false)
            .with_writer(terminal)
            .boxed(),
    };
    Ok(tracing_subscriber::registry().with(filter).with(file).with(terminal))
}

fn json<S, W>(writer: W) -> Box<dyn Layer<S> + Send + Sync>
where
    S: Subscriber + for<'s> LookupSpan<'s>,
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    tracing_subscriber::fmt::layer().json().flatten_event(true).with_writer(writer).boxed()
}

fn open(path: &Path) -> Result<File, TelemetryError> {
    OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)
        .map_err(|source| TelemetryError::File { path: path.to_owned(), source })
}

/// Writes each line whole, with the bars out of the way.
struct Terminal<F> {
    around: Option<AroundWrite>,
    out: F,
}

struct Line<'t, F, W>
where
    F: Fn() -> W,
    W: Write,
{
    terminal: &'t Terminal<F>,
    bytes: Vec<u8>,
}

impl<'t, F, W> MakeWriter<'t> for Terminal<F>
where
    F: Fn() -> W + 't,
    W: Write + 't,
{
    type Writer = Line<'t, F, W>;

    fn make_writer(&'t self) -> Self::Writer {
        Line { terminal: self, bytes: Vec::new() }
    }
}

impl<F: Fn() -> W, W: Write> Write for Line<'_, F, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<F: Fn() -> W, W: Write> Drop for Line<'_, F, W> {
    fn drop(&mut self) {
        // A log that cannot be written must not end the run that it tells about.
        let mut write = || {
            let _lost = (self.terminal.out)().write_all(&self.bytes);
        };
        match &self.terminal.around {
            Some(around) => around(&mut write),
            None => write(),
        }
    }
}

impl fmt::Debug for LogOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogOptions")
            .field("format", &self.format)
            .field("filter", &self.filter)
            .field("file", &self.file)
            .finish_non_exhaustive()
    }
}
