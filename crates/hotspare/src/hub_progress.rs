//! Shows a download: a bar on a terminal, a few lines in a log.
//!
//! Invariant: lines come no more often than a person can follow, and never twice for the same
//! state.

use std::time::{Duration, Instant};

use hotspare_hub::HubProgress;
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

/// Time between two lines in a log, at least.
const LINE_INTERVAL: Duration = Duration::from_secs(10);

/// How a download goes.
pub(crate) struct View {
    model: String,
    bars: Option<MultiProgress>,
    bar: Option<ProgressBar>,
    num_bytes: u64,
    num_done: u64,
    last_line: Instant,
}

impl View {
    pub(crate) fn new(model: String, bars: Option<MultiProgress>) -> Self {
        Self {
            model,
            bars,
            bar: None,
            num_bytes: 0,
            num_done: 0,
            last_line: Instant::now(),
        }
    }

    /// Shows what happened.
    pub(crate) fn show(&mut self, event: HubProgress<'_>) {
        let model = self.model.clone();
        match event {
            HubProgress::Start {
                num_files,
                num_bytes,
            } => {
                (self.num_bytes, self.num_done) = (num_bytes, 0);
                self.last_line = Instant::now();
                let size = size(num_bytes);
                tracing::info!(num_files, num_bytes, "Fetching {model}: {size}.");
                self.end();
                if let Some(bars) = &self.bars {
                    let bar = bars.add(new_bar(num_bytes));
                    bar.set_message(model);
                    self.bar = Some(bar);
                }
            }
            HubProgress::Bytes { file, num_new } => self.add(file, num_new),
            HubProgress::Waiting { file } => {
                tracing::info!("Another process fetches {file}; waiting for it.");
            }
            HubProgress::Retry {
                file,
                num_bytes,
                reason,
                wait,
            } => tracing::warn!(
                num_bytes,
                wait_ms = wait.as_millis() as u64,
                "The download of {file} was cut ({reason}); going on from there."
            ),
            HubProgress::FromCache { reason } => {
                tracing::warn!("{reason}. Using what is in the cache.");
            }
        }
    }

    fn add(&mut self, file: &str, num_new: u64) {
        self.num_done += num_new;
        if let Some(bar) = &self.bar {
            bar.set_position(self.num_done);
            return;
        }
        if self.last_line.elapsed() >= LINE_INTERVAL {
            self.last_line = Instant::now();
            let percent = (self.num_done * 100)
                .checked_div(self.num_bytes)
                .unwrap_or(0);
            let (done, all) = (size(self.num_done), size(self.num_bytes));
            tracing::info!(percent, file, "Fetched {done} of {all}.");
        }
    }

    /// Takes the bar away.
    pub(crate) fn end(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }
}

/// A bar of bytes.
pub(crate) fn new_bar(num_bytes: u64) -> ProgressBar {
    let template = "{spinner} {msg} [{bar:30}] {bytes}/{total_bytes} {bytes_per_sec} {eta}";
    let style = ProgressStyle::with_template(template);
    let style = style.expect("the template is a constant, and well formed");
    ProgressBar::new(num_bytes).with_style(style.progress_chars("=> "))
}

/// Bytes for people: `512 B`, `1.50 kB`, `16.06 GB`.
pub(crate) fn size(num_bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "kB", "MB", "GB", "TB"];
    let mut value = num_bytes as f64;
    let mut unit = 0;
    // What would round to 1000.00 is one of the next unit.
    while value >= 999.995 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    match unit {
        0 => format!("{num_bytes} B"),
        _ => format!("{value:.2} {}", UNITS[unit]),
    }
}

#[cfg(test)]
mod tests {
    use super::size;

    #[test]
    fn sizes_are_readable() {
        for (num_bytes, text) in [
            (0, "0 B"),
            (999, "999 B"),
            (1500, "1.50 kB"),
            (999_999, "1.00 MB"),
            (16_060_522_496, "16.06 GB"),
            (u64::MAX, "18446744.07 TB"),
        ] {
            assert_eq!(size(num_bytes), text);
        }
    }
}
