//! One control link: heartbeats and replication frames both ways over one TCP connection.
//!
//! Of heartbeats only the newest waits to be sent, so a slow link never delays what it would say
//! last.
//!
//! Invariant: a link tells the driver once that it is up, then what it reads, then once how it
//! ended.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{mpsc, watch};

use crate::input::Input;
use crate::noise::Hello;
use crate::noise_stream::NoiseStream;
use crate::wire::{Frame, WireHeartbeat, read_frame, write_frame};

/// Frames that wait on a link; heartbeats are not among them.
const MAX_NUM_QUEUED_FRAMES: usize = 8;

/// Names a link in this process.
pub(crate) type LinkId = u64;

/// The driver's end of a link. Dropping it closes the link.
pub(crate) struct LinkSender {
    heartbeat: watch::Sender<Option<Arc<WireHeartbeat>>>,
    frames: mpsc::Sender<Frame>,
}

impl LinkSender {
    pub(crate) fn heartbeat(&self, heartbeat: &Arc<WireHeartbeat>) {
        self.heartbeat.send_replace(Some(Arc::clone(heartbeat)));
    }

    /// Queues a frame, where there is room.
    pub(crate) fn frame(&self, frame: Frame) -> bool {
        self.frames.try_send(frame).is_ok()
    }
}

/// How a link ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LinkEnd {
    /// The other end closed or reset it.
    Cut,
    /// Nothing came for so long that this end closed it.
    Idle,
    /// It said something that is no frame.
    Invalid,
    /// This end closed it.
    Local,
}

/// What all links share.
pub(crate) struct LinkContext {
    pub(crate) inputs: mpsc::Sender<Input>,
    pub(crate) max_frame_bytes: usize,
    pub(crate) idle_ms: u64,
    pub(crate) ids: AtomicU64,
}

/// Runs a link to its end.
pub(crate) async fn run<S>(
    stream: NoiseStream<S>,
    hello: Hello,
    accepted: bool,
    context: &LinkContext,
) where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let id = context.ids.fetch_add(1, Ordering::Relaxed);
    let (heartbeat, heartbeats) = watch::channel(None);
    let (frames, queued) = mpsc::channel(MAX_NUM_QUEUED_FRAMES);
    let sender = LinkSender { heartbeat, frames };
    let up = Input::LinkUp {
        id,
        hello,
        accepted,
        sender,
    };
    if context.inputs.send(up).await.is_err() {
        return;
    }
    let (mut reader, mut writer) = tokio::io::split(stream);
    let end = tokio::select! {
        end = read(&mut reader, id, context) => end,
        end = write(&mut writer, heartbeats, queued) => end,
    };
    // A driver that has ended does not want to know.
    let _gone = context.inputs.send(Input::LinkDown { id, end }).await;
}

async fn read<R: AsyncRead + Unpin>(
    reader: &mut R,
    link: LinkId,
    context: &LinkContext,
) -> LinkEnd {
    let idle = Duration::from_millis(context.idle_ms);
    loop {
        let frame = tokio::time::timeout(idle, read_frame(reader, context.max_frame_bytes)).await;
        let frame = match frame {
            Err(_) => return LinkEnd::Idle,
            Ok(Err(error)) if error.kind() == std::io::ErrorKind::InvalidData => {
                return LinkEnd::Invalid;
            }
            Ok(Err(_)) => return LinkEnd::Cut,
            Ok(Ok(frame)) => frame,
        };
        if context
            .inputs
            .send(Input::Frame { link, frame })
            .await
            .is_err()
        {
            return LinkEnd::Local;
        }
    }
}

async fn write<W: AsyncWrite + Unpin>(
    writer: &mut W,
    mut heartbeats: watch::Receiver<Option<Arc<WireHeartbeat>>>,
    mut queued: mpsc::Receiver<Frame>,
) -> LinkEnd {
    loop {
        let frame = tokio::select! {
            biased;
            changed = heartbeats.changed() => {
                if changed.is_err() {
                    return LinkEnd::Local;
                }
                match &*heartbeats.borrow_and_update() {
                    Some(heartbeat) => Frame::Heartbeat(Box::new(WireHeartbeat::clone(heartbeat))),
                    None => continue,
                }
            }
            frame = queued.recv() => match frame {
                Some(frame) => frame,
                None => return LinkEnd::Local,
            },
        };
        if write_frame(writer, &frame).await.is_err() {
            return LinkEnd::Cut;
        }
    }
}
