//! Files in memory that engines keep their KV blocks in, and those that lost engines left.
//!
//! A file has no name anywhere: it is gone with the last process that has it open, and the front
//! holds it, so the end of an engine does not touch it. The engines of this front open it by the
//! front's own table of open files.
//!
//! Invariant: what a lost engine left is let go of once its streams had time to be taken over.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use hotspare_link::EngineHello;
use rustix::fs::{MemfdFlags, memfd_create};

use crate::client::EngineClient;

/// Lost engines whose blocks are held, at most: as many as an engine looks through.
const MAX_NUM_LOST: usize = 2;

/// An anonymous file in memory.
#[derive(Debug)]
pub struct KvMirror(OwnedFd);

impl KvMirror {
    /// An empty one.
    ///
    /// # Errors
    /// Of the operating system.
    pub fn create() -> io::Result<Self> {
        Ok(Self(memfd_create("hotspare-kv", MemfdFlags::CLOEXEC)?))
    }

    /// How another process of the same user opens it.
    pub fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.0.as_raw_fd())
    }
}

/// What lost engines left, the last one last.
#[derive(Debug, Default)]
pub(crate) struct LostMirrors {
    mirrors: VecDeque<(Arc<KvMirror>, Instant)>,
}

impl LostMirrors {
    /// An engine was lost.
    pub(crate) fn push(&mut self, mirror: Arc<KvMirror>, now: Instant) {
        if self.mirrors.len() == MAX_NUM_LOST {
            self.mirrors.pop_front();
        }
        self.mirrors.push_back((mirror, now));
    }

    /// Tells an engine that may take streams over what there is.
    pub(crate) fn offer_all(&self, client: &EngineClient) {
        for (mirror, _) in &self.mirrors {
            client.adopt_blocks(mirror.path());
        }
    }

    /// Lets go of what was held for `retention`. True if that was the last.
    pub(crate) fn expire(&mut self, now: Instant, retention: Duration) -> bool {
        let had_any = !self.mirrors.is_empty();
        self.mirrors
            .retain(|(_, since)| now.saturating_duration_since(*since) < retention);
        had_any && self.mirrors.is_empty()
    }

    /// When [`Self::expire`] will have something to do.
    pub(crate) fn expires_at(&self, retention: Duration) -> Option<Instant> {
        self.mirrors.front().map(|(_, since)| *since + retention)
    }
}

/// Whether the engine that said `hello` copies KV blocks: one on a card does not.
pub(crate) fn copies_blocks(hello: &EngineHello) -> bool {
    !hello.device.starts_with("cuda")
}

#[cfg(test)]
#[path = "kv_mirror_test.rs"]
mod kv_mirror_test;
