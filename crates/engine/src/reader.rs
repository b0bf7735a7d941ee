//! The thread that listens to the front.
//!
//! It decodes messages into the inbox, and it is the engine's sense of whether the front lives:
//! when the socket ends, a process ends at once, whatever its step is doing. The kernel closes the
//! socket when the front dies, however it dies. `PR_SET_PDEATHSIG` is not used: it fires when the
//! parent's starting thread ends, and the threads of an asynchronous runtime come and go.
//!
//! Invariant: however this thread ends, the inbox is closed.

use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use hotspare_link::{FrameReader, FrontMessage, LinkError};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Signal, getpid, kill_process};

use crate::error::{EXIT_FRONT_LOST, EXIT_PROTOCOL};
use crate::inbox::{Closed, Inbox};

/// How often a full inbox is tried again.
const FULL_INBOX_POLL: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 1_000_000,
};

/// Time that a process's orderly end may take: handlers of a wedged driver may never return.
const EXIT_GRACE_MS: u64 = 300;

/// What happens when the front is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OnLoss {
    /// The process ends.
    Exit,
    /// The engine's thread hears of it from its inbox.
    CloseInbox,
}

/// Starts the thread.
pub(crate) fn spawn(
    stream: UnixStream,
    max_frame_bytes: usize,
    inbox: Arc<Inbox>,
    on_loss: OnLoss,
) -> std::io::Result<()> {
    let read = move || {
        let _closer = CloseOnDrop(&inbox);
        let closed = match read_all(stream, max_frame_bytes, &inbox) {
            Ok(()) | Err(LinkError::Io(_) | LinkError::Truncated { .. }) => Closed::FrontLost,
            Err(error) => Closed::Garbage(error.to_string()),
        };
        // Where the engine ended by itself, its thread ends the process with the right status.
        if inbox.close(closed.clone()) && on_loss == OnLoss::Exit {
            exit_process(closed);
        }
    };
    let builder = thread::Builder::new().name("front-reader".to_owned());
    builder.spawn(read).map(drop)
}

/// Closes the inbox if the thread panics.
struct CloseOnDrop<'a>(&'a Inbox);

impl Drop for CloseOnDrop<'_> {
    fn drop(&mut self) {
        self.0.close(Closed::FrontLost);
    }
}

fn read_all(stream: UnixStream, max_frame_bytes: usize, inbox: &Inbox) -> Result<(), LinkError> {
    let mut reader = FrameReader::new(stream, max_frame_bytes);
    while let Some(message) = reader.read::<FrontMessage>()? {
        let mut pending = inbox.try_push(message);
        while let Err(message) = pending {
            // The front may die while the inbox is full, and then no read would tell.
            if wait_or_hang_up(reader.get_ref())? {
                return Ok(());
            }
            pending = inbox.try_push(message);
        }
    }
    Ok(())
}

/// Sleeps for a moment; returns at once, and true, where the other end is closed.
fn wait_or_hang_up(stream: &UnixStream) -> std::io::Result<bool> {
    let mut fds = [PollFd::new(stream, PollFlags::RDHUP)];
    match poll(&mut fds, Some(&FULL_INBOX_POLL)) {
        Ok(num_ready) => Ok(num_ready > 0),
        Err(rustix::io::Errno::INTR) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Ends the process; does not come back.
fn exit_process(closed: Closed) {
    let status = match closed {
        Closed::FrontLost | Closed::Ended => EXIT_FRONT_LOST,
        Closed::Garbage(reason) => {
            // The engine's thread tells the front, if it comes to it in time, and ends the process.
            tracing::error!(reason, "the front broke the protocol");
            thread::sleep(Duration::from_millis(EXIT_GRACE_MS));
            EXIT_PROTOCOL
        }
    };
    let kill = || {
        thread::sleep(Duration::from_millis(EXIT_GRACE_MS));
        // Nothing is left to do where even this fails.
        let _ = kill_process(getpid(), Signal::KILL);
    };
    drop(thread::Builder::new().spawn(kill));
    std::process::exit(status.into());
}
