//! The log: `tracing` to standard error, for people or as JSON.
//!
//! Invariant: a line that is written while a progress bar is on the terminal does not tear it.

use std::io::{self, IsTerminal, Write};

use indicatif::MultiProgress;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

use crate::cli::LogFormat;

/// Sets the log up; `bars` are the progress bars on the same terminal.
///
/// # Errors
/// A sentence about `level`.
pub(crate) fn init(
    level: &str,
    format: LogFormat,
    bars: Option<MultiProgress>,
) -> Result<(), String> {
    let filter = EnvFilter::try_new(level).map_err(|e| format!("--log-level {level}: {e}"))?;
    let is_colored = io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(LogWriter { bars });
    let result = match format {
        LogFormat::Human => builder.with_ansi(is_colored).try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
    result.map_err(|e| format!("the log cannot be set up: {e}"))
}

/// Whether a progress bar can be shown beside a log of this format.
pub(crate) fn can_show_bars(format: LogFormat) -> bool {
    format == LogFormat::Human && io::stderr().is_terminal()
}

/// Writes lines above the progress bars.
struct LogWriter {
    bars: Option<MultiProgress>,
}

impl<'a> MakeWriter<'a> for LogWriter {
    type Writer = Line<'a>;

    fn make_writer(&'a self) -> Line<'a> {
        Line {
            bars: self.bars.as_ref(),
        }
    }
}

/// One line; `tracing` writes it at once.
struct Line<'a> {
    bars: Option<&'a MultiProgress>,
}

impl Write for Line<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.bars {
            Some(bars) => bars.suspend(|| io::stderr().write(bytes)),
            None => io::stderr().write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}
