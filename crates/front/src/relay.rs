//! This node's main engine for the peer's front: the front plays the engine's part.
//!
//! A stream of the peer's is served by the engine that is `main` when it comes, and ends with it,
//! or when another one takes its place. Requests get names of this front; those that nobody has
//! admitted yet are admitted here, by the pair's rules, or rejected.
//!
//! Invariant: nothing that runs for the peer outlives its stream.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use hotspare_batch::{Generate, RejectReason, RequestId};
use hotspare_failover::Admission;
use hotspare_link::{
    EngineMessage, FrontMessage, LinkError, PeerAnswer, PeerGreeting, ProtocolRange,
};
use tokio::io::{ReadHalf, WriteHalf};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::client::{Ending, EngineClient};
use crate::front::Shared;
use crate::pairing::{Pairing, PeerIo};
use crate::relay_outbox::RelayOutbox;
use crate::target::{Feed, LossCause, SubmitError, Target as _};
use crate::wire::{Receiver, Sender};

/// Takes the peer's streams until the front ends.
pub(crate) async fn serve(shared: Arc<Shared>, pairing: Arc<dyn Pairing>) {
    let mut relays = JoinSet::new();
    loop {
        tokio::select! {
            stream = pairing.accept() => {
                let Some(stream) = stream else {
                    break;
                };
                if relays.len() >= shared.config.max_num_peer_streams {
                    tracing::warn!("The peer opened too many streams; one was closed.");
                    continue;
                }
                let relay = Relay {
                    shared: Arc::clone(&shared),
                    pairing: Arc::clone(&pairing),
                };
                relays.spawn(relay.run(stream));
            }
            Some(_) = relays.join_next() => {}
        }
    }
    while relays.join_next().await.is_some() {}
}

struct Relay {
    shared: Arc<Shared>,
    pairing: Arc<dyn Pairing>,
}

/// A stream that was greeted.
struct Conversation {
    receiver: Receiver<ReadHalf<PeerIo>>,
    sender: Sender<WriteHalf<PeerIo>>,
    client: Arc<EngineClient>,
    outbox: Arc<RelayOutbox>,
}

/// Ends what runs for the peer, however the stream's task ends.
struct Attached {
    client: Arc<EngineClient>,
    outbox: Arc<RelayOutbox>,
}

impl Drop for Attached {
    fn drop(&mut self) {
        self.client.remove_relay(&self.outbox);
        for request_id in self.outbox.live() {
            self.client.cancel(request_id);
        }
    }
}

impl Relay {
    async fn run(self, stream: PeerIo) {
        let patience = self.shared.config.peer_greeting_timeout();
        let (reader, writer) = tokio::io::split(stream);
        let config = &self.shared.config;
        let receiver = Receiver::new(reader, config.max_frame_bytes);
        let sender = Sender::new(writer, config.max_frame_bytes, config.max_write_batch_bytes);
        match timeout(patience, self.greet(receiver, sender)).await {
            Ok(Ok(Some(conversation))) => self.converse(conversation).await,
            Ok(Ok(None)) => {}
            Ok(Err(error)) => tracing::debug!(%error, "A stream of the peer's ended early."),
            Err(_) => tracing::debug!("A stream of the peer's was not greeted in time."),
        }
    }

    /// From the greeting to both hellos; `None` where the peer was refused.
    async fn greet(
        &self,
        mut receiver: Receiver<ReadHalf<PeerIo>>,
        mut sender: Sender<WriteHalf<PeerIo>>,
    ) -> Result<Option<Conversation>, LinkError> {
        let Some(greeting) = receiver.receive::<PeerGreeting>().await? else {
            return Ok(None);
        };
        ProtocolRange::OURS.agree(greeting.protocol)?;
        let epoch = self.pairing.epoch();
        if greeting.epoch < epoch {
            tell(&mut sender, PeerAnswer::Stale { epoch }).await?;
            return Ok(None);
        }
        let Some(client) = self.main().await else {
            let reason = "the server is ending".to_owned();
            tell(&mut sender, PeerAnswer::NoEngine { reason }).await?;
            return Ok(None);
        };
        tell(&mut sender, PeerAnswer::Welcome { epoch }).await?;
        let mut hello = client.hello().clone();
        hello.protocol = ProtocolRange::OURS;
        tell(&mut sender, EngineMessage::Hello(Box::new(hello))).await?;
        match receiver.receive().await? {
            Some(FrontMessage::Hello { protocol }) => ProtocolRange::OURS.agree(protocol)?,
            _ => return Ok(None),
        };
        tracing::info!(node = greeting.node, "The peer uses this node's engine.");
        let outbox = RelayOutbox::new(self.shared.config.max_num_relay_messages);
        Ok(Some(Conversation {
            receiver,
            sender,
            client,
            outbox: Arc::new(outbox),
        }))
    }

    /// The main engine, once there is one; `None` where the front ends first.
    async fn main(&self) -> Option<Arc<EngineClient>> {
        let mut states = self.shared.slot.subscribe();
        let mut closing = self.shared.closing.subscribe();
        loop {
            states.borrow_and_update();
            if *closing.borrow_and_update() {
                return None;
            }
            if let Some(client) = self.shared.slot.target(None) {
                return Some(client);
            }
            tokio::select! {
                changed = states.changed() => changed.ok()?,
                changed = closing.changed() => changed.ok()?,
            }
        }
    }

    async fn converse(self, conversation: Conversation) {
        let Conversation {
            mut receiver,
            mut sender,
            client,
            outbox,
        } = conversation;
        client.add_relay(Arc::clone(&outbox));
        let _attached = Attached {
            client: Arc::clone(&client),
            outbox: Arc::clone(&outbox),
        };
        let write_timeout = self.shared.config.peer_write_timeout();
        let reason = {
            let reading = self.read(&mut receiver, &client, &outbox);
            let writing = async {
                let mut messages = VecDeque::new();
                loop {
                    if !outbox.take_mail(&mut messages).await {
                        return "it reads too slowly".to_owned();
                    }
                    // Without an answer's frame its sequence would wait for ever.
                    let mut lost = None;
                    let refused = |_, error: LinkError| lost = Some(error.to_string());
                    let sent = timeout(write_timeout, sender.send(&mut messages, refused)).await;
                    match sent {
                        Ok(Ok(())) => {}
                        Ok(Err(error)) => return error.to_string(),
                        Err(_) => return "it reads nothing".to_owned(),
                    }
                    if let Some(error) = lost {
                        return error;
                    }
                }
            };
            tokio::select! {
                reason = reading => reason,
                reason = writing => reason,
                reason = self.replaced(&client) => reason,
                ending = client.ended() => {
                    let num_relayed = outbox.num_live();
                    self.say_why(&mut sender, &ending, num_relayed).await;
                    "the engine ended".to_owned()
                }
            }
        };
        tracing::info!(reason, "The peer's stream to this node's engine ended.");
    }

    /// Where the engine ended by itself while it worked for no client of anybody else, one of the
    /// peer's requests may be to blame, or what was read along for it. Of any other end the peer
    /// learns by the end of the stream.
    async fn say_why(
        &self,
        sender: &mut Sender<WriteHalf<PeerIo>>,
        ending: &Ending,
        num_relayed: usize,
    ) {
        if ending.loss.cause == LossCause::Own && ending.num_sequences <= num_relayed {
            let message = ending.loss.message.clone();
            let told = tell(sender, EngineMessage::Fatal { message });
            // The stream ends in any case.
            let _ = timeout(self.shared.config.peer_write_timeout(), told).await;
        }
    }

    /// Returns once nothing of the peer's is to run on this engine any more.
    async fn replaced(&self, client: &Arc<EngineClient>) -> String {
        let mut states = self.shared.slot.subscribe();
        let mut closing = self.shared.closing.subscribe();
        loop {
            states.borrow_and_update();
            if *closing.borrow_and_update() {
                return "this server is ending".to_owned();
            }
            let main = self.shared.slot.target(None);
            // While there is none the engine's own end says what happened.
            if main.is_some_and(|main| !Arc::ptr_eq(&main, client)) {
                // So it does where a spare took the place of one that was lost.
                sleep(2 * self.shared.config.engine_exit_wait()).await;
                return "another engine took its place".to_owned();
            }
            tokio::select! {
                _ = states.changed() => {}
                _ = closing.changed() => {}
            }
        }
    }

    async fn read(
        &self,
        receiver: &mut Receiver<ReadHalf<PeerIo>>,
        client: &Arc<EngineClient>,
        outbox: &Arc<RelayOutbox>,
    ) -> String {
        let mut asked = None;
        loop {
            let message = match receiver.receive::<FrontMessage>().await {
                Ok(Some(message)) => message,
                Ok(None) => return "it closed the stream".to_owned(),
                Err(error) => return error.to_string(),
            };
            match message {
                FrontMessage::Ask { request_id, epoch } => asked = Some((request_id, epoch)),
                FrontMessage::Generate(request) => {
                    let asked = asked.take().filter(|(id, _)| *id == request.request_id);
                    self.submit(*request, asked.map(|(_, epoch)| epoch), client, outbox);
                }
                FrontMessage::Cancel { request_id } => {
                    if let Some(ours) = outbox.end(request_id) {
                        client.cancel(ours);
                    }
                }
                FrontMessage::Canary { nonce } => {
                    outbox.expect_canary(nonce);
                    client.ask_canary();
                }
                FrontMessage::Ping { nonce } => {
                    outbox.send(EngineMessage::Pong { nonce });
                }
                FrontMessage::Drain => return "it has no more use for it".to_owned(),
                FrontMessage::Hello { .. } => return "it said hello twice".to_owned(),
                FrontMessage::AdoptKv { .. } | FrontMessage::ForgetKv => {
                    return "it spoke as if this engine were its own".to_owned();
                }
            }
        }
    }

    /// Gives a request to the engine; `epoch` is that of one that is to be admitted here.
    fn submit(
        &self,
        mut request: Generate,
        epoch: Option<u64>,
        client: &EngineClient,
        outbox: &Arc<RelayOutbox>,
    ) {
        let (theirs, attempt) = (request.request_id, request.attempt);
        let reject = |reason| {
            outbox.send(EngineMessage::Rejected {
                request_id: theirs,
                attempt,
                reason,
            });
        };
        let ours = match theirs.is_shadow() {
            true => self.shared.trails.next_shadow_id(),
            false => RequestId(self.shared.num_request_ids.fetch_add(1, Ordering::Relaxed)),
        };
        if let Some(epoch) = epoch
            && !self.admit(epoch, ours)
        {
            return reject(RejectReason::Draining);
        }
        // A new attempt takes the place of the one before.
        if let Some(before) = outbox.end(theirs) {
            client.cancel(before);
        }
        outbox.begin(theirs, ours);
        request.request_id = ours;
        let feed = Feed::relayed(Arc::clone(outbox), theirs);
        match client.submit(request, feed) {
            // It works for a client, and lives on.
            Err(SubmitError::Gone) if theirs.is_shadow() => {
                outbox.end(theirs);
                reject(RejectReason::Draining);
            }
            // The end of the engine ends the stream, too.
            Ok(()) | Err(SubmitError::Gone) => {}
            Err(SubmitError::Full {
                max_num_unsent_requests,
            }) => {
                outbox.end(theirs);
                reject(RejectReason::QueueFull {
                    max_num_waiting: u32::try_from(max_num_unsent_requests).unwrap_or(u32::MAX),
                });
            }
        }
    }

    /// Whether this node admits what the peer asks for in `epoch`.
    fn admit(&self, epoch: u64, request_id: RequestId) -> bool {
        if self.shared.is_draining.load(Ordering::SeqCst) || epoch < self.pairing.epoch() {
            return false;
        }
        let Admission::Open { epoch, .. } = self.pairing.admission() else {
            return false;
        };
        self.pairing.audit(epoch.number(), request_id.0);
        true
    }
}

/// Sends one message.
async fn tell<M: serde::Serialize>(
    sender: &mut Sender<WriteHalf<PeerIo>>,
    message: M,
) -> Result<(), LinkError> {
    let mut refusal = None;
    let mut messages = VecDeque::from([message]);
    sender
        .send(&mut messages, |_, error| refusal = Some(error))
        .await?;
    refusal.map_or(Ok(()), Err)
}
