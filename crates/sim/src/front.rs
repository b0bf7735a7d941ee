//! What the fronts do with requests: admit, hold, send to the peer's engine, move to another one.
//!
//! A stream's text is its positions: token k of a request is k, on whichever engine. So a gap or a
//! doubled token shows at once.
//!
//! Invariant: a stream has one attempt at a time, and tokens of another one are dropped.

use std::collections::BTreeMap;

use hotspare_failover::{Admission, Epoch};

use crate::plan::Bug;
use crate::world::{Happening, World};

/// How often streams go on, in milliseconds, and by how many tokens.
pub(crate) const TICK_MS: u64 = 250;
const TOKENS_PER_TICK: u32 = 5;
/// Without a token for so long, a stream is moved.
const STALL_MS: u64 = 1_500;
/// A stream that nobody can go on with ends with an error.
const GIVE_UP_MS: u64 = 60_000;

/// A front's memory.
#[derive(Default)]
pub(crate) struct Front {
    pub(crate) streams: BTreeMap<u64, Stream>,
    /// What this node's engine does for the peer's front.
    pub(crate) jobs: BTreeMap<u64, Job>,
    /// The tenant's key is revoked here; on the disk, too.
    pub(crate) revoked: bool,
}

/// A request that this front holds the journal of.
pub(crate) struct Stream {
    pub(crate) delivered: u32,
    pub(crate) length: u32,
    /// Whose engine works on it; `None`: held.
    pub(crate) target: Option<usize>,
    pub(crate) attempt: u32,
    pub(crate) since: u64,
    pub(crate) progress_at: u64,
}

/// Work for the peer's front.
pub(crate) struct Job {
    pub(crate) attempt: u32,
    next: u32,
    length: u32,
}

/// What fronts say to each other.
#[derive(Clone, Copy)]
pub(crate) enum Message {
    Generate {
        request: u64,
        attempt: u32,
        from: u32,
        length: u32,
        epoch: Epoch,
        begun: bool,
    },
    Refused {
        request: u64,
        attempt: u32,
    },
    Tokens {
        request: u64,
        attempt: u32,
        from: u32,
        count: u32,
    },
    Revoke,
    Revoked,
}

impl World {
    fn send_message(&mut self, node: usize, message: Message) {
        // Between fronts there is TCP: nothing is lost but by a cut, and a cut loses all.
        if self.network.cut_from[node] > 0 {
            return;
        }
        let at = self.now + 1 + self.network.delay_ms;
        self.push(
            at,
            Happening::Front {
                node: 1 - node,
                message,
            },
        );
    }

    /// A request comes in; whether it was accepted, held included.
    pub(crate) fn receive(&mut self, node: usize, request: u64, length: u32) -> bool {
        if matches!(self.nodes[node].admission, Admission::Closed) {
            return false;
        }
        let (since, progress_at) = (self.now, self.now);
        let stream = Stream {
            delivered: 0,
            length,
            target: None,
            attempt: 0,
            since,
            progress_at,
        };
        self.nodes[node].front.streams.insert(request, stream);
        self.place(node, request);
        true
    }

    /// Finds an engine for a stream that has none.
    fn place(&mut self, node: usize, request: u64) {
        let admits = self.nodes[node].admits(self.now, self.plan.bug);
        let admission = self.nodes[node].admission;
        let (works, peer_known) = (self.nodes[node].engine.works(), self.peer_in_reach(node));
        let epoch = self.seen(node);
        let now = self.now;
        let Some(stream) = self.nodes[node].front.streams.get_mut(&request) else {
            return;
        };
        let begun = stream.delivered > 0;
        // A stream that has begun may go on anywhere; a new one needs somebody who admits it.
        let target = if works && (begun || admits) {
            Some(node)
        } else if peer_known && (begun || admits || matches!(admission, Admission::ToPeer { .. })) {
            Some(1 - node)
        } else {
            None
        };
        let Some(target) = target else { return };
        stream.target = Some(target);
        stream.attempt += 1;
        stream.progress_at = now;
        let (attempt, from, length) = (stream.attempt, stream.delivered, stream.length);
        let begun = begun || admits;
        if !begun || admits {
            self.checker.audited(request);
        }
        if target != node {
            let message = Message::Generate {
                request,
                attempt,
                from,
                length,
                epoch,
                begun,
            };
            self.send_message(node, message);
        }
    }

    fn peer_in_reach(&self, node: usize) -> bool {
        self.nodes[node]
            .state
            .as_ref()
            .and_then(|state| state.peer())
            .is_some_and(|(_, at)| {
                self.clock(node).ms_since(at) < self.nodes[node].settings.timers.suspect_after_ms
            })
    }

    pub(crate) fn front_message(&mut self, node: usize, message: Message) {
        if self.nodes[node].state.is_none() {
            return;
        }
        match message {
            Message::Generate {
                request,
                attempt,
                from,
                length,
                epoch,
                begun,
            } => {
                let state = self.nodes[node].state.as_ref();
                let in_time = state.is_some_and(|state| state.check_epoch(epoch).is_ok());
                let admits = self.nodes[node].admits(self.now, self.plan.bug);
                let front = &mut self.nodes[node].front;
                let newer = front
                    .jobs
                    .get(&request)
                    .is_none_or(|job| job.attempt < attempt);
                if newer && self.nodes[node].engine.works() && in_time && (begun || admits) {
                    let job = Job {
                        attempt,
                        next: from,
                        length,
                    };
                    self.nodes[node].front.jobs.insert(request, job);
                } else if newer {
                    self.send_message(node, Message::Refused { request, attempt });
                }
            }
            Message::Refused { request, attempt } => {
                if let Some(stream) = self.nodes[node].front.streams.get_mut(&request)
                    && stream.attempt == attempt
                {
                    stream.target = None;
                }
            }
            Message::Tokens {
                request,
                attempt,
                from,
                count,
            } => {
                self.receive_tokens(node, request, attempt, from, count);
            }
            Message::Revoke => {
                self.nodes[node].front.revoked = true;
                self.send_message(node, Message::Revoked);
            }
            Message::Revoked => self.checker.revoked = true,
        }
    }

    fn receive_tokens(&mut self, node: usize, request: u64, attempt: u32, from: u32, count: u32) {
        let accepts_late = self.plan.bug == Some(Bug::LateTokens);
        let now = self.now;
        let Some(stream) = self.nodes[node].front.streams.get_mut(&request) else {
            return;
        };
        if stream.attempt != attempt && !accepts_late {
            return;
        }
        if from > stream.delivered && !accepts_late {
            // A cut lost what was between: ask again from where the client is.
            stream.target = None;
            return;
        }
        let first = if accepts_late { from } else { stream.delivered };
        let end = from + count;
        stream.delivered = stream.delivered.max(end.min(stream.length));
        stream.progress_at = now;
        self.checker.tokens(request, first, end);
        self.finish(node, request);
    }

    fn finish(&mut self, node: usize, request: u64) {
        let front = &mut self.nodes[node].front;
        if front
            .streams
            .get(&request)
            .is_some_and(|s| s.delivered >= s.length)
        {
            front.streams.remove(&request);
            self.checker.finished(request, true);
        }
    }

    /// Streams go on, are moved, or end.
    pub(crate) fn tokens(&mut self, node: usize, generation: u64) {
        if !self.is_current(node, generation) {
            return;
        }
        let next = self.delayed(node).unwrap_or(self.now + TICK_MS);
        self.push(next, Happening::Tokens { node, generation });
        if next != self.now + TICK_MS {
            return;
        }
        let works = self.nodes[node].engine.works();
        let ids: Vec<u64> = self.nodes[node].front.streams.keys().copied().collect();
        for request in ids {
            self.go_on(node, request, works);
        }
        if !works {
            self.nodes[node].front.jobs.clear();
            return;
        }
        let mut out = Vec::new();
        self.nodes[node].front.jobs.retain(|&request, job| {
            let count = TOKENS_PER_TICK.min(job.length - job.next);
            out.push(Message::Tokens {
                request,
                attempt: job.attempt,
                from: job.next,
                count,
            });
            job.next += count;
            job.next < job.length
        });
        for message in out {
            self.send_message(node, message);
        }
    }

    fn go_on(&mut self, node: usize, request: u64, works: bool) {
        let now = self.now;
        let hold_ms = self.nodes[node].settings.timers.takeover_hold_ms;
        let Some(stream) = self.nodes[node].front.streams.get_mut(&request) else {
            return;
        };
        let limit = if stream.delivered == 0 {
            hold_ms
        } else {
            GIVE_UP_MS
        };
        if stream.target == Some(node) && works {
            let first = stream.delivered;
            stream.delivered = (first + TOKENS_PER_TICK).min(stream.length);
            stream.progress_at = now;
            let end = stream.delivered;
            self.checker.tokens(request, first, end);
            self.finish(node, request);
        } else if now - stream.progress_at.max(stream.since) >= limit {
            self.nodes[node].front.streams.remove(&request);
            self.refuse(request);
        } else if stream.target == Some(node)
            || stream.target.is_none()
            || now - stream.progress_at >= STALL_MS
        {
            // A move is no progress.
            let progress_at = stream.progress_at;
            stream.target = None;
            self.place(node, request);
            if let Some(stream) = self.nodes[node].front.streams.get_mut(&request) {
                let stalled = stream.target == Some(1 - node);
                stream.progress_at = if stalled {
                    progress_at.max(now - STALL_MS / 2)
                } else {
                    progress_at
                };
            }
        }
    }

    /// The front is gone, and its clients' connections with it.
    pub(crate) fn lose_streams(&mut self, node: usize) {
        let streams = std::mem::take(&mut self.nodes[node].front.streams);
        for (request, _) in streams {
            self.refuse(request);
        }
    }

    /// An administrator revokes a key, where that is allowed.
    pub(crate) fn revoke(&mut self) {
        let writer = (0..2).find(|&node| {
            let settings = &self.nodes[node].settings;
            self.nodes[node].runs(self.now)
                && self.nodes[node]
                    .state
                    .as_ref()
                    .is_some_and(|state| state.may_write(settings))
        });
        if let Some(node) = writer {
            self.nodes[node].front.revoked = true;
            if self.plan.bug == Some(Bug::EarlyRevocation) {
                self.checker.revoked = true;
            }
            self.send_message(node, Message::Revoke);
        }
    }
}
