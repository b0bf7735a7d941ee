//! What an engine of this node has to say to the peer's front, until the relay has written it.
//!
//! It is told of events by the feeds of relayed sequences, and of steps, counters and canaries by
//! the engine's client; neither waits for it. Events of one step travel in one message, as they
//! came; steps without events travel too while the peer waits for something, so that it can tell a
//! slow engine from one that hangs.
//!
//! Invariant: bounded; past its bound it is closed, and so is the stream to the peer.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use hotspare_batch::{RejectReason, RequestId, SequenceEvent};
use hotspare_link::{EngineMessage, EngineStats};
use tokio::sync::Notify;

use crate::target::ArrivalKind;

#[derive(Default)]
struct Inner {
    messages: VecDeque<EngineMessage>,
    /// Of the step that is being told.
    events: Vec<SequenceEvent>,
    /// The peer's names of sequences that have not ended, and ours.
    live: BTreeMap<RequestId, RequestId>,
    /// Nonces of the peer's canaries that have no answer yet.
    canaries: Vec<u64>,
    is_closed: bool,
}

/// See the module.
pub(crate) struct RelayOutbox {
    inner: Mutex<Inner>,
    has_mail: Notify,
    max_num_messages: usize,
}

impl RelayOutbox {
    pub(crate) fn new(max_num_messages: usize) -> Self {
        Self {
            inner: Mutex::default(),
            has_mail: Notify::new(),
            max_num_messages,
        }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        // The data is consistent between statements; a panic elsewhere does not make it less so.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, inner: &mut Inner, message: EngineMessage) -> bool {
        if inner.messages.len() >= self.max_num_messages {
            inner.is_closed = true;
            inner.messages.clear();
        }
        if !inner.is_closed {
            inner.messages.push_back(message);
        }
        self.has_mail.notify_one();
        !inner.is_closed
    }

    /// Queues a message of the relay's own. False past the bound.
    pub(crate) fn send(&self, message: EngineMessage) -> bool {
        self.push(&mut self.inner(), message)
    }

    /// A sequence of the peer's starts here as `ours`. False where the peer used the name already.
    pub(crate) fn begin(&self, theirs: RequestId, ours: RequestId) -> bool {
        let mut inner = self.inner();
        let is_new = !inner.live.contains_key(&theirs);
        if is_new {
            inner.live.insert(theirs, ours);
        }
        is_new
    }

    /// The peer has no more use for a sequence, or it was not taken; our name of it.
    pub(crate) fn end(&self, theirs: RequestId) -> Option<RequestId> {
        self.inner().live.remove(&theirs)
    }

    /// Sequences of the peer's clients that have not ended.
    pub(crate) fn num_live(&self) -> usize {
        let inner = self.inner();
        inner.live.keys().filter(|id| !id.is_shadow()).count()
    }

    /// Our names of all that has not ended.
    pub(crate) fn live(&self) -> Vec<RequestId> {
        self.inner().live.values().copied().collect()
    }

    /// The peer waits for a canary.
    pub(crate) fn expect_canary(&self, nonce: u64) {
        self.inner().canaries.push(nonce);
    }

    /// What came back for a sequence of the peer's. False where nobody listens any more.
    pub(crate) fn deliver(&self, theirs: RequestId, attempt: u32, kind: ArrivalKind) -> bool {
        let mut inner = self.inner();
        if !inner.live.contains_key(&theirs) {
            return false;
        }
        let kind = match kind {
            // The engine lives on: it has no time to read along any more.
            ArrivalKind::Lost(_) if theirs.is_shadow() => {
                ArrivalKind::Rejected(RejectReason::Draining)
            }
            kind => kind,
        };
        match kind {
            ArrivalKind::Admitted => {
                let request_id = theirs;
                let message = EngineMessage::Admitted {
                    request_id,
                    attempt,
                };
                self.push(&mut inner, message)
            }
            ArrivalKind::Rejected(reason) => {
                inner.live.remove(&theirs);
                let message = EngineMessage::Rejected {
                    request_id: theirs,
                    attempt,
                    reason,
                };
                self.push(&mut inner, message)
            }
            ArrivalKind::Event(mut event) => {
                if event.finish.is_some() {
                    inner.live.remove(&theirs);
                }
                event.request_id = theirs;
                inner.events.push(event);
                !inner.is_closed
            }
            // The end of the stream says it.
            ArrivalKind::Lost(_) | ArrivalKind::NotReplayed(_) | ArrivalKind::Overflow => true,
        }
    }

    /// All events of a step were delivered.
    pub(crate) fn on_step(&self, step: u64) {
        let mut inner = self.inner();
        let events = std::mem::take(&mut inner.events);
        if events.is_empty() {
            // It tells that the engine gets on; the last of several says enough.
            let is_told = matches!(inner.messages.back(), Some(EngineMessage::Step { .. }));
            if inner.live.is_empty() || is_told {
                return;
            }
        }
        self.push(&mut inner, EngineMessage::Step { step, events });
    }

    /// A step was given to the device.
    pub(crate) fn on_working(&self, step: u64, num_tokens: u32) {
        let mut inner = self.inner();
        if !inner.live.is_empty() || !inner.canaries.is_empty() {
            self.push(&mut inner, EngineMessage::Working { step, num_tokens });
        }
    }

    /// The engine's counters.
    pub(crate) fn on_stats(&self, stats: &EngineStats) {
        let mut inner = self.inner();
        let message = EngineMessage::Stats(Box::new(stats.clone()));
        // An idle engine and a slow peer must not fill the queue.
        inner
            .messages
            .retain(|message| !matches!(message, EngineMessage::Stats(_)));
        self.push(&mut inner, message);
    }

    /// The engine's canary ended: every one that the peer waits for has its answer.
    pub(crate) fn on_canary(&self, error: Option<&str>) {
        let mut inner = self.inner();
        for nonce in std::mem::take(&mut inner.canaries) {
            let error = error.map(str::to_owned);
            self.push(&mut inner, EngineMessage::CanaryDone { nonce, error });
        }
    }

    /// Moves the waiting messages to `out`, after waiting for at least one. False once it is
    /// closed.
    pub(crate) async fn take_mail(&self, out: &mut VecDeque<EngineMessage>) -> bool {
        loop {
            {
                let mut inner = self.inner();
                if inner.is_closed {
                    return false;
                }
                if !inner.messages.is_empty() {
                    out.append(&mut inner.messages);
                    return true;
                }
            }
            self.has_mail.notified().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::target::{Loss, LossCause};
    use crate::testing::event;
    use hotspare_batch::FinishReason;

    const THEIRS: RequestId = RequestId(7);
    const OURS: RequestId = RequestId(70);

    async fn mail(outbox: &RelayOutbox) -> Vec<EngineMessage> {
        let mut out = VecDeque::new();
        assert!(outbox.take_mail(&mut out).await, "it is open");
        out.into()
    }

    #[tokio::test]
    async fn events_of_a_step_travel_together_under_the_peers_names() {
        let outbox = RelayOutbox::new(8);
        assert!(outbox.begin(THEIRS, OURS) && !outbox.begin(THEIRS, OURS));
        assert!(outbox.begin(RequestId(8), RequestId(80)));
        assert!(outbox.deliver(THEIRS, 2, ArrivalKind::Event(event(0, &[5]))));
        let mut last = event(0, &[6]);
        last.finish = Some(FinishReason::Length);
        assert!(outbox.deliver(RequestId(8), 0, ArrivalKind::Event(last)));
        outbox.on_step(3);
        let sent = mail(&outbox).await;
        let [EngineMessage::Step { step: 3, events }] = &sent[..] else {
            panic!("one step: {sent:?}");
        };
        let ids: Vec<u64> = events.iter().map(|event| event.request_id.0).collect();
        assert_eq!(ids, [7, 8]);
        assert_eq!(outbox.live(), [OURS]);
        let late = ArrivalKind::Event(event(1, &[9]));
        assert!(!outbox.deliver(RequestId(8), 0, late), "it has ended");
    }

    #[tokio::test]
    async fn steps_without_events_are_told_only_while_the_peer_waits() {
        let outbox = RelayOutbox::new(8);
        outbox.on_working(1, 4);
        outbox.on_step(1);
        outbox.begin(THEIRS, OURS);
        for step in 2..6 {
            outbox.on_step(step);
        }
        assert_eq!(mail(&outbox).await.len(), 1);
        assert_eq!(outbox.end(THEIRS), Some(OURS));
        outbox.on_step(6);
        outbox.expect_canary(11);
        outbox.on_canary(Some("broken"));
        let error = Some("broken".to_owned());
        assert_eq!(
            mail(&outbox).await,
            [EngineMessage::CanaryDone { nonce: 11, error }]
        );
    }

    #[tokio::test]
    async fn what_the_engine_has_no_time_to_read_along_is_rejected() {
        let outbox = RelayOutbox::new(8);
        let theirs = RequestId(RequestId::FIRST_SHADOW.0 + 3);
        outbox.begin(theirs, RequestId::FIRST_SHADOW);
        outbox.begin(THEIRS, OURS);
        assert_eq!(outbox.num_live(), 1, "it is no client's");
        let lost = || {
            ArrivalKind::Lost(Loss {
                message: "the engine works for a client now".to_owned(),
                cause: LossCause::Outside,
            })
        };
        assert!(outbox.deliver(theirs, 0, lost()));
        assert!(
            outbox.deliver(THEIRS, 0, lost()),
            "the stream's end says it"
        );
        assert_eq!(
            mail(&outbox).await,
            [EngineMessage::Rejected {
                request_id: theirs,
                attempt: 0,
                reason: RejectReason::Draining
            }]
        );
        assert_eq!(outbox.live(), [OURS]);
    }

    #[tokio::test]
    async fn past_its_bound_it_is_closed() {
        let outbox = RelayOutbox::new(2);
        outbox.begin(THEIRS, OURS);
        assert!(outbox.deliver(THEIRS, 0, ArrivalKind::Admitted));
        assert!(outbox.send(EngineMessage::Pong { nonce: 1 }));
        let refusal = ArrivalKind::Rejected(RejectReason::Draining);
        assert!(!outbox.deliver(THEIRS, 0, refusal));
        assert!(!outbox.take_mail(&mut VecDeque::new()).await);
    }
}
