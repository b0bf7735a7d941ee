//! The stream of one job: its attempts on targets, its choices, and their deltas.
//!
//! It is driven by whoever reads it: detokenizing and searching happen in the reader's task, one
//! token at a time, so a slow client slows nobody else.
//!
//! Invariant: it ends after the last choice's finish or after one error, and dropping it cancels
//! every sequence that has not ended.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use futures::Stream;
use hotspare_batch::{DrawnTokens, Generate, RejectReason, RequestId, TokenId};
use hotspare_journal::RequestRecord;
use hotspare_protocol::FinishReason;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;

use crate::admission::Entry;
use crate::choice::{Choice, Progress};
use crate::convictions::ContentHash;
use crate::in_flight::InFlightGuard;
use crate::metrics::{ChoiceRecord, Metrics};
use crate::placement::Placement;
use crate::replay_metrics::ReplayOutcome;
use crate::replays::Replays;
use crate::slot::EngineSlot;
use crate::stream_replay::Failure;
use crate::target::{
    Arrival, ArrivalKind, Feed, Loss, LossCause, NUM_EXTRA_ARRIVALS, SubmitError, Target,
};
use crate::trail::{Trail, Trails};
use crate::{ChoiceDelta, GenerateError};

/// One choice and its sequence.
pub(crate) struct Sequence {
    pub(crate) request_id: RequestId,
    /// Number of the attempt that runs.
    pub(crate) attempt: u32,
    pub(crate) choice: Choice,
    num_prompt_tokens: usize,
    max_tokens: u32,
    pub(crate) is_admitted: bool,
    /// Where it runs.
    pub(crate) placement: Arc<Placement>,
    /// The task that looks for the next place.
    pub(crate) replay: Option<AbortHandle>,
    /// What it is, where the journal does not know.
    pub(crate) content: Option<ContentHash>,
    /// What a spare reads along of it.
    pub(crate) trail: Option<Arc<Trail>>,
    /// Since when it has no token because its target was lost.
    pub(crate) gap: Option<Instant>,
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
    pub(crate) context: StreamContext,
    arrivals: mpsc::Receiver<Arrival>,
    pub(crate) sender: mpsc::Sender<Arrival>,
    /// A target sent more than it may.
    pub(crate) has_overflowed: Arc<AtomicBool>,
    pub(crate) sequences: Vec<Sequence>,
    /// What it takes to continue them.
    pub(crate) record: RequestRecord,
    /// Sequences that wait to be continued.
    pub(crate) num_gaps: usize,
    /// Deltas that are ready to be read.
    ready: VecDeque<ChoiceDelta>,
    /// Read after the deltas; nothing follows.
    error: Option<GenerateError>,
    num_open: usize,
    num_admitted: usize,
    has_ended: bool,
    /// It is to be admitted afresh.
    pub(crate) has_moved: bool,
    pub(crate) started_at: Instant,
    _in_flight: InFlightGuard,
}

/// A sequence to start, and the choice that it feeds.
pub(crate) struct Start {
    pub(crate) request: Generate,
    pub(crate) choice: Choice,
}

/// What streams need of their front.
#[derive(Clone)]
pub(crate) struct StreamContext {
    pub(crate) slot: Arc<EngineSlot>,
    pub(crate) replays: Arc<Replays>,
    pub(crate) trails: Arc<Trails>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) retry_after: RetryAfter,
    pub(crate) max_num_replay_attempts: u32,
    pub(crate) replay_timeout: Duration,
    pub(crate) replay_retry_interval: Duration,
    /// What has not begun is admitted by the pair's rules, and never by way of a replay.
    pub(crate) is_paired: bool,
}

/// One job's own part of a stream.
pub(crate) struct StreamJob {
    pub(crate) starts: Vec<Start>,
    pub(crate) record: RequestRecord,
    /// Where it begins.
    pub(crate) entry: Entry,
    pub(crate) in_flight: InFlightGuard,
    pub(crate) started_at: Instant,
}

/// Why a stream was not opened. Nothing of the job runs then.
pub(crate) enum NotOpened {
    /// For good.
    Failed(GenerateError),
    /// Its engine went, or was not this request's any more, before it took anything in. In a pair
    /// it is to be admitted afresh, wherever that is now.
    Moved,
}

impl From<GenerateError> for NotOpened {
    fn from(error: GenerateError) -> Self {
        Self::Failed(error)
    }
}

impl GenerationStream {
    /// Submits every sequence and waits until all are admitted.
    pub(crate) async fn open(context: StreamContext, job: StreamJob) -> Result<Self, NotOpened> {
        let starts = job.starts;
        let num_arrivals = starts
            .iter()
            .map(|start| start.request.stop.max_tokens as usize + NUM_EXTRA_ARRIVALS);
        let capacity = num_arrivals
            .sum::<usize>()
            .clamp(1, tokio::sync::Semaphore::MAX_PERMITS);
        let (sender, arrivals) = mpsc::channel(capacity);
        let mut stream = Self {
            context,
            arrivals,
            sender,
            has_overflowed: Arc::default(),
            sequences: Vec::with_capacity(starts.len()),
            record: job.record,
            num_gaps: 0,
            ready: VecDeque::new(),
            error: None,
            num_open: starts.len(),
            num_admitted: 0,
            has_ended: false,
            has_moved: false,
            started_at: job.started_at,
            _in_flight: job.in_flight,
        };
        let hello = job.entry.client.hello();
        stream
            .record
            .begin_on(&hello.model_hash, &hello.numerics_id);
        for (index, start) in starts.into_iter().enumerate() {
            stream.submit(index, start, &job.entry.target)?;
        }
        while stream.num_admitted < stream.sequences.len()
            && stream.error.is_none()
            && !stream.has_moved
        {
            poll_fn(|cx| stream.poll_arrival(cx)).await;
        }
        match stream.error.take() {
            _ if stream.has_moved => Err(NotOpened::Moved),
            Some(error) => Err(error.into()),
            None => Ok(stream),
        }
    }

    fn submit(
        &mut self,
        index: usize,
        start: Start,
        target: &Arc<dyn Target>,
    ) -> Result<(), GenerateError> {
        let Start { request, choice } = start;
        let placement = Arc::new(Placement::new());
        self.sequences.push(Sequence {
            request_id: request.request_id,
            attempt: request.attempt,
            choice,
            num_prompt_tokens: request.num_prompt_tokens(),
            max_tokens: request.stop.max_tokens,
            is_admitted: false,
            placement: Arc::clone(&placement),
            replay: None,
            content: self.record.not_resumable().map(|_| {
                let params = self.record.params();
                ContentHash::new(&request.ids, &params.sampling, &params.stop)
            }),
            trail: self
                .context
                .trails
                .start(&self.record, index, request.request_id),
            gap: None,
            queued: None,
            first_token_at: None,
            last_token_at: None,
            end: None,
        });
        let replays = Arc::clone(&self.context.replays);
        let feed = Feed::new(index as u32, self.sender.clone())
            .resumable(replays, Arc::clone(&self.has_overflowed));
        match placement.submit(Arc::clone(target), true, request, feed) {
            Ok(()) => Ok(()),
            Err(SubmitError::Gone) => {
                let loss = Loss {
                    message: "the engine has just ended".to_owned(),
                    cause: LossCause::Outside,
                };
                self.replay(index, &Failure::Lost(loss), Instant::now());
                Ok(())
            }
            Err(SubmitError::Full {
                max_num_unsent_requests,
            }) => Err(self.queue_full(u32::try_from(max_num_unsent_requests).unwrap_or(u32::MAX))),
        }
    }

    /// Handles one arrival, once there is one.
    fn poll_arrival(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        // The stream holds a sender itself, so the channel is never closed.
        if let Poll::Ready(Some(arrival)) = self.arrivals.poll_recv(cx) {
            self.on_arrival(arrival);
            return Poll::Ready(());
        }
        Poll::Pending
    }

    pub(crate) fn not_ready(&self, reason: &str) -> GenerateError {
        GenerateError::NotReady {
            reason: reason.to_owned(),
            retry_after_s: self.context.retry_after.not_ready_s,
        }
    }

    fn queue_full(&self, max_num_waiting: u32) -> GenerateError {
        GenerateError::QueueFull {
            max_num_waiting,
            retry_after_s: self.context.retry_after.queue_full_s,
        }
    }

    fn on_arrival(&mut self, arrival: Arrival) {
        if self.has_overflowed.load(Ordering::SeqCst) {
            let message = "the engine sent more than was asked for";
            self.fail(GenerateError::EngineFailed(message.to_owned()));
            return;
        }
        let Arrival {
            index,
            attempt,
            at,
            kind,
        } = arrival;
        let index = index as usize;
        let Some(sequence) = self.sequences.get(index) else {
            return;
        };
        if sequence.attempt != attempt || sequence.end.is_some() {
            return;
        }
        match kind {
            ArrivalKind::Admitted => self.on_admitted(index),
            ArrivalKind::Rejected(reason) => self.on_rejected(index, reason, at),
            ArrivalKind::Lost(loss) => self.replay(index, &Failure::Lost(loss), at),
            ArrivalKind::NotReplayed(reason) => self.on_not_replayed(index, reason),
            ArrivalKind::Event(event) => self.on_event(index, event, at),
            // The flag says it.
            ArrivalKind::Overflow => {}
        }
    }

    pub(crate) fn on_admitted(&mut self, index: usize) {
        self.record.on_admitted(index, self.started_at.elapsed());
        if !std::mem::replace(&mut self.sequences[index].is_admitted, true) {
            self.num_admitted += 1;
        }
    }

    fn on_rejected(&mut self, index: usize, reason: RejectReason, at: Instant) {
        let is_first = self.sequences[index].attempt == 0;
        let error = match reason {
            RejectReason::QueueFull { max_num_waiting } if is_first => {
                self.queue_full(max_num_waiting)
            }
            RejectReason::QueueFull { .. } => return self.replay(index, &Failure::Full, at),
            RejectReason::Draining => return self.replay(index, &Failure::Draining, at),
            RejectReason::Impossible(reason) => GenerateError::Impossible(reason),
        };
        self.sequences[index].placement.clear();
        self.fail(error);
    }

    pub(crate) fn on_event(
        &mut self,
        index: usize,
        mut event: hotspare_batch::SequenceEvent,
        at: Instant,
    ) {
        if event.prompt.is_some() && !self.record.on_prompt_report(index) {
            // A later attempt's: its cache and its queue are not what the client asked about.
            event.prompt = None;
        }
        let sequence = &mut self.sequences[index];
        if let Some(queued_ms) = event.prompt.as_ref().and_then(|prompt| prompt.queued_ms) {
            sequence.queued = Some(Duration::from_millis(queued_ms));
        }
        let num_known = sequence
            .choice
            .num_tokens()
            .saturating_sub(event.first_index) as usize;
        let new: DrawnTokens = event.token_ids.iter().skip(num_known).copied().collect();
        if !new.is_empty() {
            let metrics = &self.context.metrics;
            match sequence.last_token_at {
                None => {
                    sequence.first_token_at = Some(at);
                    metrics.on_first_token(at.saturating_duration_since(self.started_at));
                }
                Some(last) => metrics.on_next_token(at.saturating_duration_since(last)),
            }
            sequence.last_token_at = Some(at);
        }
        if !new.is_empty() || event.finish.is_some() {
            self.end_gap(index, at);
        }
        self.deliver(index, &new);
        let sequence = &mut self.sequences[index];
        match sequence.choice.on_event(event, &mut self.ready) {
            Progress::Open => {}
            Progress::Done(reason) => {
                sequence.placement.clear();
                self.end_choice(index, reason, at);
            }
            Progress::DoneEarly => {
                sequence.placement.close(sequence.request_id);
                self.end_choice(index, FinishReason::Stop, at);
            }
            Progress::Failed(message) => {
                sequence.placement.close(sequence.request_id);
                self.end_choice(index, FinishReason::Error, at);
                self.fail(GenerateError::EngineFailed(message));
            }
        }
    }

    /// Records what a client is given.
    fn deliver(&mut self, index: usize, new: &[TokenId]) {
        let let_go = self.record.deliver(index, new);
        for (sequence, prompt) in self.sequences.iter_mut().zip(let_go) {
            let params = self.record.params();
            let content = ContentHash::new(&prompt, &params.sampling, &params.stop);
            (sequence.content, sequence.trail) = (Some(content), None);
        }
        if let Some(trail) = &self.sequences[index].trail {
            trail.push(new);
        }
    }

    fn end_choice(&mut self, index: usize, reason: FinishReason, at: Instant) {
        let sequence = &mut self.sequences[index];
        sequence.end = Some(reason);
        sequence.trail = None;
        self.num_open -= 1;
        self.forget(index);
        let sequence = &self.sequences[index];
        let decode = sequence.first_token_at.zip(sequence.last_token_at);
        let started_at = self.started_at;
        let to_first = sequence
            .first_token_at
            .map(|at| at.saturating_duration_since(started_at));
        self.context.metrics.on_choice_end(&ChoiceRecord {
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

    /// Nothing of a sequence is to be continued any more. No target has it now: one that was lost
    /// a moment ago has said so already, even if this stream has not read it.
    fn forget(&mut self, index: usize) {
        if let Some(origin) = self.record.origin() {
            let request_id = self.sequences[index].request_id;
            self.context.replays.forget(&origin.model_hash, request_id);
        }
        self.record.finish(index);
    }

    /// Whether no engine has taken anything of it in yet.
    pub(crate) fn has_not_begun(&self) -> bool {
        self.num_admitted == 0
    }

    pub(crate) fn fail(&mut self, error: GenerateError) {
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
            if let Some(replay) = sequence.replay.take() {
                replay.abort();
            }
            sequence.placement.close(sequence.request_id);
            self.close_gap(index, ReplayOutcome::Abort, at);
            let sequence = &self.sequences[index];
            if sequence.end.is_some() {
                continue;
            }
            match was_admitted {
                true => self.end_choice(index, reason, at),
                false => self.forget(index),
            }
        }
        if was_admitted {
            let lengths = self.sequences.iter().map(|s| s.choice.num_tokens());
            self.context.metrics.on_job_end(lengths.max().unwrap_or(0));
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
            if this.poll_arrival(cx).is_pending() {
                return Poll::Pending;
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
