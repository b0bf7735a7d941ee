//! One life of an engine, seen from the front: who waits for what, and what is still to be written.
//!
//! A table maps sequences to the feeds of their streams; a bounded outbox holds messages until the
//! writer takes them. Neither side ever waits for a stream: a slow client costs its own channel and
//! nothing else.
//!
//! Invariant: an event reaches a feed only if the sequence is in the table with the same attempt;
//! closing the client empties the table and tells every feed.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use hotspare_batch::{Generate, RejectReason, RequestId, SequenceEvent};
use hotspare_link::{EngineHello, EngineMessage, EngineStats, FrontMessage, LinkError};
use tokio::sync::{Notify, watch};

use crate::kv_mirror::copies_blocks;
use crate::liveness::{Liveness, LivenessConfig, Verdict};
use crate::relay_outbox::RelayOutbox;
use crate::target::{ArrivalKind, Feed, Loss, LossCause, SubmitError, Target};

struct Sequence {
    attempt: u32,
    feed: Feed,
    /// The engine has said that it takes it in: from then on it may be in a step.
    is_admitted: bool,
}

#[derive(Default)]
struct Table {
    sequences: HashMap<RequestId, Sequence>,
    is_closed: bool,
    /// Something that is read along was given to it since there was none for sure.
    has_shadows: bool,
}

impl Table {
    /// It works for a client, and reads nothing along meanwhile. Returns the shadows that end by
    /// that, which are no longer in here.
    fn end_shadows(&mut self) -> Vec<(RequestId, Sequence)> {
        match std::mem::take(&mut self.has_shadows) {
            false => Vec::new(),
            true => self.sequences.extract_if(|id, _| id.is_shadow()).collect(),
        }
    }

    /// Sequences that clients asked for.
    fn served(&self) -> impl Iterator<Item = &RequestId> {
        self.sequences.keys().filter(|id| !id.is_shadow())
    }
}

/// Messages that wait for the writer. Only requests are bounded by number: of the others there is
/// at most one cancellation for each sequence, and a handful of control messages.
#[derive(Default)]
struct Outbox {
    messages: VecDeque<FrontMessage>,
    num_requests: usize,
}

/// How an engine's connection ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ending {
    /// As every sequence was told.
    pub(crate) loss: Loss,
    /// Sequences of clients that it had.
    pub(crate) num_sequences: usize,
}

/// See the module.
pub(crate) struct EngineClient {
    hello: EngineHello,
    max_num_unsent_requests: usize,
    table: Mutex<Table>,
    outbox: Mutex<Outbox>,
    has_mail: Notify,
    stats: Mutex<EngineStats>,
    num_tokens: AtomicU64,
    last_step: AtomicU64,
    liveness: Mutex<Liveness>,
    /// Fronts that this engine works for, beside the own one.
    relays: Mutex<Vec<Arc<RelayOutbox>>>,
    ending: watch::Sender<Option<Ending>>,
    /// It was told of KV blocks that a lost engine left.
    has_lost_blocks: AtomicBool,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // The data is consistent between statements; a panic elsewhere does not make it less so.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl EngineClient {
    pub(crate) fn new(
        hello: EngineHello,
        max_num_unsent_requests: usize,
        liveness: LivenessConfig,
    ) -> Self {
        Self {
            hello,
            max_num_unsent_requests,
            table: Mutex::default(),
            outbox: Mutex::default(),
            has_mail: Notify::new(),
            stats: Mutex::default(),
            num_tokens: AtomicU64::new(0),
            last_step: AtomicU64::new(0),
            liveness: Mutex::new(Liveness::new(liveness, Instant::now())),
            relays: Mutex::default(),
            ending: watch::Sender::new(None),
            has_lost_blocks: AtomicBool::new(false),
        }
    }

    /// Tells the engine of the KV blocks that a lost one left in `path`.
    pub(crate) fn adopt_blocks(&self, path: String) {
        self.has_lost_blocks.store(true, Ordering::Relaxed);
        self.send_control(FrontMessage::AdoptKv { path });
    }

    /// The end of [`Self::adopt_blocks`].
    pub(crate) fn forget_blocks(&self) {
        self.has_lost_blocks.store(false, Ordering::Relaxed);
        self.send_control(FrontMessage::ForgetKv);
    }

    /// Whether it was told of such blocks and copies them.
    pub(crate) fn has_lost_blocks(&self) -> bool {
        copies_blocks(&self.hello) && self.has_lost_blocks.load(Ordering::Relaxed)
    }

    /// Tells `relay` of steps, counters and canaries from now on.
    pub(crate) fn add_relay(&self, relay: Arc<RelayOutbox>) {
        lock(&self.relays).push(relay);
    }

    /// The end of [`Self::add_relay`].
    pub(crate) fn remove_relay(&self, relay: &Arc<RelayOutbox>) {
        lock(&self.relays).retain(|known| !Arc::ptr_eq(known, relay));
    }

    fn tell_relays(&self, tell: impl Fn(&RelayOutbox)) {
        for relay in lock(&self.relays).iter() {
            tell(relay);
        }
    }

    /// Returns once the connection has ended.
    pub(crate) async fn ended(&self) -> Ending {
        let mut ending = self.ending.subscribe();
        let ended = ending.wait_for(Option::is_some).await;
        let ended = ended.ok().and_then(|ending| ending.clone());
        match ended {
            Some(ending) => ending,
            // The sender lives as long as this.
            None => std::future::pending().await,
        }
    }

    /// Asks for a canary's token, unless one is under way: relays hear of its end either way.
    pub(crate) fn ask_canary(&self) {
        if !self.has_canary() {
            let nonce = self.start_canary();
            self.send_control(FrontMessage::Canary { nonce });
        }
    }

    /// What the engine said it is.
    pub(crate) fn hello(&self) -> &EngineHello {
        &self.hello
    }

    /// The engine's latest counters and gauges.
    pub(crate) fn stats(&self) -> EngineStats {
        lock(&self.stats).clone()
    }

    /// Tokens that arrived in this life.
    pub(crate) fn num_tokens(&self) -> u64 {
        self.num_tokens.load(Ordering::Relaxed)
    }

    /// Number of the last step that was heard of.
    pub(crate) fn last_step(&self) -> u64 {
        let of_stats = lock(&self.stats).num_steps;
        self.last_step.load(Ordering::Relaxed).max(of_stats)
    }

    /// Sequences of clients that have not ended.
    pub(crate) fn num_sequences(&self) -> usize {
        lock(&self.table).served().count()
    }

    /// Those of them that run for the fronts of other nodes.
    pub(crate) fn num_relayed(&self) -> usize {
        let relays = lock(&self.relays);
        relays.iter().map(|relay| relay.num_live()).sum()
    }

    /// Queues a message that is not a request.
    pub(crate) fn send_control(&self, message: FrontMessage) {
        lock(&self.outbox).messages.push_back(message);
        self.has_mail.notify_one();
    }

    /// Moves the waiting messages to `out`, after waiting for at least one.
    pub(crate) async fn take_mail(&self, out: &mut VecDeque<FrontMessage>) {
        loop {
            {
                let mut outbox = lock(&self.outbox);
                if !outbox.messages.is_empty() {
                    outbox.num_requests = 0;
                    out.append(&mut outbox.messages);
                    return;
                }
            }
            self.has_mail.notified().await;
        }
    }

    /// The nonce of a canary, which the caller sends.
    pub(crate) fn start_canary(&self) -> u64 {
        lock(&self.liveness).start_canary(Instant::now())
    }

    /// Whether a canary is under way.
    pub(crate) fn has_canary(&self) -> bool {
        lock(&self.liveness).has_canary()
    }

    /// Whether the engine gets on, as far as its messages tell; `is_late` as for
    /// [`Liveness::check`].
    pub(crate) fn check_liveness(&self, now: Instant, is_late: bool) -> Verdict {
        let has_work = !lock(&self.table).sequences.is_empty();
        let is_busy = has_work || !lock(&self.outbox).messages.is_empty();
        lock(&self.liveness).check(now, is_busy, is_late)
    }

    /// Routes one message of the engine. Returns the text of a `Fatal`, or of what is as bad.
    pub(crate) fn on_message(&self, message: EngineMessage) -> Option<String> {
        let at = Instant::now();
        match message {
            EngineMessage::Step { step, events } => {
                lock(&self.liveness).on_progress(at);
                self.on_step(step, events, at);
                self.tell_relays(|relay| relay.on_step(step));
            }
            EngineMessage::Working { step, num_tokens } => {
                lock(&self.liveness).on_working(num_tokens, at);
                self.tell_relays(|relay| relay.on_working(step, num_tokens));
            }
            EngineMessage::CanaryDone { nonce, error } => {
                lock(&self.liveness).on_canary(nonce, at);
                self.tell_relays(|relay| relay.on_canary(error.as_deref()));
                return error.map(|error| format!("its canary failed: {error}"));
            }
            EngineMessage::Stats(stats) => {
                self.tell_relays(|relay| relay.on_stats(&stats));
                *lock(&self.stats) = *stats;
            }
            EngineMessage::Admitted {
                request_id,
                attempt,
            } => self.on_answer(request_id, attempt, at, ArrivalKind::Admitted),
            EngineMessage::Rejected {
                request_id,
                attempt,
                reason,
            } => self.on_answer(request_id, attempt, at, ArrivalKind::Rejected(reason)),
            EngineMessage::Fatal { message } => return Some(message),
            // Late or unasked: harmless.
            EngineMessage::Loading { .. }
            | EngineMessage::Hello(_)
            | EngineMessage::Pong { .. } => {}
        }
        None
    }

    fn on_step(&self, step: u64, events: Vec<SequenceEvent>, at: Instant) {
        // Counted first, so that who has seen a token finds it counted.
        let num_tokens: usize = events.iter().map(|event| event.token_ids.len()).sum();
        self.num_tokens
            .fetch_add(num_tokens as u64, Ordering::Relaxed);
        self.last_step.fetch_max(step, Ordering::Relaxed);
        let mut table = lock(&self.table);
        for event in events {
            let (request_id, attempt) = (event.request_id, event.attempt);
            let Some(sequence) = table.sequences.get(&request_id) else {
                continue;
            };
            if sequence.attempt != attempt {
                continue;
            }
            let is_last = event.finish.is_some();
            let delivered = sequence
                .feed
                .deliver(attempt, at, ArrivalKind::Event(event));
            if is_last {
                table.sequences.remove(&request_id);
            } else if !delivered {
                // The stream's drop cancels it, or is about to.
                table.sequences.remove(&request_id);
                self.send_control(FrontMessage::Cancel { request_id });
            }
        }
    }

    fn on_answer(&self, request_id: RequestId, attempt: u32, at: Instant, kind: ArrivalKind) {
        lock(&self.liveness).on_progress(at);
        let mut table = lock(&self.table);
        let Some(sequence) = table.sequences.get_mut(&request_id) else {
            return;
        };
        if sequence.attempt != attempt {
            return;
        }
        sequence.is_admitted |= matches!(kind, ArrivalKind::Admitted);
        let is_last = matches!(kind, ArrivalKind::Rejected(_));
        sequence.feed.deliver(attempt, at, kind);
        if is_last {
            table.sequences.remove(&request_id);
        }
    }

    /// A message could not be written: where it is a request, it is refused as the engine would.
    pub(crate) fn on_refused(&self, message: FrontMessage, error: &LinkError) {
        tracing::warn!(%error, "A message to the engine was not sent.");
        if let FrontMessage::Generate(request) = message {
            let reason = RejectReason::Impossible(error.to_string());
            let kind = ArrivalKind::Rejected(reason);
            self.on_answer(request.request_id, request.attempt, Instant::now(), kind);
        }
    }

    /// The engine is gone: every sequence is lost, and nothing is taken any more. True where it
    /// ended in the trial of suspects, and so perhaps by no fault of its own.
    pub(crate) fn close(&self, loss: &Loss) -> bool {
        let at = Instant::now();
        let mut table = lock(&self.table);
        table.is_closed = true;
        self.ending.send_replace(Some(Ending {
            loss: loss.clone(),
            num_sequences: table.served().count(),
        }));
        let lost: Vec<(RequestId, Sequence)> = table.sequences.drain().collect();
        let mut is_excused = false;
        let replays = lost.iter().find_map(|(_, lost)| lost.feed.replays());
        if let Some(replays) = replays {
            // Before any of them is told.
            let ours = lost
                .iter()
                .filter(|(_, lost)| lost.feed.replays().is_some());
            let mut ids: Vec<(RequestId, bool)> =
                ours.map(|(id, lost)| (*id, lost.is_admitted)).collect();
            ids.sort_unstable();
            is_excused = replays.on_loss(&self.hello.model_hash, loss.cause, &ids);
        }
        for (_, sequence) in lost {
            let lost = ArrivalKind::Lost(loss.clone());
            sequence.feed.deliver(sequence.attempt, at, lost);
        }
        drop(table);
        lock(&self.outbox).messages.clear();
        is_excused
    }
}

impl EngineClient {
    /// Sends a request; with `epoch`, one that the peer's front has to admit first.
    fn send_request(
        &self,
        request: Generate,
        feed: Feed,
        epoch: Option<u64>,
    ) -> Result<(), SubmitError> {
        // Both locks are held so that the sequence is in the table before its answer can come,
        // and in neither place when it is refused. The order is table, then outbox.
        let mut table = lock(&self.table);
        if table.is_closed {
            return Err(SubmitError::Gone);
        }
        let mut outbox = lock(&self.outbox);
        if outbox.num_requests >= self.max_num_unsent_requests {
            return Err(SubmitError::Full {
                max_num_unsent_requests: self.max_num_unsent_requests,
            });
        }
        if request.request_id.is_shadow() {
            if table.served().next().is_some() {
                return Err(SubmitError::Gone);
            }
            table.has_shadows = true;
        } else {
            for (request_id, shadow) in table.end_shadows() {
                outbox
                    .messages
                    .push_back(FrontMessage::Cancel { request_id });
                let lost = ArrivalKind::Lost(Loss {
                    message: "the engine works for a client now".to_owned(),
                    cause: LossCause::Outside,
                });
                shadow.feed.deliver(shadow.attempt, Instant::now(), lost);
            }
        }
        let attempt = request.attempt;
        table.sequences.insert(
            request.request_id,
            Sequence {
                attempt,
                feed,
                is_admitted: false,
            },
        );
        outbox.num_requests += 1;
        if let Some(epoch) = epoch {
            let request_id = request.request_id;
            outbox
                .messages
                .push_back(FrontMessage::Ask { request_id, epoch });
        }
        outbox
            .messages
            .push_back(FrontMessage::Generate(Box::new(request)));
        drop(outbox);
        drop(table);
        self.has_mail.notify_one();
        Ok(())
    }
}

impl Target for EngineClient {
    fn submit(&self, request: Generate, feed: Feed) -> Result<(), SubmitError> {
        self.send_request(request, feed, None)
    }

    fn cancel(&self, request_id: RequestId) {
        let was_live = lock(&self.table).sequences.remove(&request_id).is_some();
        if was_live {
            self.send_control(FrontMessage::Cancel { request_id });
        }
    }
}

/// The peer's main engine, for requests that the peer's front is to admit.
pub(crate) struct Asked {
    pub(crate) client: Arc<EngineClient>,
    /// In which the peer is believed to serve.
    pub(crate) epoch: u64,
}

impl Target for Asked {
    fn submit(&self, request: Generate, feed: Feed) -> Result<(), SubmitError> {
        self.client.send_request(request, feed, Some(self.epoch))
    }

    fn cancel(&self, request_id: RequestId) {
        self.client.cancel(request_id);
    }
}

#[cfg(test)]
#[path = "client_test.rs"]
mod client_test;
