//! One line of statistics in the log, every so often, while there is something to say.
//!
//! Invariant: rates are over the time that really passed, and an idle server is silent after one
//! last line.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::slot::{EngineSlot, SlotStats};

/// Logs until it is dropped. An interval of zero logs nothing.
pub(crate) async fn run(slot: Arc<EngineSlot>, every: Duration) {
    if every.is_zero() {
        return;
    }
    let mut ticks = interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks.tick().await;
    let mut last = slot.stats();
    let mut last_at = Instant::now();
    let mut was_active = false;
    loop {
        ticks.tick().await;
        let now = slot.stats();
        let line = Line::between(&last, &now, last_at.elapsed());
        if line.is_active || was_active {
            tracing::info!("{}", line.text());
        }
        was_active = line.is_active;
        (last, last_at) = (now, Instant::now());
    }
}

/// What a line says.
#[derive(Debug, PartialEq)]
struct Line {
    prompt_tokens_per_s: f64,
    generation_tokens_per_s: f64,
    num_running: u32,
    num_waiting: u32,
    kv_cache_usage: f64,
    prefix_cache_hit_rate: f64,
    is_active: bool,
}

impl Line {
    fn between(last: &SlotStats, now: &SlotStats, elapsed: Duration) -> Self {
        let seconds = elapsed.as_secs_f64().max(1e-3);
        let num_prompt_tokens = |stats: &SlotStats| {
            stats.engine.num_prompt_tokens + stats.engine.num_cached_prompt_tokens
        };
        let num_prompt = num_prompt_tokens(now).saturating_sub(num_prompt_tokens(last));
        let num_generated = now.num_tokens.saturating_sub(last.num_tokens);
        let engine = &now.engine;
        let share = |part: f64, whole: f64| if whole > 0.0 { part / whole } else { 0.0 };
        Self {
            prompt_tokens_per_s: num_prompt as f64 / seconds,
            generation_tokens_per_s: num_generated as f64 / seconds,
            num_running: engine.num_running,
            num_waiting: engine.num_waiting,
            kv_cache_usage: share(engine.num_used_blocks.into(), now.num_blocks.into()),
            prefix_cache_hit_rate: share(
                engine.num_prefix_cache_hits as f64,
                engine.num_prefix_cache_queries as f64,
            ),
            is_active: num_prompt + num_generated > 0
                || engine.num_running > 0
                || engine.num_waiting > 0,
        }
    }

    fn text(&self) -> String {
        format!(
            "Avg prompt throughput: {:.1} tokens/s, Avg generation throughput: {:.1} tokens/s, \
             Running: {} reqs, Waiting: {} reqs, KV cache usage: {:.1}%, \
             Prefix cache hit rate: {:.1}%",
            self.prompt_tokens_per_s,
            self.generation_tokens_per_s,
            self.num_running,
            self.num_waiting,
            self.kv_cache_usage * 100.0,
            self.prefix_cache_hit_rate * 100.0,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hotspare_link::EngineStats;

    #[test]
    fn a_line_says_what_happened_between_two_looks() {
        let last = SlotStats {
            num_tokens: 100,
            engine: EngineStats {
                num_prompt_tokens: 1_000,
                num_cached_prompt_tokens: 500,
                ..EngineStats::default()
            },
            ..SlotStats::default()
        };
        let now = SlotStats {
            num_tokens: 350,
            num_blocks: 200,
            engine: EngineStats {
                num_running: 3,
                num_waiting: 2,
                num_used_blocks: 50,
                num_prompt_tokens: 1_100,
                num_cached_prompt_tokens: 600,
                num_prefix_cache_queries: 1_000,
                num_prefix_cache_hits: 125,
                ..EngineStats::default()
            },
            ..SlotStats::default()
        };
        let line = Line::between(&last, &now, Duration::from_secs(10));
        assert!(line.is_active);
        assert_eq!(
            line.text(),
            "Avg prompt throughput: 20.0 tokens/s, Avg generation throughput: 25.0 tokens/s, \
             Running: 3 reqs, Waiting: 2 reqs, KV cache usage: 25.0%, Prefix cache hit rate: 12.5%"
        );
        assert!(!Line::between(&last, &last, Duration::from_secs(10)).is_active);
    }
}
