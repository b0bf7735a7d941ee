//! One replay: wait for an engine of the same model, stand in line, submit.
//!
//! It runs as a task of its own, so that a client that reads slowly does not keep others in line.
//! What it comes to reaches the stream through the sequence's feed, as tokens do.
//!
//! Invariant: it ends with the sequence submitted, with a `NotReplayed` in the feed, or aborted.

use std::sync::Arc;
use std::time::{Duration, Instant};

use hotspare_batch::{Generate, is_reproducible};
use hotspare_journal::Origin;
use tokio::time::{sleep, timeout};

use crate::EngineState;
use crate::client::EngineClient;
use crate::metrics::Metrics;
use crate::placement::Placement;
use crate::replays::ReplayGuard;
use crate::slot::EngineSlot;
use crate::target::{ArrivalKind, Feed, NotReplayed, SubmitError};
use crate::trail::Trail;

/// Where the target has a lost engine's KV blocks, it reads the end of each sequence again: less
/// than a block, and what was on its way out when that engine was lost. Counted as this part of the
/// sequence, so that a long line is bounded even if it finds nothing.
const LOST_BLOCKS_SHARE: usize = 8;

/// See the module.
pub(crate) struct Replay {
    pub(crate) slot: Arc<EngineSlot>,
    pub(crate) placement: Arc<Placement>,
    pub(crate) guard: Arc<ReplayGuard>,
    pub(crate) request: Generate,
    pub(crate) feed: Feed,
    pub(crate) origin: Origin,
    /// What a spare may have read of it.
    pub(crate) trail: Option<Arc<Trail>>,
    pub(crate) metrics: Arc<Metrics>,
    /// Since when it has no target.
    pub(crate) since: Instant,
    /// Not this one again: it does not take anything any more.
    pub(crate) avoid: Option<Arc<dyn crate::target::Target>>,
    /// Before the first try.
    pub(crate) delay: Duration,
    /// Time without a target that takes it, at most.
    pub(crate) patience: Duration,
    /// Between two looks at a target that has no room.
    pub(crate) retry_interval: Duration,
}

impl Replay {
    pub(crate) async fn run(mut self) {
        let attempt = self.request.attempt;
        let result = match self.request.deadline_ms.map(Duration::from_millis) {
            None => self.place().await,
            Some(left) => {
                let placed = timeout(left, self.place()).await;
                placed.unwrap_or(Err(NotReplayed::Deadline))
            }
        };
        if let Err(reason) = result {
            let kind = ArrivalKind::NotReplayed(reason);
            self.feed.deliver(attempt, Instant::now(), kind);
        }
    }

    async fn place(&mut self) -> Result<(), NotReplayed> {
        let started = Instant::now();
        sleep(self.delay).await;
        let mut patience = self.patience;
        loop {
            let searched = Instant::now();
            let found = timeout(patience, self.find_target()).await;
            found.unwrap_or(Err(NotReplayed::TimedOut))?;
            patience = patience.saturating_sub(searched.elapsed());
            let priority = self.request.priority;
            self.guard.wait_turn(priority, self.num_unread()).await;
            // While it stood in line its target may have gone.
            let Some(target) = self.target() else {
                self.guard.step_back();
                continue;
            };
            let mut request = self.request.clone();
            if let Some(left) = &mut request.deadline_ms {
                let waited = started.elapsed().as_millis();
                *left = left.saturating_sub(u64::try_from(waited).unwrap_or(u64::MAX));
            }
            let numerics_id = &target.hello().numerics_id;
            let is_exact = *numerics_id == self.origin.numerics_id && is_reproducible(numerics_id);
            let feed = self.feed.clone().watched(Arc::clone(&self.guard));
            let submitted = self
                .placement
                .submit(target.clone(), is_exact, request, feed);
            match submitted {
                Ok(()) => {
                    self.metrics.replay.on_submit(self.since.elapsed());
                    return Ok(());
                }
                Err(SubmitError::Gone) => {
                    self.guard.step_back();
                    self.avoid = Some(target);
                }
                Err(SubmitError::Full { .. }) => {
                    self.guard.step_back();
                    patience = patience.saturating_sub(self.retry_interval);
                    sleep(self.retry_interval).await;
                }
            }
        }
    }

    fn target(&self) -> Option<Arc<EngineClient>> {
        let target = self.slot.target(Some(&self.origin.model_hash))?;
        let is_avoided = self
            .avoid
            .as_ref()
            .is_some_and(|avoided| std::ptr::addr_eq(Arc::as_ptr(avoided), Arc::as_ptr(&target)));
        (!is_avoided).then_some(target)
    }

    /// Ids that the target has to read, as far as that is known here.
    fn num_unread(&self) -> usize {
        let num_ids = self.request.ids.len();
        let Some(target) = self.target() else {
            return num_ids;
        };
        let hello = target.hello();
        if target.has_lost_blocks() && hello.numerics_id == self.origin.numerics_id {
            return num_ids / LOST_BLOCKS_SHARE;
        }
        let num_read = self.trail.as_ref();
        let num_read = num_read.map_or(0, |trail| trail.num_read(hello.engine_id));
        num_ids.saturating_sub(num_read)
    }

    /// Returns once there is a target.
    async fn find_target(&self) -> Result<(), NotReplayed> {
        let mut states = self.slot.subscribe();
        loop {
            // A node that counts as failed may still come back; how long that is waited for is
            // the patience of the caller.
            let is_final = *states.borrow_and_update() == EngineState::Stopped;
            if self.target().is_some() {
                return Ok(());
            }
            if is_final || states.changed().await.is_err() {
                return Err(NotReplayed::NoEngine);
            }
        }
    }
}
