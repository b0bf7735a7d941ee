//! Progress while loading, for a front that shows it.
//!
//! Invariant: it is sent no more often than a person can follow, and each stage's end always.

use std::time::{Duration, Instant};

use hotspare_link::EngineMessage;

use crate::EngineError;
use crate::outbox::Outbox;

/// Reports how loading goes, not more often than a person can follow.
pub(crate) struct ProgressReporter<'a> {
    outbox: &'a mut Outbox,
    last: Option<(String, Instant)>,
    failed: Option<EngineError>,
}

/// Time between two reports of the same stage.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(100);

impl<'a> ProgressReporter<'a> {
    pub(crate) fn new(outbox: &'a mut Outbox) -> Self {
        Self {
            outbox,
            last: None,
            failed: None,
        }
    }

    /// Sends a report, unless one of the same stage was sent just now and this is not its last.
    pub(crate) fn report(&mut self, stage: &str, done: u64, total: u64) {
        let recent = self.last.as_ref().is_some_and(|(last_stage, at)| {
            last_stage == stage && at.elapsed() < PROGRESS_INTERVAL && done < total
        });
        if recent || self.failed.is_some() {
            return;
        }
        self.last = Some((stage.to_owned(), Instant::now()));
        let stage = stage.to_owned();
        let message = EngineMessage::Loading { stage, done, total };
        self.failed = self.outbox.send(&message).err();
    }

    /// Whether the front took the reports.
    pub(crate) fn finish(self) -> Result<(), EngineError> {
        self.failed.map_or(Ok(()), Err)
    }
}
