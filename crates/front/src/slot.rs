//! The engine slot: what is known about the engine named `main`, whichever life it is in.
//!
//! The supervisor writes it; streams, status and metrics read it.
//!
//! Invariant: a client can be had from the handshake until the connection is lost, that is while
//! the state is `Ready` or `Draining`. Counters never go back, however often the engine is started
//! again.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hotspare_link::{EngineHello, EngineStats};
use tokio::sync::watch;

use crate::EngineState;
use crate::client::EngineClient;

/// What the supervisor is asked to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Order {
    /// Keep an engine running.
    Run,
    /// Let the engine finish what runs, then end it.
    Drain,
}

#[derive(Default)]
struct Inner {
    client: Option<Arc<EngineClient>>,
    /// Of the engine that serves, or served last.
    hello: Option<EngineHello>,
    pid: Option<u32>,
    num_restarts: u64,
    /// Sums over the lives that ended.
    past: EngineStats,
    past_num_tokens: u64,
}

/// See the module.
pub(crate) struct EngineSlot {
    inner: Mutex<Inner>,
    state: watch::Sender<EngineState>,
    order: watch::Sender<Order>,
}

/// Counters over all lives and gauges of the present one.
#[derive(Clone, Debug, Default)]
pub(crate) struct SlotStats {
    /// Counters are sums over all lives; gauges are of the present one, 0 without one.
    pub(crate) engine: EngineStats,
    /// Steps of the present life.
    pub(crate) num_steps_this_life: u64,
    /// Tokens that arrived from all lives.
    pub(crate) num_tokens: u64,
    /// KV blocks in the pool; 0 while unknown.
    pub(crate) num_blocks: u32,
    /// How often the engine was started again.
    pub(crate) num_restarts: u64,
}

impl EngineSlot {
    pub(crate) fn new() -> Self {
        Self {
            inner: Mutex::default(),
            state: watch::Sender::new(EngineState::Starting),
            order: watch::Sender::new(Order::Run),
        }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The client of the engine that serves now, if one does.
    pub(crate) fn client(&self) -> Option<Arc<EngineClient>> {
        self.inner().client.clone()
    }

    /// The engine that takes the attempts of a stream: one that serves `model_hash`, or for a
    /// stream that has not begun (`None`) the one that takes new requests.
    pub(crate) fn target(&self, model_hash: Option<&str>) -> Option<Arc<EngineClient>> {
        self.client()
            .filter(|client| model_hash.is_none_or(|hash| client.hello().model_hash == hash))
    }

    pub(crate) fn state(&self) -> EngineState {
        self.state.borrow().clone()
    }

    pub(crate) fn subscribe(&self) -> watch::Receiver<EngineState> {
        self.state.subscribe()
    }

    pub(crate) fn set_state(&self, state: EngineState) {
        self.state.send_replace(state);
    }

    /// A process was started.
    pub(crate) fn on_launch(&self, life: u32, pid: Option<u32>) {
        let mut inner = self.inner();
        inner.pid = pid;
        inner.num_restarts = life.into();
        drop(inner);
        self.set_state(EngineState::Starting);
    }

    /// The engine serves.
    pub(crate) fn on_ready(&self, client: Arc<EngineClient>) {
        let mut inner = self.inner();
        inner.hello = Some(client.hello().clone());
        inner.client = Some(client);
        drop(inner);
        self.set_state(EngineState::Ready);
    }

    /// The engine's connection ended: nobody can reach it any more.
    pub(crate) fn on_disconnect(&self) {
        let mut inner = self.inner();
        if let Some(client) = inner.client.take() {
            add_counters(&mut inner.past, &client.stats());
            inner.past_num_tokens += client.num_tokens();
        }
    }

    /// The engine's process was waited for.
    pub(crate) fn on_exit(&self) {
        self.inner().pid = None;
    }

    pub(crate) fn hello(&self) -> Option<EngineHello> {
        self.inner().hello.clone()
    }

    pub(crate) fn pid(&self) -> Option<u32> {
        self.inner().pid
    }

    pub(crate) fn stats(&self) -> SlotStats {
        let inner = self.inner();
        let present = inner.client.as_ref().map(|client| client.stats());
        let present = present.unwrap_or_default();
        let present_num_tokens = inner
            .client
            .as_ref()
            .map_or(0, |client| client.num_tokens());
        let num_steps_this_life = inner.client.as_ref().map_or(0, |client| client.last_step());
        let mut engine = present;
        add_counters(&mut engine, &inner.past);
        SlotStats {
            engine,
            num_steps_this_life,
            num_tokens: inner.past_num_tokens + present_num_tokens,
            num_blocks: inner.hello.as_ref().map_or(0, |hello| hello.num_blocks),
            num_restarts: inner.num_restarts,
        }
    }

    /// Orders only grow: a drain is not taken back.
    pub(crate) fn give_order(&self, order: Order) {
        self.order.send_if_modified(|current| {
            let grows = order > *current;
            *current = order.max(*current);
            grows
        });
    }

    pub(crate) fn orders(&self) -> watch::Receiver<Order> {
        self.order.subscribe()
    }
}

/// Adds the counters of `other`, leaving the gauges.
fn add_counters(stats: &mut EngineStats, other: &EngineStats) {
    stats.num_steps += other.num_steps;
    stats.num_prompt_tokens += other.num_prompt_tokens;
    stats.num_cached_prompt_tokens += other.num_cached_prompt_tokens;
    stats.num_generated_tokens += other.num_generated_tokens;
    stats.num_preemptions += other.num_preemptions;
    stats.step_tokens += other.step_tokens;
    stats.preemptions += other.preemptions;
    stats.num_prefix_cache_queries += other.num_prefix_cache_queries;
    stats.num_prefix_cache_hits += other.num_prefix_cache_hits;
    stats.device += other.device;
    stats.schedule_ns += other.schedule_ns;
    stats.transport_ns += other.transport_ns;
}
