//! Clients as the OpenAI SDKs are: they try again twice when a request has not begun, at the other
//! address, and take an explicit error for an answer.
//!
//! Invariant: every request ends, finished or with an error that its client has seen.

use std::collections::BTreeMap;

use crate::world::{Happening, World};

/// How often a client begins a request, at most, in milliseconds.
const PAUSE_MS: u64 = 6_000;
const MAX_TRIES: u32 = 3;

/// The clients' side of requests that have not ended.
#[derive(Default)]
pub(crate) struct Clients {
    open: BTreeMap<u64, Request>,
    last: u64,
}

struct Request {
    node: usize,
    length: u32,
    tries: u32,
}

impl World {
    /// Zero: time for a new request. Otherwise: that request is tried.
    pub(crate) fn client(&mut self, request: u64) {
        if request != 0 {
            self.try_request(request);
            return;
        }
        self.clients.last += 1;
        let id = self.clients.last;
        let length = u32::try_from(self.rng.between(5, 150)).unwrap_or(5);
        let node = self.rng.node();
        self.clients.open.insert(
            id,
            Request {
                node,
                length,
                tries: 0,
            },
        );
        self.checker.begun(id, length, self.now);
        let next = self.now + self.rng.between(500, PAUSE_MS);
        self.push(next, Happening::Client { request: 0 });
        self.try_request(id);
    }

    fn try_request(&mut self, id: u64) {
        let Some(request) = self.clients.open.get_mut(&id) else {
            return;
        };
        request.tries += 1;
        let (node, length) = (request.node, request.length);
        request.node = 1 - node;
        let in_reach = self.nodes[node].runs(self.now);
        if !in_reach || !self.receive(node, id, length) {
            self.refuse(id);
        }
    }

    /// The client gets an error; it tries again if nothing had begun.
    pub(crate) fn refuse(&mut self, id: u64) {
        let Some(request) = self.clients.open.get(&id) else {
            return;
        };
        if request.tries < MAX_TRIES && !self.checker.has_tokens(id) {
            let at = self.now + (500 << request.tries);
            self.push(at, Happening::Client { request: id });
        } else {
            self.clients.open.remove(&id);
            self.checker.finished(id, false);
        }
    }
}
