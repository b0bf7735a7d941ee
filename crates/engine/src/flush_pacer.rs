//! When the engine writes its events: at once, or together with those of the next steps.
//!
//! A step of a small model takes less time than it takes to wake a front, sixteen streams and their
//! clients for one token each. Where steps follow each other faster than a reader can see, their
//! tokens are written together, a few milliseconds' worth; slower steps are written one by one.
//!
//! Invariant: nothing is held while nothing runs, nor over a step that carries prompt tokens; a
//! sequence's first token, its end and every answer to the front are never held.

use std::time::{Duration, Instant};

use hotspare_batch::{Batch, SequenceEvent, StepId};

/// See the module.
#[derive(Debug)]
pub(crate) struct FlushPacer {
    interval: Duration,
    last_flush: Instant,
    /// Whether something queued must not wait.
    is_urgent: bool,
    /// The last step submitted that takes longer than drawing tokens does.
    last_long_step: StepId,
}

impl FlushPacer {
    /// Holds events for at most `interval`; zero holds none.
    pub(crate) fn new(interval: Duration, now: Instant) -> Self {
        Self {
            interval,
            last_flush: now,
            is_urgent: true,
            last_long_step: 0,
        }
    }

    /// Something was queued that must not wait.
    pub(crate) fn on_urgent(&mut self) {
        self.is_urgent = true;
    }

    /// `events` were queued.
    pub(crate) fn on_events(&mut self, events: &[SequenceEvent]) {
        self.is_urgent |= events
            .iter()
            .any(|event| event.first_index == 0 || event.finish.is_some());
    }

    /// `batch` was submitted.
    pub(crate) fn on_submit(&mut self, batch: &Batch) {
        if batch.num_tokens() > batch.rows.len() {
            self.last_long_step = batch.step;
        }
    }

    /// Whether to write what is queued now; if so, it counts as written. `committed` is the last
    /// step whose events are queued.
    pub(crate) fn is_due(&mut self, committed: StepId, now: Instant) -> bool {
        let due = self.is_urgent
            || self.last_long_step > committed
            || now.saturating_duration_since(self.last_flush) >= self.interval;
        if due {
            self.is_urgent = false;
            self.last_flush = now;
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use hotspare_batch::{FinishReason, RequestId, Row};

    use super::*;

    const INTERVAL: Duration = Duration::from_millis(5);

    fn pacer() -> (FlushPacer, Instant) {
        let start = Instant::now();
        let mut pacer = FlushPacer::new(INTERVAL, start);
        assert!(pacer.is_due(0, start), "whatever is queued at the start");
        (pacer, start)
    }

    fn event(first_index: u32, finish: Option<FinishReason>) -> SequenceEvent {
        SequenceEvent {
            request_id: RequestId(1),
            attempt: 0,
            first_index,
            token_ids: [7].into_iter().collect(),
            logprobs: Vec::new(),
            prompt: None,
            finish,
        }
    }

    fn batch(step: StepId, tokens_of_rows: &[u32]) -> Batch {
        let mut batch = Batch {
            step,
            ..Batch::default()
        };
        for &num_tokens in tokens_of_rows {
            let first = batch.token_ids.len() as u32;
            batch.token_ids.resize((first + num_tokens) as usize, 0);
            batch.rows.push(Row {
                slot: 0,
                num_computed_tokens: 0,
                tokens: first..first + num_tokens,
                blocks: 0..0,
                samples: true,
                wants_prompt_logprobs: false,
                next_prompt_token: None,
            });
        }
        batch
    }

    #[test]
    fn tokens_wait_for_the_interval() {
        let (mut pacer, start) = pacer();
        let due: Vec<u64> = (1..=12)
            .filter(|&ms| {
                pacer.on_submit(&batch(ms + 1, &[1, 1]));
                pacer.on_events(&[event(ms as u32, None)]);
                pacer.is_due(ms, start + Duration::from_millis(ms))
            })
            .collect();
        assert_eq!(due, [5, 10]);
    }

    #[test]
    fn a_first_token_an_end_and_an_answer_are_written_at_once() {
        let (mut pacer, start) = pacer();
        let now = start + Duration::from_millis(1);
        for finish in [None, Some(FinishReason::Length)] {
            pacer.on_events(&[event(3, None), event(0, finish)]);
            assert!(pacer.is_due(1, now));
            assert!(!pacer.is_due(1, now), "it was written");
        }
        pacer.on_events(&[event(3, Some(FinishReason::Length))]);
        assert!(pacer.is_due(1, now));
        pacer.on_urgent();
        assert!(pacer.is_due(1, now));
        pacer.on_events(&[event(3, None)]);
        assert!(!pacer.is_due(1, now));
    }

    #[test]
    fn nothing_waits_for_a_step_with_prompt_tokens() {
        let (mut pacer, start) = pacer();
        pacer.on_submit(&batch(2, &[1, 40]));
        pacer.on_submit(&batch(3, &[1, 1]));
        assert!(pacer.is_due(1, start), "step 2 runs");
        assert!(!pacer.is_due(2, start), "step 2 is done, step 3 is short");
    }

    #[test]
    fn no_interval_holds_nothing() {
        let start = Instant::now();
        let mut pacer = FlushPacer::new(Duration::ZERO, start);
        assert!((1..4).all(|step| pacer.is_due(step, start)));
    }
}
