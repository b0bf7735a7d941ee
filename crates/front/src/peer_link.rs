//! The peer's main engine, seen from this front: a stream that is opened again whenever it ended.
//!
//! While the peer is known a stream is kept up, proved by a canary like an engine of this node, and
//! stands in the slot as one more target. A peer that has been silent for as long as it takes to
//! count as dead is cut off, so that the streams on it go on elsewhere: a dead machine closes no
//! socket.
//!
//! Invariant: the slot holds the peer's client only between its proof and the end of its stream.

use std::sync::Arc;
use std::time::{Duration, Instant};

use hotspare_link::{
    EngineMessage, FrontMessage, LinkError, PeerAnswer, PeerGreeting, ProtocolRange,
};
use tokio::io::{ReadHalf, WriteHalf};
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

use crate::client::EngineClient;
use crate::connection::write_all;
use crate::front::Shared;
use crate::life::hang;
use crate::pairing::{Pairing, PeerIo};
use crate::target::{Loss, LossCause};
use crate::wire::{Receiver, Sender};
use crate::{EngineState, FrontConfig};

/// What a client of a running stream is told when the peer's engine cannot be reached.
const LOST_MESSAGE: &str = "the engine of the other node ended while it was answering";

/// How often the peer's silence is looked at.
const SILENCE_POLL: Duration = Duration::from_millis(50);

/// How often it is looked at whether streams may leave the peer's engine.
const HOME_POLL: Duration = Duration::from_millis(200);

/// See the module.
pub(crate) struct PeerLink {
    shared: Arc<Shared>,
    pairing: Arc<dyn Pairing>,
    /// Which peer.
    number: usize,
    /// When the peer's stream last brought anything.
    last_message: std::sync::Mutex<Instant>,
}

/// A stream to the peer's engine that was greeted and proved.
struct Connected {
    receiver: Receiver<ReadHalf<PeerIo>>,
    sender: Sender<WriteHalf<PeerIo>>,
    client: Arc<EngineClient>,
}

/// Why there is no stream.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error("it cannot be reached: {0}")]
    Unreachable(#[from] std::io::Error),
    #[error("{0}")]
    Link(#[from] LinkError),
    #[error("it has no engine: {0}")]
    NoEngine(String),
    #[error("it knows epoch {0}, which is higher than the one known here")]
    Stale(u64),
    #[error("it sent {0} where something else was due")]
    Unexpected(String),
    #[error("it closed the stream")]
    Closed,
    #[error("its canary failed: {0}")]
    Canary(String),
}

impl PeerLink {
    pub(crate) fn new(shared: Arc<Shared>, pairing: Arc<dyn Pairing>, number: usize) -> Self {
        Self {
            shared,
            pairing,
            number,
            last_message: std::sync::Mutex::new(Instant::now()),
        }
    }

    fn config(&self) -> &FrontConfig {
        &self.shared.config
    }

    /// Runs until it is dropped.
    pub(crate) async fn run(self) {
        let min = self.config().peer_retry_min();
        let mut backoff = min;
        let mut last_reason = String::new();
        loop {
            self.peer_known().await;
            let patience = self.config().peer_greeting_timeout();
            match timeout(patience, self.connect()).await {
                Ok(Ok(connected)) => {
                    backoff = min;
                    last_reason.clear();
                    self.serve(connected).await;
                }
                Ok(Err(refusal)) => {
                    let reason = refusal.to_string();
                    if reason != last_reason {
                        tracing::info!(reason, "The peer's engine is not to be had.");
                        last_reason = reason;
                    }
                }
                Err(_) => tracing::debug!("The peer's engine did not come in time."),
            }
            sleep(backoff).await;
            backoff = (backoff * 2).min(self.config().peer_retry_max());
        }
    }

    /// Returns once the peer was heard lately.
    async fn peer_known(&self) {
        let mut views = self.pairing.subscribe();
        loop {
            views.borrow_and_update();
            if self
                .pairing
                .silence_of(self.number)
                .is_some_and(|silence| silence < self.dead_after())
            {
                return;
            }
            tokio::select! {
                // Without a sender nothing is told any more, and time still passes.
                Ok(()) = views.changed() => {}
                () = sleep(self.config().peer_retry_max()) => {}
            }
        }
    }

    fn dead_after(&self) -> Duration {
        Duration::from_millis(self.config().peer_dead_after_ms)
    }

    async fn connect(&self) -> Result<Connected, Refusal> {
        let stream = self.pairing.connect_to(self.number).await?;
        let (reader, writer) = tokio::io::split(stream);
        let config = self.config();
        let mut receiver = Receiver::new(reader, config.max_frame_bytes);
        let mut sender = Sender::new(writer, config.max_frame_bytes, config.max_write_batch_bytes);
        let protocol = ProtocolRange::OURS;
        let greeting = PeerGreeting {
            protocol,
            epoch: self.pairing.epoch(),
            node: config.node.clone(),
        };
        sender.send(&mut [greeting].into(), |_, _| {}).await?;
        match receiver.receive().await?.ok_or(Refusal::Closed)? {
            PeerAnswer::Welcome { .. } => {}
            PeerAnswer::Stale { epoch } => return Err(Refusal::Stale(epoch)),
            PeerAnswer::NoEngine { reason } => return Err(Refusal::NoEngine(reason)),
        }
        let hello = match receiver.receive().await?.ok_or(Refusal::Closed)? {
            EngineMessage::Hello(hello) => *hello,
            other => return Err(Refusal::Unexpected(format!("{other:?}"))),
        };
        protocol.agree(hello.protocol)?;
        let client = EngineClient::new(hello, config.max_num_unsent_requests, config.liveness());
        let nonce = client.start_canary();
        let messages = [
            FrontMessage::Hello { protocol },
            FrontMessage::Canary { nonce },
        ];
        sender.send(&mut messages.into(), |_, _| {}).await?;
        while client.has_canary() {
            let message = receiver.receive().await?.ok_or(Refusal::Closed)?;
            if let Some(reason) = client.on_message(message) {
                return Err(Refusal::Canary(reason));
            }
        }
        Ok(Connected {
            receiver,
            sender,
            client: Arc::new(client),
        })
    }

    /// Reads, writes and watches until the stream ends.
    async fn serve(&self, connected: Connected) {
        let Connected {
            mut receiver,
            mut sender,
            client,
        } = connected;
        tracing::info!(
            model_hash = client.hello().model_hash,
            numerics_id = client.hello().numerics_id,
            "The peer's engine can be used."
        );
        self.heard();
        let mut known = InSlot::enter(&self.shared, self.number, &client);
        let (cause, reason) = tokio::select! {
            end = self.read(&mut receiver, &client) => end,
            reason = write_all(&mut sender, &client) => (LossCause::Outside, reason),
            reason = hang(&client, self.config()) => (LossCause::Outside, reason),
            reason = self.silent() => (LossCause::Outside, reason),
            reason = self.home_again(&client) => (LossCause::Outside, reason),
        };
        drop((receiver, sender));
        tracing::warn!(reason, "The peer's engine cannot be used any more.");
        known.cause = cause;
    }

    /// Returns once streams have run on the peer's engine for long enough though this node serves
    /// and has an engine of its own: who was relieved of its role may want to be off.
    async fn home_again(&self, client: &EngineClient) -> String {
        let mut since = None;
        loop {
            sleep(HOME_POLL).await;
            let is_home = self.pairing.view().role.serves()
                && self.shared.slot.state() == EngineState::Ready
                && client.num_sequences() > 0;
            since = is_home.then(|| since.unwrap_or_else(Instant::now));
            if since.is_some_and(|since: Instant| since.elapsed() >= self.drain()) {
                return "streams on it go on on this node's engine".to_owned();
            }
        }
    }

    fn drain(&self) -> Duration {
        Duration::from_millis(self.config().peer_drain_ms)
    }

    fn heard(&self) {
        let mut last = self
            .last_message
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        *last = Instant::now();
    }

    /// Routes messages until the stream ends. An engine of the peer's that says that it ended by
    /// itself worked for nobody else.
    async fn read(
        &self,
        receiver: &mut Receiver<ReadHalf<PeerIo>>,
        client: &EngineClient,
    ) -> (LossCause, String) {
        loop {
            match receiver.receive::<EngineMessage>().await {
                Ok(Some(message)) => {
                    self.heard();
                    if matches!(message, EngineMessage::Step { .. }) {
                        self.pairing.peer_traffic();
                    }
                    if let Some(fatal) = client.on_message(message) {
                        return (LossCause::Own, fatal);
                    }
                }
                Ok(None) => return (LossCause::Outside, "it closed the stream".to_owned()),
                Err(error) => return (LossCause::Outside, error.to_string()),
            }
        }
    }

    /// Returns once nothing was heard of the peer, on any way, for as long as it takes to count as
    /// dead.
    async fn silent(&self) -> String {
        let mut ticks = interval(SILENCE_POLL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut last_tick = Instant::now();
        loop {
            ticks.tick().await;
            let now = Instant::now();
            let is_late = now.saturating_duration_since(last_tick) > self.dead_after() / 2;
            last_tick = now;
            if is_late {
                // What came while this process did not run lies unread yet.
                continue;
            }
            let of_stream = {
                let last = self.last_message.lock();
                let last = last.unwrap_or_else(std::sync::PoisonError::into_inner);
                now.saturating_duration_since(*last)
            };
            let of_pair = self.pairing.silence_of(self.number);
            let of_pair = of_pair.unwrap_or(Duration::MAX);
            if of_stream.min(of_pair) >= self.dead_after() {
                return "nothing was heard of the peer".to_owned();
            }
        }
    }
}

/// The peer's client stands in the slot as long as this lives, and is closed with it.
struct InSlot<'a> {
    shared: &'a Shared,
    number: usize,
    client: Arc<EngineClient>,
    cause: LossCause,
}

impl<'a> InSlot<'a> {
    fn enter(shared: &'a Shared, number: usize, client: &Arc<EngineClient>) -> Self {
        shared.slot.set_peer(number, Some(Arc::clone(client)));
        Self {
            shared,
            number,
            client: Arc::clone(client),
            cause: LossCause::Outside,
        }
    }
}

impl Drop for InSlot<'_> {
    fn drop(&mut self) {
        self.shared.slot.set_peer(self.number, None);
        self.client.close(&Loss {
            message: LOST_MESSAGE.to_owned(),
            cause: self.cause,
        });
    }
}
