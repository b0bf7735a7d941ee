//! Prometheus metrics under vLLM's names, so that existing dashboards and autoscalers work
//! unchanged.
//!
//! What requests experience is recorded here as it happens; what the engine knows is read from its
//! latest statistics at each scrape.
//!
//! Invariant: a metric that is exposed is measured. Counters never go back while this process
//! lives.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use hotspare_journal::Journal;
use hotspare_protocol::FinishReason;
use prometheus_client::encoding::text::encode_registry;
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use crate::buckets;
use crate::engine_metrics::EngineMetrics;
use crate::replay_metrics::ReplayMetrics;
use crate::slot::EngineSlot;

/// Content type of [`Metrics::samples`].
pub(crate) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Label of `vllm:request_success`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct FinishLabels {
    finished_reason: Finish,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Finish(FinishReason);

impl EncodeLabelValue for Finish {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> std::fmt::Result {
        EncodeLabelValue::encode(&self.0.as_str(), encoder)
    }
}

/// Label of `vllm:admission_rejections`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RejectionLabels {
    reason: &'static str,
}

/// What one choice experienced, from the job's start to the choice's end.
#[derive(Clone, Debug)]
pub(crate) struct ChoiceRecord {
    /// How it ended; `Abort` where its client went away.
    pub(crate) reason: FinishReason,
    /// Prompt tokens.
    pub(crate) num_prompt_tokens: usize,
    /// Tokens drawn.
    pub(crate) num_tokens: u32,
    /// `max_tokens`, clamped.
    pub(crate) max_tokens: u32,
    /// From the job's start to the end.
    pub(crate) e2e: Duration,
    /// In the engine's queue; `None` where it never ran.
    pub(crate) queue: Option<Duration>,
    /// From leaving the queue to the first token; `None` without a token.
    pub(crate) prefill: Option<Duration>,
    /// From the first token to the last; `None` without a token.
    pub(crate) decode: Option<Duration>,
}

/// Times of requests.
struct Latencies {
    time_to_first_token: Histogram,
    inter_token: Histogram,
    time_per_output_token: Histogram,
    e2e: Histogram,
    queue: Histogram,
    prefill: Histogram,
    decode: Histogram,
    inference: Histogram,
}

/// Sizes of requests.
struct Sizes {
    prompt_tokens: Histogram,
    generation_tokens: Histogram,
    max_num_generation_tokens: Histogram,
    params_n: Histogram,
    params_max_tokens: Histogram,
}

/// See the module.
pub(crate) struct Metrics {
    registry: Registry,
    latencies: Latencies,
    sizes: Sizes,
    success: Family<FinishLabels, Counter>,
    rejections: Family<RejectionLabels, Counter>,
    /// What failovers cost.
    pub(crate) replay: ReplayMetrics,
    journal: Journal,
}

fn histogram(scope: &mut Registry, name: &str, help: &str, bounds: &[f64]) -> Histogram {
    let histogram = Histogram::new(bounds.iter().copied());
    scope.register(format!("vllm:{name}"), help, histogram.clone());
    histogram
}

impl Latencies {
    fn register(scope: &mut Registry) -> Self {
        Self {
            time_to_first_token: histogram(
                scope,
                "time_to_first_token_seconds",
                "Time from a request's arrival to its first token",
                &buckets::TIME_TO_FIRST_TOKEN,
            ),
            inter_token: histogram(
                scope,
                "inter_token_latency_seconds",
                "Time between two tokens of a request",
                &buckets::INTER_TOKEN,
            ),
            time_per_output_token: histogram(
                scope,
                "request_time_per_output_token_seconds",
                "Mean time between two tokens, one observation for each request",
                &buckets::INTER_TOKEN,
            ),
            e2e: histogram(
                scope,
                "e2e_request_latency_seconds",
                "Time from a request's arrival to its end",
                &buckets::REQUEST,
            ),
            queue: histogram(
                scope,
                "request_queue_time_seconds",
                "Time that a request waited in the engine to run",
                &buckets::REQUEST,
            ),
            prefill: histogram(
                scope,
                "request_prefill_time_seconds",
                "Time from a request's first step to its first token",
                &buckets::REQUEST,
            ),
            decode: histogram(
                scope,
                "request_decode_time_seconds",
                "Time from a request's first token to its last",
                &buckets::REQUEST,
            ),
            inference: histogram(
                scope,
                "request_inference_time_seconds",
                "Time from a request's first step to its last token",
                &buckets::REQUEST,
            ),
        }
    }
}

impl Sizes {
    fn register(scope: &mut Registry, max_model_len: u32) -> Self {
        let tokens = buckets::token_counts(max_model_len);
        Self {
            prompt_tokens: histogram(
                scope,
                "request_prompt_tokens",
                "Prompt tokens of a request",
                &tokens,
            ),
            generation_tokens: histogram(
                scope,
                "request_generation_tokens",
                "Tokens generated for a request",
                &tokens,
            ),
            max_num_generation_tokens: histogram(
                scope,
                "request_max_num_generation_tokens",
                "Tokens generated for the longest choice of a request",
                &tokens,
            ),
            params_n: histogram(
                scope,
                "request_params_n",
                "The n parameter of requests",
                &buckets::PARAMS_N,
            ),
            params_max_tokens: histogram(
                scope,
                "request_params_max_tokens",
                "The max_tokens parameter of requests",
                &tokens,
            ),
        }
    }
}

/// Labels of every sample, as vLLM has them.
pub(crate) fn labels(
    model_name: &str,
) -> impl Iterator<Item = (Cow<'static, str>, Cow<'static, str>)> {
    let labels = [
        ("model_name".into(), model_name.to_owned().into()),
        ("engine".into(), "0".into()),
    ];
    labels.into_iter()
}

impl Metrics {
    /// Registers everything; `max_model_len` bounds the buckets that count tokens.
    pub(crate) fn new(
        model_name: &str,
        max_model_len: u32,
        slot: Arc<EngineSlot>,
        journal: Journal,
    ) -> Self {
        let mut registry = Registry::default();
        let scope = registry.sub_registry_with_labels(labels(model_name));
        let latencies = Latencies::register(scope);
        let sizes = Sizes::register(scope, max_model_len);
        let success = Family::<FinishLabels, Counter>::default();
        scope.register(
            "vllm:request_success",
            "Requests that ended, by reason",
            success.clone(),
        );
        let rejections = Family::<RejectionLabels, Counter>::default();
        scope.register(
            "vllm:admission_rejections",
            "Requests refused, by reason",
            rejections.clone(),
        );
        let replay = ReplayMetrics::register(scope);
        scope.register_collector(Box::new(EngineMetrics::new(slot)));
        Self {
            registry,
            latencies,
            sizes,
            success,
            rejections,
            replay,
            journal,
        }
    }

    /// All metrics in the OpenMetrics text format, but for its end.
    pub(crate) fn samples(&self) -> String {
        self.replay.set_journal_bytes(self.journal.num_bytes());
        let mut text = String::new();
        encode_registry(&mut text, &self.registry).expect("writing to a string cannot fail");
        text
    }

    /// A job was admitted.
    pub(crate) fn on_job(&self, n: u32) {
        self.sizes.params_n.observe(n.into());
    }

    /// A job was refused.
    pub(crate) fn on_rejection(&self, reason: &'static str) {
        self.rejections
            .get_or_create(&RejectionLabels { reason })
            .inc();
    }

    /// A choice's first token came.
    pub(crate) fn on_first_token(&self, since_arrival: Duration) {
        self.latencies
            .time_to_first_token
            .observe(since_arrival.as_secs_f64());
    }

    /// A later token came.
    pub(crate) fn on_next_token(&self, since_last: Duration) {
        self.latencies.inter_token.observe(since_last.as_secs_f64());
    }

    /// A choice ended.
    pub(crate) fn on_choice_end(&self, record: &ChoiceRecord) {
        let finished_reason = Finish(record.reason);
        self.success
            .get_or_create(&FinishLabels { finished_reason })
            .inc();
        self.latencies.e2e.observe(record.e2e.as_secs_f64());
        self.sizes
            .prompt_tokens
            .observe(record.num_prompt_tokens as f64);
        self.sizes
            .generation_tokens
            .observe(record.num_tokens.into());
        self.sizes
            .params_max_tokens
            .observe(record.max_tokens.into());
        if let Some(queue) = record.queue {
            self.latencies.queue.observe(queue.as_secs_f64());
        }
        if let Some((prefill, decode)) = record.prefill.zip(record.decode) {
            self.latencies.prefill.observe(prefill.as_secs_f64());
            let inference = prefill + decode;
            self.latencies.inference.observe(inference.as_secs_f64());
        }
        if let Some(decode) = record.decode {
            self.latencies.decode.observe(decode.as_secs_f64());
            if record.num_tokens > 1 {
                let num_gaps = f64::from(record.num_tokens - 1);
                self.latencies
                    .time_per_output_token
                    .observe(decode.as_secs_f64() / num_gaps);
            }
        }
    }

    /// A job ended; its longest choice had so many tokens.
    pub(crate) fn on_job_end(&self, max_num_tokens: u32) {
        self.sizes
            .max_num_generation_tokens
            .observe(max_num_tokens.into());
    }
}
