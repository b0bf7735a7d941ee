//! Shows how the model loads: a bar on a terminal, a few lines in a log.
//!
//! Invariant: it ends, and takes the bar away, when the engine is ready or failed.

use hotspare_front::EngineState;
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use tokio::sync::watch;

/// Lines in the log for each stage whose length is known, at most: one for each so many percent.
const PERCENT_PER_LINE: u64 = 25;

/// Follows the states of an engine for as long as the server runs.
pub(crate) async fn show(mut states: watch::Receiver<EngineState>, bars: Option<MultiProgress>) {
    let mut view = View {
        bars,
        bar: None,
        stage: String::new(),
        line: 0,
    };
    loop {
        let state = states.borrow_and_update().clone();
        view.update(&state);
        if states.changed().await.is_err() {
            return;
        }
    }
}

struct View {
    bars: Option<MultiProgress>,
    bar: Option<ProgressBar>,
    /// The stage that was shown last, and which of its lines.
    stage: String,
    line: u64,
}

impl View {
    fn update(&mut self, state: &EngineState) {
        let EngineState::Loading { stage, done, total } = state else {
            if let Some(bar) = self.bar.take() {
                bar.finish_and_clear();
            }
            self.stage.clear();
            return;
        };
        let is_new_stage = *stage != self.stage;
        if is_new_stage {
            self.stage.clone_from(stage);
            self.line = 0;
        }
        match &self.bars {
            Some(bars) => {
                let bar = self.bar.get_or_insert_with(|| bars.add(new_bar()));
                bar.set_message(stage.clone());
                bar.set_length(*total);
                bar.set_position(*done);
            }
            None => {
                let percent = (done * 100).checked_div(*total).unwrap_or(0);
                let line = percent / PERCENT_PER_LINE;
                if is_new_stage || line > self.line {
                    self.line = line;
                    tracing::info!(percent, "loading: {stage}");
                }
            }
        }
    }
}

fn new_bar() -> ProgressBar {
    let style = ProgressStyle::with_template("{spinner} {msg} [{bar:40}] {percent}%");
    let style = style.expect("the template is a constant, and well formed");
    ProgressBar::new(0).with_style(style.progress_chars("=> "))
}
