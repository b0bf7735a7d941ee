//! The coordinator of replays: who stands in line, who is held back, who was convicted.
//!
//! It lends the policy a lock, wakers and a clock. Decisions are the policy's, one for each model
//! hash: what runs on another model's engine neither waits nor is accused.
//!
//! Invariant: a guard's sequence is in line, admitted or on trial only while the guard lives. The
//! lock is the innermost one: nothing is called while it is held.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use hotspare_batch::{RequestId, SequenceEvent};
use tokio::sync::{oneshot, watch};

use crate::FrontConfig;
use crate::convictions::{ContentHash, Convictions};
use crate::replay_policy::{ReplayLimits, ReplayPolicy, Verdict};
use crate::target::LossCause;

/// What concerns one model.
struct OfModel {
    policy: ReplayPolicy,
    waiters: BTreeMap<RequestId, oneshot::Sender<()>>,
    /// Which guard speaks for a sequence: one of an older attempt may outlive its attempt.
    guards: BTreeMap<RequestId, u64>,
}

/// See the module.
pub(crate) struct Replays {
    limits: ReplayLimits,
    max_num_held: usize,
    by_model: Mutex<BTreeMap<String, OfModel>>,
    /// Sent to whenever someone who is held back may look again.
    changes: watch::Sender<()>,
    num_held: AtomicUsize,
    num_guards: AtomicU64,
    convictions: Mutex<Convictions>,
    has_convictions: AtomicBool,
    num_convictions: AtomicU64,
}

/// Why a new request was not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HeldTooLong {
    /// As many as allowed are held back already.
    TooMany { max_num_held: usize },
    /// The trials took too long.
    TimedOut,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // The data is consistent between statements; a panic elsewhere does not make it less so.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Replays {
    pub(crate) fn new(config: &FrontConfig) -> Self {
        Self {
            limits: ReplayLimits {
                max_num_concurrent: config.max_num_concurrent_replays,
                max_num_concurrent_tokens: config.max_num_concurrent_replay_tokens,
                max_num_solo_losses: config.max_num_solo_losses,
                max_num_excused_losses: config.max_num_excused_losses,
            },
            max_num_held: config.max_num_held_requests,
            by_model: Mutex::default(),
            changes: watch::Sender::new(()),
            num_held: AtomicUsize::new(0),
            num_guards: AtomicU64::new(0),
            convictions: Mutex::new(Convictions::new(
                config.max_num_convicted_requests,
                Duration::from_millis(config.convicted_ttl_ms),
            )),
            has_convictions: AtomicBool::new(false),
            num_convictions: AtomicU64::new(0),
        }
    }

    /// Runs `change` on a model's policy, then lets in whoever may run.
    fn with<T>(&self, model_hash: &str, change: impl FnOnce(&mut ReplayPolicy) -> T) -> T {
        self.with_model(model_hash, |of_model| change(&mut of_model.policy))
    }

    fn with_model<T>(&self, model_hash: &str, change: impl FnOnce(&mut OfModel) -> T) -> T {
        let mut by_model = lock(&self.by_model);
        if !by_model.contains_key(model_hash) {
            let new = OfModel {
                policy: ReplayPolicy::new(self.limits),
                waiters: BTreeMap::new(),
                guards: BTreeMap::new(),
            };
            by_model.insert(model_hash.to_owned(), new);
        }
        let of_model = by_model.get_mut(model_hash).expect("it was put there");
        let result = change(of_model);
        for id in of_model.policy.admit() {
            if let Some(waiter) = of_model.waiters.remove(&id) {
                // Who does not listen any more has a guard that is about to leave.
                let _ = waiter.send(());
            }
        }
        let holds_new = of_model.policy.holds_new();
        drop(by_model);
        if !holds_new && self.num_held.load(Ordering::SeqCst) > 0 {
            self.changes.send_replace(());
        }
        result
    }

    /// An engine ended that had these sequences, and had taken in those with `true`. True where it
    /// ended in a trial, which excuses it.
    pub(crate) fn on_loss(
        &self,
        model_hash: &str,
        cause: LossCause,
        lost: &[(RequestId, bool)],
    ) -> bool {
        let all: Vec<RequestId> = lost.iter().map(|(id, _)| *id).collect();
        let taken_in = lost.iter().filter(|(_, is_admitted)| *is_admitted);
        let live: Vec<RequestId> = taken_in.map(|(id, _)| *id).collect();
        let is_own = cause == LossCause::Own;
        tracing::warn!(
            num_sequences = lost.len(),
            is_own,
            "An engine is gone; what it worked on is continued on another."
        );
        self.with(model_hash, |policy| policy.on_loss(&all, &live, is_own))
    }

    /// Whether an engine reads again what another had read.
    pub(crate) fn is_busy(&self) -> bool {
        let by_model = lock(&self.by_model);
        by_model.values().any(|of_model| of_model.policy.is_busy())
    }

    /// What the last loss of a sequence means for it.
    pub(crate) fn verdict(&self, model_hash: &str, id: RequestId) -> Verdict {
        self.with(model_hash, |policy| policy.verdict(id))
    }

    /// A sequence has ended.
    pub(crate) fn forget(&self, model_hash: &str, id: RequestId) {
        // Most sequences end on the engine that they began on, and models that lost none have no
        // entry.
        if lock(&self.by_model).contains_key(model_hash) {
            self.with(model_hash, |policy| policy.forget(id));
        }
    }

    /// Waits until a new request disturbs no trial.
    pub(crate) async fn wait_turn(
        &self,
        model_hash: &str,
        patience: Duration,
    ) -> Result<(), HeldTooLong> {
        let holds_new = || {
            let by_model = lock(&self.by_model);
            let of_model = by_model.get(model_hash);
            of_model.is_some_and(|of_model| of_model.policy.holds_new())
        };
        if !holds_new() {
            return Ok(());
        }
        let max_num_held = self.max_num_held;
        let _held = Held::enter(&self.num_held);
        if self.num_held.load(Ordering::SeqCst) > max_num_held {
            return Err(HeldTooLong::TooMany { max_num_held });
        }
        let mut changes = self.changes.subscribe();
        let turn = async { while holds_new() && changes.changed().await.is_ok() {} };
        let in_time = tokio::time::timeout(patience, turn).await;
        in_time.map_err(|_| HeldTooLong::TimedOut)
    }

    /// Refuses this content from now on, for a while.
    pub(crate) fn convict(&self, content: ContentHash) {
        lock(&self.convictions).add(content, Instant::now());
        self.has_convictions.store(true, Ordering::Relaxed);
        self.num_convictions.fetch_add(1, Ordering::Relaxed);
    }

    /// Content that cannot be tried again was on an engine that ended by itself; `id` is its
    /// sequence's. It is refused when that has happened often enough. True from then on.
    pub(crate) fn accuse(&self, model_hash: &str, id: RequestId, content: ContentHash) -> bool {
        let was_alone = self.with(model_hash, |policy| policy.was_alone(id));
        let mut convictions = lock(&self.convictions);
        let is_convicted = convictions.accuse(content, was_alone, Instant::now());
        drop(convictions);
        if is_convicted {
            self.convict(content);
        }
        is_convicted
    }

    /// Requests that were convicted so far.
    pub(crate) fn num_convictions(&self) -> u64 {
        self.num_convictions.load(Ordering::Relaxed)
    }

    /// Whether any content is refused, so that hashing it is worth while.
    pub(crate) fn has_convictions(&self) -> bool {
        self.has_convictions.load(Ordering::Relaxed)
    }

    /// For how much longer `content` is refused.
    pub(crate) fn refused_for(&self, content: ContentHash) -> Option<Duration> {
        lock(&self.convictions).remaining(content, Instant::now())
    }
}

/// Counts as one held request while it lives.
struct Held<'a>(&'a AtomicUsize);

impl<'a> Held<'a> {
    fn enter(num_held: &'a AtomicUsize) -> Self {
        num_held.fetch_add(1, Ordering::SeqCst);
        Self(num_held)
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// A sequence's place among the replays, from its loss until its next attempt yielded something.
pub(crate) struct ReplayGuard {
    replays: Arc<Replays>,
    model_hash: String,
    id: RequestId,
    /// Tells it from the guards of the sequence's other attempts.
    number: u64,
    is_settled: AtomicBool,
}

impl ReplayGuard {
    /// Announces that `id` is to be continued on an engine of this model.
    pub(crate) fn announce(replays: Arc<Replays>, model_hash: String, id: RequestId) -> Self {
        let number = replays.num_guards.fetch_add(1, Ordering::Relaxed);
        replays.with_model(&model_hash, |of_model| {
            of_model.policy.leave(id);
            of_model.policy.announce(id);
            of_model.guards.insert(id, number);
            of_model.waiters.remove(&id);
        });
        Self {
            replays,
            model_hash,
            id,
            number,
            is_settled: AtomicBool::new(false),
        }
    }

    /// Changes what concerns the sequence, as long as this guard speaks for it.
    fn with<T: Default>(&self, change: impl FnOnce(&mut OfModel) -> T) -> T {
        self.replays.with_model(&self.model_hash, |of_model| {
            match of_model.guards.get(&self.id) == Some(&self.number) {
                true => change(of_model),
                false => T::default(),
            }
        })
    }

    /// Stands in line until it is this sequence's turn. There must be a target.
    pub(crate) async fn wait_turn(&self, priority: i32, num_ids: usize) {
        let (sender, turn) = oneshot::channel();
        self.with(|of_model| {
            of_model.waiters.insert(self.id, sender);
            of_model.policy.enlist(self.id, priority, num_ids);
        });
        // The sender is dropped unused only where a later guard speaks for the sequence.
        let _ = turn.await;
    }

    /// It had its turn, and its target was gone.
    pub(crate) fn step_back(&self) {
        self.with(|of_model| {
            of_model.policy.step_back(self.id);
            of_model.policy.announce(self.id);
        });
    }

    /// Its new attempt yielded something.
    pub(crate) fn on_event(&self, event: &SequenceEvent) {
        let num_tokens = event.token_ids.len() as u32;
        let has_ended = event.finish.is_some();
        if self.is_settled.load(Ordering::Relaxed) || (num_tokens == 0 && !has_ended) {
            return;
        }
        let is_settled =
            self.with(|of_model| of_model.policy.on_progress(self.id, num_tokens, has_ended));
        self.is_settled.store(is_settled, Ordering::Relaxed);
    }
}

impl Drop for ReplayGuard {
    fn drop(&mut self) {
        self.with(|of_model| {
            of_model.policy.leave(self.id);
            of_model.guards.remove(&self.id);
            of_model.waiters.remove(&self.id);
        });
    }
}

#[cfg(test)]
#[path = "replays_test.rs"]
mod replays_test;
