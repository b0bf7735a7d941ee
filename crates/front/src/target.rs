//! A target: anything that continues a list of token ids.
//!
//! Today there is one kind, the engine process of this node. Routing is choosing a target and
//! failover is choosing again, so streams know only this seam: what they need to start an attempt
//! elsewhere is a `Generate`, and what they get back carries the attempt's number.
//!
//! Invariant: after `submit` returned `Ok`, the feed gets `Admitted` or `Rejected` or `Lost` first,
//! and ends with `Rejected`, `Lost`, or an event with a finish reason. Feeds are never blocked on.

use std::time::Instant;

use hotspare_batch::{Generate, RejectReason, RequestId, SequenceEvent};
use tokio::sync::mpsc;

/// Slots of a job's channel that a sequence needs beside its tokens: admission, a finish without
/// a token, and the loss of the target.
pub(crate) const NUM_EXTRA_ARRIVALS: usize = 3;

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

/// Where a target delivers the arrivals of one sequence.
///
/// The channel is shared by the choices of a job and has room for every token they can yield, so
/// that a slow reader neither blocks a target nor loses anything, and a target that sends more
/// than it may is found out. Slots are allocated as they are used.
#[derive(Clone, Debug)]
pub(crate) struct Feed {
    index: u32,
    sender: mpsc::Sender<Arrival>,
}

impl Feed {
    pub(crate) fn new(index: u32, sender: mpsc::Sender<Arrival>) -> Self {
        Self { index, sender }
    }

    /// Delivers without waiting. False where nobody listens any more, or where the target sent
    /// more than the sequence can have.
    pub(crate) fn deliver(&self, attempt: u32, at: Instant, kind: ArrivalKind) -> bool {
        let arrival = Arrival {
            index: self.index,
            attempt,
            at,
            kind,
        };
        self.sender.try_send(arrival).is_ok()
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
