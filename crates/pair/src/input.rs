//! Everything that comes to the driver's thread.
//!
//! Invariant: one queue, bounded; who cannot wait for room in it counts what is lost.

use hotspare_failover::{Command, Event, OperationId, Outcome};
use tokio::sync::oneshot;

use crate::link::{LinkEnd, LinkId, LinkSender};
use crate::noise::Hello;
use crate::wire::{Frame, WireHeartbeat};

/// Something for the driver.
pub(crate) enum Input {
    /// An answer to one of the machine's actions.
    Event(Event),
    /// A heartbeat in a datagram.
    Datagram(Box<WireHeartbeat>),
    /// A control link is up.
    LinkUp {
        id: LinkId,
        hello: Hello,
        accepted: bool,
        sender: LinkSender,
    },
    /// It brought something.
    Frame { link: LinkId, frame: Frame },
    /// It ended.
    LinkDown { id: LinkId, end: LinkEnd },
    /// An operator's command.
    Command {
        id: OperationId,
        command: Command,
        reason: String,
        requested_by: String,
        reply: oneshot::Sender<Outcome>,
    },
    /// SIGTERM; answered when the process may end.
    Terminate(oneshot::Sender<()>),
    /// The farewell has had its time to leave.
    FarewellSaid,
}
