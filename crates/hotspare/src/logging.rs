//! The log: `tracing` to standard error, for people or as JSON.
//!
//! Invariant: a line that is written while a progress bar is on the terminal does not tear it, and
//! one that cannot be written (a full disk, a reader that left) is dropped: the log never ends the
//! server.

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
    check_level(level)?;
    let bad_level = |e: &dyn std::fmt::Display| format!("--log-level {level}: {e}");
    let mut filter = EnvFilter::try_new(level).map_err(|e| bad_level(&e))?;
    // They write whole addresses, and those of a hub's files are signed.
    for secretive in [
        "hf_hub=off",
        "reqwest=info",
        "hyper_util=info",
        "h2=info",
        "xet=warn",
    ] {
        filter = filter.add_directive(secretive.parse().map_err(|e| bad_level(&e))?);
    }
    let is_colored = io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        // It would say so on standard error, and panic where that fails too.
        .log_internal_errors(false)
        .with_writer(LogWriter { bars });
    let result = match format {
        LogFormat::Human => builder.with_ansi(is_colored).try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
    result.map_err(|e| format!("the log cannot be set up: {e}"))
}

/// Refuses a word that is no level: the filter would take it for the name of a module, log that
/// module alone, and so nothing.
fn check_level(level: &str) -> Result<(), String> {
    const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
    let is_known = |part: &str| {
        let part = part.trim();
        let is_level = LEVELS.iter().any(|level| part.eq_ignore_ascii_case(level));
        is_level || part.contains(['=', ':', '[']) || part.parse::<u8>().is_ok()
    };
    match level.split(',').find(|part| !is_known(part)) {
        None => Ok(()),
        Some(part) => Err(format!(
            "--log-level {level}: `{part}` is none of {}, nor a module with its level \
             (hotspare_front=debug)",
            LEVELS.join(", ")
        )),
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_misspelt_level_is_refused() {
        for level in [
            "info",
            "WARN",
            "off",
            "info,hotspare_front=debug",
            "hotspare_http::sse=trace",
        ] {
            assert_eq!(check_level(level), Ok(()), "{level}");
        }
        for level in ["loud", "", "info,loud", "inof"] {
            let error = check_level(level).expect_err(level);
            assert!(error.starts_with("--log-level"), "{error}");
        }
    }
}
