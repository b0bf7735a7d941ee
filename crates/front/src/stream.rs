//! The stream of one job: its attempts on targets, its choices, and their deltas.
//!
//! It is driven by whoever reads it: detokenizing and searching happen in the reader's task, one
//! token at a time, so a slow client slows nobody else.
//!
//! Invariant: it ends after the last choice's finish or after one error, and dropping it cancels
//! every sequence that has not ended.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use futures::Stream;
use hotspare_batch::{Generate, RejectReason, RequestId};
use hotspare_protocol::FinishReason;
use tokio::sync::mpsc;

use crate::choice::{Choice, Progress};
use crate::in_flight::InFlightGuard;
use crate::metrics::{ChoiceRecord, Metrics};
use crate::target::{Arrival, ArrivalKind, Feed, NUM_EXTRA_ARRIVALS, SubmitError, Target};
use crate::{ChoiceDelta, GenerateError};

/// One choice and its sequence.
struct Sequence {
    request_id: RequestId,
    attempt: u32,
    choice: Choice,
    num_prompt_tokens: usize,
    max_tokens: u32,
    is_admitted: bool,
    /// Whether the target still works on it, as far as is known.
    is_live: bool,
    /// What the engine says that it waited.
    queued: Option<Duration>,
    first_token_at: Option<Instant>,
    last_token_at: Option<Instant>,
    end: Option<FinishReason>,
}

/// How long clients are told to wait.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RetryAfter {
    pub(crate) queue_full_s: u32,
    pub(crate) not_ready_s: u32,
}

/// The deltas of a job, in token order within each choice. See the module.
pub struct GenerationStream {
    target: Arc<dyn Target>,
    metrics: Arc<Metrics>,
    arrivals: mpsc::Receiver<Arrival>,
    sequences: Vec<Sequence>,
    /// Deltas that are ready to be read.
    ready: VecDeque<ChoiceDelta>,
    /// Read after the deltas; nothing follows.
    error: Option<GenerateError>,
    num_open: usize,
    num_admitted: usize,
    has_ended: bool,
    started_at: Instant,
    retry_after: RetryAfter,
    _in_flight: InFlightGuard,
}

/// A sequence to start, and the choice that it feeds.
pub(crate) struct Start {
    pub(crate) request: Generate,
    pub(crate) choice: Choice,
}

/// What a stream needs beside its sequences.
pub(crate) struct StreamContext {
    pub(crate) target: Arc<dyn Target>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) retry_after: RetryAfter,
    pub(crate) in_flight: InFlightGuard,
    pub(crate) started_at: Instant,
}

impl GenerationStream {
    /// Submits every sequence and waits until all are admitted.
    pub(crate) async fn open(
        context: StreamContext,
        starts: Vec<Start>,
    ) -> Result<Self, GenerateError> {
        let num_arrivals = starts
            .iter()
            .map(|start| start.request.stop.max_tokens as usize + NUM_EXTRA_ARRIVALS);
        let capacity = num_arrivals
            .sum::<usize>()
            .clamp(1, tokio::sync::Semaphore::MAX_PERMITS);
        let (sender, arrivals) = mpsc::channel(capacity);
        let mut stream = Self {
            target: context.target,
            metrics: context.metrics,
            arrivals,
            sequences: Vec::with_capacity(starts.len()),
            ready: VecDeque::new(),
            error: None,
            num_open: starts.len(),
            num_admitted: 0,
            has_ended: false,
            started_at: context.started_at,
            retry_after: context.retry_after,
            _in_flight: context.in_flight,
        };
        for (index, start) in (0..).zip(starts) {
            let feed = Feed::new(index, sender.clone());
            stream.submit(start, feed)?;
        }
        drop(sender);
        while stream.num_admitted < stream.sequences.len() {
            let arrival = stream.arrivals.recv().await;
            stream.on_arrival(arrival);
            if let Some(error) = stream.error.take() {
                return Err(error);
            }
        }
        Ok(stream)
    }

    fn submit(&mut self, start: Start, feed: Feed) -> Result<(), GenerateError> {
        let Start { request, choice } = start;
        let sequence = Sequence {
            request_id: request.request_id,
            attempt: request.attempt,
            choice,
            num_prompt_tokens: request.num_prompt_tokens(),
            max_tokens: request.stop.max_tokens,
            is_admitted: false,
            is_live: true,
            queued: None,
            first_token_at: None,
            last_token_at: None,
            end: None,
        };
        match self.target.submit(request, feed) {
            Ok(()) => {
                self.sequences.push(sequence);
                Ok(())
            }
            Err(SubmitError::Gone) => Err(self.not_ready("the engine has just ended")),
            Err(SubmitError::Full {
                max_num_unsent_requests,
            }) => Err(self.queue_full(u32::try_from(max_num_unsent_requests).unwrap_or(u32::MAX))),
        }
    }

    fn not_ready(&self, reason: &str) -> GenerateError {
        GenerateError::NotReady {
            reason: reason.to_owned(),
            retry_after_s: self.retry_after.not_ready_s,
        }
    }

    fn queue_full(&self, max_num_waiting: u32) -> GenerateError {
        GenerateError::QueueFull {
            max_num_waiting,
            retry_after_s: self.retry_after.queue_full_s,
        }
    }

    /// Handles what came, or that nothing can come any more.
    fn on_arrival(&mut self, arrival: Option<Arrival>) {
        let Some(arrival) = arrival else {
            let message = "the engine dropped the request";
            self.fail(GenerateError::EngineFailed(message.to_owned()));
            return;
        };
        let Arrival {
            index,
            attempt,
            at,
            kind,
        } = arrival;
        let Some(sequence) = self.sequences.get_mut(index as usize) else {
            return;
        };
        if sequence.attempt != attempt || sequence.end.is_some() {
            return;
        }
        match kind {
            ArrivalKind::Admitted => {
                if !std::mem::replace(&mut sequence.is_admitted, true) {
                    self.num_admitted += 1;
                }
            }
            ArrivalKind::Rejected(reason) => {
                sequence.is_live = false;
                let error = match reason {
                    RejectReason::QueueFull { max_num_waiting } => self.queue_full(max_num_waiting),
                    RejectReason::Impossible(reason) => GenerateError::Impossible(reason),
                    RejectReason::Draining => self.not_ready("the engine is draining"),
                };
                self.fail(error);
            }
            ArrivalKind::Lost(loss) => {
                sequence.is_live = false;
                // Nothing of it has run, so the client may safely try again.
                let error = match sequence.is_admitted {
                    true => GenerateError::EngineFailed(loss.message),
                    false => self.not_ready("the engine has just ended"),
                };
                self.fail(error);
            }
            ArrivalKind::Event(event) => self.on_event(index as usize, event, at),
        }
    }

    fn on_event(&mut self, index: usize, event: hotspare_batch::SequenceEvent, at: Instant) {
        let sequence = &mut self.sequences[index];
        if let Some(queued_ms) = event.prompt.as_ref().and_then(|prompt| prompt.queued_ms) {
            sequence.queued = Some(Duration::from_millis(queued_ms));
        }
        if !event.token_ids.is_empty() {
            match sequence.last_token_at {
                None => {
                    sequence.first_token_at = Some(at);
                    self.metrics
                        .on_first_token(at.saturating_duration_since(self.started_at));
                }
                Some(last) => self
                    .metrics
                    .on_next_token(at.saturating_duration_since(last)),
            }
            sequence.last_token_at = Some(at);
        }
        match sequence.choice.on_event(event, &mut self.ready) {
            Progress::Open => {}
            Progress::Done(reason) => {
                sequence.is_live = false;
                self.end_choice(index, reason, at);
            }
            Progress::DoneEarly => {
                sequence.is_live = false;
                self.target.cancel(sequence.request_id);
                self.end_choice(index, FinishReason::Stop, at);
            }
            Progress::Failed(message) => {
                sequence.is_live = false;
                self.target.cancel(sequence.request_id);
                self.end_choice(index, FinishReason::Error, at);
                self.fail(GenerateError::EngineFailed(message));
            }
        }
    }

    fn end_choice(&mut self, index: usize, reason: FinishReason, at: Instant) {
        let sequence = &mut self.sequences[index];
        sequence.end = Some(reason);
        self.num_open -= 1;
        let decode = sequence.first_token_at.zip(sequence.last_token_at);
        let started_at = self.started_at;
        let to_first = sequence
            .first_token_at
            .map(|at| at.saturating_duration_since(started_at));
        self.metrics.on_choice_end(&ChoiceRecord {
            reason,
            num_prompt_tokens: sequence.num_prompt_tokens,
            num_tokens: sequence.choice.num_tokens(),
            max_tokens: sequence.max_tokens,
            e2e: at.saturating_duration_since(self.started_at),
            queue: sequence.queued,
            prefill: to_first.map(|time| time.saturating_sub(sequence.queued.unwrap_or_default())),
            decode: decode.map(|(first, last)| last.saturating_duration_since(first)),
        });
    }

    fn fail(&mut self, error: GenerateError) {
        self.error.get_or_insert(error);
    }

    /// Cancels what runs and records what did not end by itself.
    fn close(&mut self) {
        let at = Instant::now();
        let was_admitted = self.num_admitted == self.sequences.len() && self.num_admitted > 0;
        let reason = match self.error {
            Some(_) => FinishReason::Error,
            None => FinishReason::Abort,
        };
        for index in 0..self.sequences.len() {
            let sequence = &mut self.sequences[index];
            if std::mem::replace(&mut sequence.is_live, false) {
                self.target.cancel(sequence.request_id);
            }
            if sequence.end.is_none() && was_admitted {
                self.end_choice(index, reason, at);
            }
        }
        if was_admitted {
            let lengths = self.sequences.iter().map(|s| s.choice.num_tokens());
            self.metrics.on_job_end(lengths.max().unwrap_or(0));
        }
    }
}

impl Stream for GenerationStream {
    type Item = Result<ChoiceDelta, GenerateError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        if this.has_ended {
            return Poll::Ready(None);
        }
        loop {
            if let Some(delta) = this.ready.pop_front() {
                return Poll::Ready(Some(Ok(delta)));
            }
            if this.error.is_some() || this.num_open == 0 {
                this.has_ended = true;
                this.close();
                return Poll::Ready(this.error.take().map(Err));
            }
            match this.arrivals.poll_recv(cx) {
                Poll::Ready(arrival) => this.on_arrival(arrival),
                Poll::Pending => return Poll::Pending,
            }
        }
    }
}

impl Drop for GenerationStream {
    fn drop(&mut self) {
        if !self.has_ended {
            self.close();
        }
    }
}
