//! Metrics that only the engine knows, read from its latest statistics at each scrape.
//!
//! Invariant: gauges are those of the engines that are there now, 0 without one; counters are sums
//! over all lives.

use std::fmt;
use std::sync::Arc;

use hotspare_batch::{BucketCounts, PREEMPTIONS_BOUNDS, STEP_TOKENS_BOUNDS};
use hotspare_link::{EngineHello, EngineStats};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, MetricEncoder};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

use crate::slot::{EngineSlot, SlotStats};

/// Of exemplars, of which there are none.
type NoLabels = [(&'static str, &'static str); 0];

/// See the module.
pub(crate) struct EngineMetrics {
    slot: Arc<EngineSlot>,
}

impl fmt::Debug for EngineMetrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("EngineMetrics")
    }
}

impl EngineMetrics {
    pub(crate) fn new(slot: Arc<EngineSlot>) -> Self {
        Self { slot }
    }
}

/// Writes metrics without labels of their own.
pub(crate) struct Exposition<'a> {
    pub(crate) encoder: DescriptorEncoder<'a>,
}

impl Exposition<'_> {
    pub(crate) fn gauge(&mut self, name: &str, help: &str, value: f64) -> fmt::Result {
        let gauge = ConstGauge::new(value);
        let metric = self
            .encoder
            .encode_descriptor(name, help, None, MetricType::Gauge)?;
        gauge.encode(metric)
    }

    pub(crate) fn counter(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        let counter = ConstCounter::new(value);
        let metric = self
            .encoder
            .encode_descriptor(name, help, None, MetricType::Counter)?;
        counter.encode(metric)
    }

    fn seconds(&mut self, name: &str, help: &str, nanoseconds: u64) -> fmt::Result {
        let counter = ConstCounter::new(nanoseconds as f64 / 1e9);
        let metric = self
            .encoder
            .encode_descriptor(name, help, None, MetricType::Counter)?;
        counter.encode(metric)
    }

    fn histogram(
        &mut self,
        name: &str,
        help: &str,
        bounds: &[u64],
        counts: &BucketCounts,
    ) -> fmt::Result {
        let mut metric = self
            .encoder
            .encode_descriptor(name, help, None, MetricType::Histogram)?;
        let buckets: Vec<(f64, u64)> = counts
            .buckets(bounds)
            .map(|(bound, count)| (bound.map_or(f64::INFINITY, |bound| bound as f64), count))
            .collect();
        metric.encode_histogram::<NoLabels>(counts.sum() as f64, counts.num(), &buckets, None)
    }

    /// One gauge or counter with a label, one sample for each of its values.
    pub(crate) fn by_label(
        &mut self,
        (name, help, kind): (&str, &str, MetricType),
        label: &'static str,
        samples: &[(&'static str, u64)],
    ) -> fmt::Result {
        let mut metric = self.encoder.encode_descriptor(name, help, None, kind)?;
        for (value, sample) in samples {
            let labels = [(label, *value)];
            let encoder = metric.encode_family(&labels)?;
            match kind {
                MetricType::Gauge => ConstGauge::new(*sample as i64).encode(encoder)?,
                _ => ConstCounter::new(*sample).encode(encoder)?,
            }
        }
        Ok(())
    }
}

impl Collector for EngineMetrics {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let stats = self.slot.stats();
        let state = self.slot.state().name();
        let engine = &stats.engine;
        let mut out = Exposition { encoder };
        encode_requests(&mut out, engine)?;
        let usage = match stats.num_blocks {
            0 => 0.0,
            num_blocks => f64::from(engine.num_used_blocks) / f64::from(num_blocks),
        };
        out.gauge(
            "vllm:kv_cache_usage_perc",
            "Share of the KV cache in use; 1 is all of it",
            usage,
        )?;
        encode_tokens(&mut out, &stats.engine, stats.num_tokens)?;
        encode_histograms(&mut out, engine)?;
        out.counter(
            "vllm:num_preemptions",
            "Requests that lost their KV blocks to others and are computed again",
            engine.num_preemptions,
        )?;
        out.counter(
            "hotspare:engine_steps",
            "Steps that the engine ran",
            engine.num_steps,
        )?;
        encode_fleet(&mut out, &stats)?;
        const STATES: [&str; 7] = [
            "starting", "loading", "ready", "backoff", "draining", "stopped", "failed",
        ];
        out.by_label(
            (
                "hotspare:engine_state",
                "1 for the state that the engine is in",
                MetricType::Gauge,
            ),
            "state",
            &STATES.map(|name| (name, u64::from(name == state))),
        )?;
        encode_times(&mut out, engine)?;
        let Some(hello) = self.slot.hello() else {
            return Ok(());
        };
        let metric = out.encoder.encode_descriptor(
            "vllm:cache_config_info",
            "The KV cache, in labels; the value is 1",
            None,
            MetricType::Gauge,
        )?;
        encode_cache_config(metric, &hello)
    }
}

/// Engines that were lost, and those that could take over.
fn encode_fleet(out: &mut Exposition<'_>, stats: &SlotStats) -> fmt::Result {
    out.counter(
        "hotspare:engine_restarts",
        "How often the engine was started again",
        stats.num_restarts,
    )?;
    out.by_label(
        (
            "hotspare:engine_losses",
            "Engines that were lost while they served, by whose doing it was",
            MetricType::Counter,
        ),
        "cause",
        &[
            ("outside", stats.num_losses_outside),
            ("own", stats.num_losses_own),
        ],
    )?;
    out.gauge(
        "hotspare:engine_ready_spares",
        "Engines that are ready beside the one that serves",
        stats.num_ready_spares as f64,
    )
}

fn encode_cache_config(mut metric: MetricEncoder<'_>, hello: &EngineHello) -> fmt::Result {
    let labels = [
        ("block_size", hello.block_size.to_string()),
        // The field's name for it, whatever the device.
        ("num_gpu_blocks", hello.num_blocks.to_string()),
    ];
    ConstGauge::new(1i64).encode(metric.encode_family(&labels)?)
}

fn encode_tokens(out: &mut Exposition<'_>, engine: &EngineStats, num_tokens: u64) -> fmt::Result {
    let cached = engine.num_cached_prompt_tokens;
    out.counter(
        "vllm:prompt_tokens",
        "Prompt tokens processed, those found in the prefix cache included",
        engine.num_prompt_tokens + cached,
    )?;
    out.by_label(
        (
            "vllm:prompt_tokens_by_source",
            "Prompt tokens by where their KV came from",
            MetricType::Counter,
        ),
        "source",
        &[
            ("local_compute", engine.num_prompt_tokens),
            ("local_cache_hit", cached),
        ],
    )?;
    out.counter(
        "vllm:prompt_tokens_cached",
        "Prompt tokens found in the prefix cache",
        cached,
    )?;
    out.counter("vllm:generation_tokens", "Tokens generated", num_tokens)?;
    out.counter(
        "vllm:prefix_cache_queries",
        "Tokens looked up in the prefix cache",
        engine.num_prefix_cache_queries,
    )?;
    out.counter(
        "vllm:prefix_cache_hits",
        "Tokens found in the prefix cache",
        engine.num_prefix_cache_hits,
    )
}

fn encode_requests(out: &mut Exposition<'_>, engine: &EngineStats) -> fmt::Result {
    out.gauge(
        "vllm:num_requests_running",
        "Requests that are in the engine's running set",
        engine.num_running.into(),
    )?;
    out.gauge(
        "vllm:num_requests_waiting",
        "Requests that wait to run",
        engine.num_waiting.into(),
    )?;
    // Nothing here waits for anything but room: no adapters, grammars or transfers.
    out.by_label(
        (
            "vllm:num_requests_waiting_by_reason",
            "Requests that wait to run, by what they wait for",
            MetricType::Gauge,
        ),
        "reason",
        &[("capacity", engine.num_waiting.into()), ("deferred", 0)],
    )
}

fn encode_histograms(out: &mut Exposition<'_>, engine: &EngineStats) -> fmt::Result {
    out.histogram(
        "vllm:iteration_tokens_total",
        "Tokens of a step",
        &STEP_TOKENS_BOUNDS,
        &engine.step_tokens,
    )?;
    out.histogram(
        "vllm:request_num_preemptions",
        "How often a request lost its KV blocks to others before it ended",
        &PREEMPTIONS_BOUNDS,
        &engine.preemptions,
    )
}

fn encode_times(out: &mut Exposition<'_>, engine: &EngineStats) -> fmt::Result {
    let device = &engine.device;
    out.seconds(
        "hotspare:engine_linear_seconds",
        "Time in matrix products",
        device.linear_ns,
    )?;
    out.seconds(
        "hotspare:engine_attention_seconds",
        "Time in attention",
        device.attention_ns,
    )?;
    out.seconds(
        "hotspare:engine_sample_seconds",
        "Time drawing tokens",
        device.sample_ns,
    )?;
    out.seconds(
        "hotspare:engine_device_seconds",
        "Time in steps, as the device sees them",
        device.total_ns,
    )?;
    out.seconds(
        "hotspare:engine_schedule_seconds",
        "Time scheduling and committing",
        engine.schedule_ns,
    )?;
    out.seconds(
        "hotspare:engine_transport_seconds",
        "Time reading and writing the socket",
        engine.transport_ns,
    )
}
