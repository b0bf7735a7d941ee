//! What a running sequence has been given, where another engine may read it along.
//!
//! The stream writes, the shadow reads. The prompt is the journal's own; the delivered ids are kept
//! a second time, for as long as the journal could continue the sequence, so the journal's bounds
//! bound them too.
//!
//! Invariant: `num_read` is what the engine of that id has read, from the first id on.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use hotspare_batch::{RequestId, TokenId};
use hotspare_journal::RequestRecord;

use crate::ShadowMode;

#[derive(Debug, Default)]
struct State {
    delivered: Vec<TokenId>,
    /// The engine that has read along.
    engine_id: u64,
    num_read: usize,
    is_refused: bool,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Trail {
    pub(crate) model_hash: String,
    pub(crate) block_hash_keys: Vec<u64>,
    prompt: Arc<[TokenId]>,
    mode: ShadowMode,
    state: Mutex<State>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // The data is consistent between statements; a panic elsewhere does not make it less so.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Trail {
    /// Its client was given these.
    pub(crate) fn push(&self, token_ids: &[TokenId]) {
        lock(&self.state).delivered.extend_from_slice(token_ids);
    }

    /// Ids that may be read along: those of steps which an engine has survived, so neither a
    /// prompt without an answer yet nor the last id. 0 once an engine has refused it.
    pub(crate) fn num_readable(&self) -> usize {
        let state = lock(&self.state);
        match (state.delivered.len(), self.mode) {
            (0, _) | (_, ShadowMode::Off) => 0,
            _ if state.is_refused => 0,
            (_, ShadowMode::Prompts) => self.prompt.len(),
            (num_delivered, ShadowMode::Full | ShadowMode::Auto) => {
                self.prompt.len() + num_delivered - 1
            }
        }
    }

    /// The first ids.
    pub(crate) fn ids(&self, num_ids: usize) -> Vec<TokenId> {
        let state = lock(&self.state);
        let ids = self.prompt.iter().chain(&state.delivered);
        ids.take(num_ids).copied().collect()
    }

    /// How many ids this engine has read.
    pub(crate) fn num_read(&self, engine_id: u64) -> usize {
        let state = lock(&self.state);
        match state.engine_id == engine_id {
            true => state.num_read,
            false => 0,
        }
    }

    /// This engine has read so many ids.
    pub(crate) fn on_read(&self, engine_id: u64, num_ids: usize) {
        let mut state = lock(&self.state);
        (state.engine_id, state.num_read) = (engine_id, num_ids);
    }

    /// No engine is to read it along any more: one could not, or ended over it.
    pub(crate) fn refuse(&self) {
        lock(&self.state).is_refused = true;
    }
}

/// The trails of the sequences that run; see the module.
#[derive(Debug)]
pub(crate) struct Trails {
    mode: ShadowMode,
    all: Mutex<All>,
    num_shadow_ids: AtomicU64,
}

#[derive(Debug, Default)]
struct All {
    trails: BTreeMap<RequestId, Weak<Trail>>,
    /// Those that have ended are let go when there are so many.
    num_before_sweep: usize,
}

impl All {
    fn insert(&mut self, id: RequestId, trail: &Arc<Trail>) {
        if self.trails.len() >= self.num_before_sweep {
            self.trails.retain(|_, trail| trail.strong_count() > 0);
            self.num_before_sweep = MIN_NUM_BEFORE_SWEEP.max(2 * self.trails.len());
        }
        self.trails.insert(id, Arc::downgrade(trail));
    }
}

/// Fewer are not worth a look.
const MIN_NUM_BEFORE_SWEEP: usize = 64;

impl Trails {
    pub(crate) fn new(mode: ShadowMode) -> Self {
        Self {
            mode,
            all: Mutex::default(),
            num_shadow_ids: AtomicU64::new(0),
        }
    }

    /// A name for something that is read along, by this front or for the peer's.
    pub(crate) fn next_shadow_id(&self) -> RequestId {
        let number = self.num_shadow_ids.fetch_add(1, Ordering::Relaxed);
        let first = RequestId::FIRST_SHADOW.0;
        // Numbers are used again after a time that no round lasts.
        RequestId(first + number % (RequestId::CANARY.0 - first))
    }

    pub(crate) fn mode(&self) -> ShadowMode {
        self.mode
    }

    /// Starts one for a sequence that has begun; `None` where nothing is read along, or where the
    /// sequence could not be continued anyway.
    pub(crate) fn start(
        &self,
        record: &RequestRecord,
        index: usize,
        request_id: RequestId,
    ) -> Option<Arc<Trail>> {
        if self.mode == ShadowMode::Off {
            return None;
        }
        let trail = Arc::new(Trail {
            model_hash: record.origin()?.model_hash.clone(),
            block_hash_keys: record.params().block_hash_keys.clone(),
            prompt: record.shared_prompt(index)?,
            mode: self.mode,
            state: Mutex::default(),
        });
        lock(&self.all).insert(request_id, &trail);
        Some(trail)
    }

    /// Those of a model that still run.
    pub(crate) fn live(&self, model_hash: &str) -> Vec<Arc<Trail>> {
        let mut live = Vec::new();
        lock(&self.all)
            .trails
            .retain(|_, trail| match trail.upgrade() {
                Some(trail) => {
                    if trail.model_hash == model_hash {
                        live.push(trail);
                    }
                    true
                }
                None => false,
            });
        live
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use hotspare_batch::{SamplingParams, StopParams};
    use hotspare_journal::{ChoiceStart, JobParams, Journal, JournalConfig};

    use super::*;

    fn record() -> RequestRecord {
        let journal = Journal::new(JournalConfig {
            max_request_bytes: 1 << 20,
            max_bytes: 1 << 20,
        });
        let params = JobParams {
            sampling: SamplingParams::greedy(),
            stop: StopParams::default(),
            priority: 0,
            deadline_ms: None,
            block_hash_keys: vec![7],
        };
        let choice = ChoiceStart {
            request_id: RequestId(0),
            prompt: Arc::from([1, 2, 3]),
            choice: 0,
            max_tokens: 9,
        };
        let mut record = journal.begin(params, vec![choice]);
        record.begin_on("hash", "numerics");
        record.on_admitted(0, Duration::ZERO);
        record
    }

    #[test]
    fn what_no_step_has_survived_is_not_read() {
        let trails = Trails::new(ShadowMode::Full);
        let trail = trails.start(&record(), 0, RequestId(0)).expect("it is on");
        assert_eq!(trail.num_readable(), 0, "the prompt alone may be poison");
        trail.push(&[4]);
        assert_eq!(trail.num_readable(), 3);
        trail.push(&[5, 6]);
        assert_eq!(trail.num_readable(), 5);
        assert_eq!(trail.ids(5), [1, 2, 3, 4, 5]);
        assert_eq!(trail.block_hash_keys, [7]);
        trail.on_read(11, 4);
        assert_eq!((trail.num_read(11), trail.num_read(12)), (4, 0));
        trail.refuse();
        assert_eq!(trail.num_readable(), 0);
        assert!(
            Trails::new(ShadowMode::Off)
                .start(&record(), 0, RequestId(0))
                .is_none()
        );
    }

    #[test]
    fn trails_that_ended_are_let_go() {
        let trails = Trails::new(ShadowMode::Full);
        let kept = trails.start(&record(), 0, RequestId(0)).expect("it is on");
        for id in 1..1_000 {
            drop(trails.start(&record(), 0, RequestId(id)));
            assert!(lock(&trails.all).trails.len() <= MIN_NUM_BEFORE_SWEEP);
        }
        assert!(trails.live("other").is_empty());
        let live = trails.live("hash");
        assert!(live.len() == 1 && Arc::ptr_eq(&live[0], &kept));
    }
}
