//! The body of a streamed answer: deltas in, events out, one at a time.
//!
//! The connection pulls: nothing is made before the last event went to the socket, and dropping
//! the body drops the generation.
//!
//! Invariant: the last event is always `[DONE]`, after the finish of every choice or after an
//! error.

use std::future::Future as _;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::Response;
use bytes::Bytes;
use futures::Stream;
use hotspare_front::{ChoiceDelta, GenerationStream};
use hotspare_protocol::{DONE_EVENT, KEEP_ALIVE_EVENT, REPLAY_COMMENT, write_error_event};
use tokio::time::{Instant, Sleep};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use crate::app::App;
use crate::body_budget::BodyShare;
use crate::collect::cut_short;
use crate::reply;

/// Bytes that most events fit in.
const EVENT_CAPACITY: usize = 320;

/// Makes an endpoint's events from deltas.
pub(crate) trait Events: Send + Unpin + 'static {
    /// Writes the events of a delta; there may be none.
    fn on_delta(&mut self, delta: ChoiceDelta, out: &mut Vec<u8>);
    /// Writes what comes before the terminator when every choice has ended.
    fn on_end(&mut self, out: &mut Vec<u8>);
}

/// Streams events until the generation ends.
struct EventStream<E> {
    /// `None` when everything was sent.
    generation: Option<GenerationStream>,
    events: E,
    num_open: usize,
    keep_alive: Option<KeepAlive>,
    /// While the generation waits to be continued.
    gap: Option<KeepAlive>,
    gap_interval: Duration,
    /// Whether the client has got any event.
    has_begun: bool,
    closing: Pin<Box<WaitForCancellationFutureOwned>>,
    _share: BodyShare,
}

/// What a stream obeys beside its generation.
pub(crate) struct Surroundings {
    keep_alive: Option<Duration>,
    gap_interval: Duration,
    closing: CancellationToken,
    share: BodyShare,
}

impl Surroundings {
    pub(crate) fn new(app: &App, share: BodyShare) -> Self {
        Self {
            keep_alive: app.config.sse_keep_alive_interval(),
            gap_interval: app.config.replay_keep_alive_interval(),
            closing: app.closing.clone(),
            share,
        }
    }
}

struct KeepAlive {
    interval: Duration,
    timer: Pin<Box<Sleep>>,
}

impl KeepAlive {
    fn new(interval: Duration) -> Self {
        let timer = Box::pin(tokio::time::sleep(interval));
        Self { interval, timer }
    }

    fn restart(&mut self) {
        self.timer.as_mut().reset(Instant::now() + self.interval);
    }

    /// Whether it is time for another sign of life.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        std::task::ready!(self.timer.as_mut().poll(cx));
        self.restart();
        // The restarted timer has to be asked once to wake this task again.
        let _ = self.timer.as_mut().poll(cx);
        Poll::Ready(())
    }
}

/// The response that streams a generation of `num_choices` choices.
pub(crate) fn response(
    generation: GenerationStream,
    num_choices: usize,
    events: impl Events,
    surroundings: Surroundings,
) -> Response {
    let stream = EventStream {
        generation: Some(generation),
        events,
        num_open: num_choices,
        keep_alive: surroundings.keep_alive.map(KeepAlive::new),
        gap: None,
        gap_interval: surroundings.gap_interval,
        has_begun: false,
        closing: Box::pin(surroundings.closing.cancelled_owned()),
        _share: surroundings.share,
    };
    let mut response = Response::new(Body::from_stream(stream));
    *response.status_mut() = StatusCode::OK;
    let headers = response.headers_mut();
    let content_type = HeaderValue::from_static("text/event-stream; charset=utf-8");
    headers.insert(header::CONTENT_TYPE, content_type);
    let no_cache = HeaderValue::from_static("no-cache");
    headers.insert(header::CACHE_CONTROL, no_cache);
    // Proxies of the nginx kind would gather events otherwise.
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    response
}

impl<E: Events> EventStream<E> {
    fn end(&mut self, out: &mut Vec<u8>) {
        self.generation = None;
        out.extend_from_slice(DONE_EVENT);
    }

    /// What is sent while there is nothing to say.
    fn poll_keep_alive(
        &mut self,
        is_replaying: bool,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, Never>>> {
        let comment = |bytes| Poll::Ready(Some(Ok(Bytes::from_static(bytes))));
        if is_replaying && self.has_begun {
            let interval = self.gap_interval;
            let gap = self.gap.get_or_insert_with(|| KeepAlive::new(interval));
            if gap.poll(cx).is_ready() {
                return comment(REPLAY_COMMENT);
            }
        } else {
            self.gap = None;
        }
        match &mut self.keep_alive {
            None => Poll::Pending,
            Some(keep_alive) => match keep_alive.poll(cx) {
                Poll::Ready(()) => comment(KEEP_ALIVE_EVENT),
                Poll::Pending => Poll::Pending,
            },
        }
    }
}

type Never = std::convert::Infallible;

impl<E: Events> Stream for EventStream<E> {
    type Item = Result<Bytes, Never>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        let mut out = Vec::new();
        loop {
            let Some(generation) = &mut this.generation else {
                return Poll::Ready(None);
            };
            let Poll::Ready(item) = Pin::new(&mut *generation).poll_next(cx) else {
                let is_replaying = generation.is_replaying();
                if this.closing.as_mut().poll(cx).is_pending() {
                    return this.poll_keep_alive(is_replaying, cx);
                }
                write_error_event(&reply::closed(), &mut out);
                this.end(&mut out);
                return Poll::Ready(Some(Ok(out.into())));
            };
            out.reserve(EVENT_CAPACITY);
            match item {
                Some(Ok(delta)) => {
                    let has_ended = usize::from(delta.finish.is_some());
                    this.num_open = this.num_open.saturating_sub(has_ended);
                    this.events.on_delta(delta, &mut out);
                    if this.num_open == 0 {
                        this.events.on_end(&mut out);
                        this.end(&mut out);
                    }
                }
                Some(Err(error)) => {
                    write_error_event(&reply::generate_error(error), &mut out);
                    this.end(&mut out);
                }
                None => {
                    write_error_event(&cut_short(), &mut out);
                    this.end(&mut out);
                }
            }
            if !out.is_empty() {
                this.has_begun = true;
                if let Some(keep_alive) = &mut this.keep_alive {
                    keep_alive.restart();
                }
                return Poll::Ready(Some(Ok(out.into())));
            }
        }
    }
}
