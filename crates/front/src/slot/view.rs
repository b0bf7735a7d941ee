//! What status and metrics see of the slot: its engines by name, and sums over all lives.
//!
//! Invariant: counters never go back, however often engines are started again.

use std::sync::Arc;

use hotspare_link::{EngineHello, EngineStats};

use super::{Engine, EngineSlot};
use crate::{EngineState, ServedModel};

/// Counters over all lives and gauges of the present ones.
#[derive(Clone, Debug, Default)]
pub(crate) struct SlotStats {
    /// Counters are sums over all lives; of the gauges, requests are those of all engines and
    /// blocks those of `main`, 0 without one.
    pub(crate) engine: EngineStats,
    /// Tokens that arrived from all lives.
    pub(crate) num_tokens: u64,
    /// KV blocks in the pool of `main`; 0 while unknown.
    pub(crate) num_blocks: u32,
    /// How often an engine was started in place of one that was lost.
    pub(crate) num_restarts: u64,
    /// Engines that were ended from outside while they served.
    pub(crate) num_losses_outside: u64,
    /// Engines that ended, hung or spoke nonsense while they served.
    pub(crate) num_losses_own: u64,
    /// Engines that are ready beside `main`.
    pub(crate) num_ready_spares: u64,
}

/// One engine, for `/ha/status`.
#[derive(Clone, Debug)]
pub(crate) struct EngineView {
    pub(crate) name: String,
    pub(crate) served: Option<Arc<ServedModel>>,
    pub(crate) pid: Option<u32>,
    pub(crate) state: EngineState,
    pub(crate) hello: Option<EngineHello>,
    pub(crate) stats: EngineStats,
    pub(crate) num_steps: u64,
}

impl EngineView {
    fn of(name: String, engine: &Engine) -> Self {
        let client = engine.client.as_ref();
        Self {
            name,
            served: Some(Arc::clone(&engine.served)),
            pid: engine.pid,
            state: engine.state.clone(),
            hello: engine.hello.clone(),
            stats: client.map(|client| client.stats()).unwrap_or_default(),
            num_steps: client.map_or(0, |client| client.last_step()),
        }
    }
}

impl EngineSlot {
    /// The engines with their names, `main` first.
    pub(crate) fn engines(&self) -> Vec<EngineView> {
        let inner = self.inner();
        let first = inner.first();
        let main = match first {
            Some(engine) => EngineView {
                state: inner.state(),
                hello: engine.hello.clone().or_else(|| inner.hello.clone()),
                ..EngineView::of("main".to_owned(), engine)
            },
            None => EngineView {
                name: "main".to_owned(),
                served: None,
                pid: None,
                state: inner.state(),
                hello: inner.hello.clone(),
                stats: EngineStats::default(),
                num_steps: 0,
            },
        };
        let first = first.map(|engine| engine.id);
        let mut views = vec![main];
        let (mut num_spares, mut num_retired) = (0, 0);
        for engine in &inner.engines {
            if Some(engine.id) == first || engine.is_lost {
                continue;
            }
            let name = if engine.is_retired {
                num_retired += 1;
                format!("retired-{num_retired}")
            } else if engine.generation == inner.generation {
                num_spares += 1;
                format!("spare-{num_spares}")
            } else {
                "next".to_owned()
            };
            views.push(EngineView::of(name, engine));
        }
        views
    }

    /// Sequences that run on engines of this node for the peer's front.
    pub(crate) fn num_relayed(&self) -> usize {
        let inner = self.inner();
        let clients = inner
            .engines
            .iter()
            .filter_map(|engine| engine.client.as_ref());
        clients.map(|client| client.num_relayed()).sum()
    }

    /// Sequences of this front that run on engines of peers; `None` while none can be reached.
    pub(crate) fn num_on_peer(&self) -> Option<usize> {
        let inner = self.inner();
        let nums = inner.peers.values().map(|peer| peer.num_sequences());
        nums.reduce(|sum, num| sum + num)
    }

    pub(crate) fn stats(&self) -> SlotStats {
        let inner = self.inner();
        let main = inner.main();
        let mut all = SlotStats {
            num_tokens: inner.past_num_tokens,
            num_blocks: inner.hello.as_ref().map_or(0, |hello| hello.num_blocks),
            num_restarts: inner.num_restarts,
            num_losses_outside: inner.num_losses_outside,
            num_losses_own: inner.num_losses_own,
            ..SlotStats::default()
        };
        add_counters(&mut all.engine, &inner.past);
        for engine in &inner.engines {
            let Some(client) = &engine.client else {
                continue;
            };
            let stats = client.stats();
            add_counters(&mut all.engine, &stats);
            all.num_tokens += client.num_tokens();
            all.engine.num_running += stats.num_running;
            all.engine.num_waiting += stats.num_waiting;
            let is_main = main.is_some_and(|main| main.id == engine.id);
            if is_main {
                all.engine.num_used_blocks = stats.num_used_blocks;
                all.engine.num_cached_blocks = stats.num_cached_blocks;
            } else if engine.is_of(inner.generation) {
                all.num_ready_spares += 1;
            }
        }
        all
    }
}

/// Adds the counters of `other`, leaving the gauges.
pub(super) fn add_counters(stats: &mut EngineStats, other: &EngineStats) {
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
