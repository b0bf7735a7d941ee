//! A target: anything that continues a list of token ids.
//!
//! There are engine processes of this node, and the peer's main engine behind the peer's front.
//! Routing is choosing a target and failover is choosing again, so streams know only this seam:
//! what they need to start an attempt elsewhere is a `Generate`, and what they get back carries
//! the attempt's number.
//!
//! Invariant: after `submit` returned `Ok`, the feed gets `Admitted` or `Rejected` or `Lost` first,
//! and ends with `Rejected`, `Lost`, or an event with a finish reason. Feeds are never blocked on.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use hotspare_batch::{Generate, RejectReason, RequestId, SequenceEvent};
use tokio::sync::mpsc;

use crate::relay_outbox::RelayOutbox;
use crate::replays::{ReplayGuard, Replays};

/// Slots of a job's channel that a sequence needs beside its tokens: admission, a finish without
/// a token, the loss of the target, and what became of the replay. All of them are free again when
/// a replay starts.
pub(crate) const NUM_EXTRA_ARRIVALS: usize = 4;

/// What comes back from a target.
#[derive(Debug)]
pub(crate) enum ArrivalKind {
    /// Taken in; events follow.
    Admitted,
    /// Not taken in; nothing follows.
    Rejected(RejectReason),
    /// Tokens, the end, or both.
    Event(SequenceEvent),
    /// The target is gone; nothing follows.
    Lost(Loss),
    /// No target took the next attempt; nothing follows.
    NotReplayed(NotReplayed),
    /// A target sent more than the sequence can have.
    Overflow,
}

/// Why a sequence is not continued.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NotReplayed {
    /// No target took it in time.
    TimedOut,
    /// No engine runs, and none will.
    NoEngine,
    /// The request's own deadline passed.
    Deadline,
}

/// Whether the end of a target is evidence against the requests that it worked on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LossCause {
    /// It was ended from outside: killed, told to end, or replaced. Its requests are not to blame.
    Outside,
    /// It ended, hung or spoke nonsense by itself, perhaps because of a request.
    Own,
}

/// How a target was lost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Loss {
    /// For the client, should its stream end with this.
    pub(crate) message: String,
    /// Who may be to blame.
    pub(crate) cause: LossCause,
}

/// Something that came back, and when.
#[derive(Debug)]
pub(crate) struct Arrival {
    /// The job's choice that it belongs to.
    pub(crate) index: u32,
    /// The attempt that it belongs to.
    pub(crate) attempt: u32,
    /// When the front read it.
    pub(crate) at: Instant,
    /// What it is.
    pub(crate) kind: ArrivalKind,
}

/// Who reads what a sequence yields.
#[derive(Clone)]
enum Destination {
    /// A stream of this front.
    Stream {
        index: u32,
        sender: mpsc::Sender<Arrival>,
        /// Set once a target sent more than the channel takes.
        has_overflowed: Arc<AtomicBool>,
    },
    /// The peer's front, which calls the sequence so.
    Peer {
        outbox: Arc<RelayOutbox>,
        request_id: RequestId,
    },
}

/// Where a target delivers the arrivals of one sequence.
///
/// The channel is shared by the choices of a job and has room for every token they can yield, so
/// that a slow reader neither blocks a target nor loses anything, and a target that sends more
/// than it may is found out. Slots are allocated as they are used.
#[derive(Clone)]
pub(crate) struct Feed {
    destination: Destination,
    /// Who is told of the target's end; `None` for sequences that nobody would continue.
    replays: Option<Arc<Replays>>,
    /// Who waits for what a replay yields.
    guard: Option<Arc<ReplayGuard>>,
}

impl Feed {
    pub(crate) fn new(index: u32, sender: mpsc::Sender<Arrival>) -> Self {
        let destination = Destination::Stream {
            index,
            sender,
            has_overflowed: Arc::default(),
        };
        Self {
            destination,
            replays: None,
            guard: None,
        }
    }

    /// The feed of a sequence that runs here for the peer's front, which calls it `request_id` and
    /// continues it by itself.
    pub(crate) fn relayed(outbox: Arc<RelayOutbox>, request_id: RequestId) -> Self {
        Self {
            destination: Destination::Peer { outbox, request_id },
            replays: None,
            guard: None,
        }
    }

    /// The feed of a sequence that is continued when its target is lost.
    pub(crate) fn resumable(mut self, replays: Arc<Replays>, overflow: Arc<AtomicBool>) -> Self {
        self.replays = Some(replays);
        if let Destination::Stream { has_overflowed, .. } = &mut self.destination {
            *has_overflowed = overflow;
        }
        self
    }

    /// The feed of a replay.
    pub(crate) fn watched(mut self, guard: Arc<ReplayGuard>) -> Self {
        self.guard = Some(guard);
        self
    }

    /// Who is told of the target's end.
    pub(crate) fn replays(&self) -> Option<&Arc<Replays>> {
        self.replays.as_ref()
    }

    /// Delivers without waiting. False where nobody listens any more, or where the target sent
    /// more than the sequence can have.
    pub(crate) fn deliver(&self, attempt: u32, at: Instant, kind: ArrivalKind) -> bool {
        if let (Some(guard), ArrivalKind::Event(event)) = (&self.guard, &kind) {
            guard.on_event(event);
        }
        let (index, sender, has_overflowed) = match &self.destination {
            Destination::Peer { outbox, request_id } => {
                return outbox.deliver(*request_id, attempt, kind);
            }
            Destination::Stream {
                index,
                sender,
                has_overflowed,
            } => (*index, sender, has_overflowed),
        };
        let send = |kind| {
            sender.try_send(Arrival {
                index,
                attempt,
                at,
                kind,
            })
        };
        match send(kind) {
            Ok(()) => true,
            Err(mpsc::error::TrySendError::Closed(_)) => false,
            Err(mpsc::error::TrySendError::Full(_)) => {
                // The reader looks at the flag with each arrival. Where it has emptied the channel
                // meanwhile, the second one wakes it.
                has_overflowed.store(true, Ordering::SeqCst);
                let _ = send(ArrivalKind::Overflow);
                false
            }
        }
    }
}

/// Why a target did not take a sequence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum SubmitError {
    /// It is gone, or not there yet.
    Gone,
    /// As many requests as allowed wait for its socket already.
    Full {
        /// The bound.
        max_num_unsent_requests: usize,
    },
}

/// See the module.
pub(crate) trait Target: Send + Sync {
    /// Starts an attempt. Does not wait.
    fn submit(&self, request: Generate, feed: Feed) -> Result<(), SubmitError>;

    /// Ends a sequence, whatever its attempt. Its feed gets nothing more. Does not wait.
    fn cancel(&self, request_id: RequestId);
}
