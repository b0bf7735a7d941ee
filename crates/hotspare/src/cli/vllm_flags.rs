//! Flags that vLLM knows and this build does not, so that a command line can be taken over
//! unchanged.
//!
//! Invariant: a flag is here only while ignoring it leaves every answer as it would have been asked
//! for: what would not is refused by name.

/// How many values follow a flag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Arity {
    /// None; `--no-…` exists too.
    Switch,
    /// One.
    Value,
    /// One or more.
    List,
}

/// What becomes of a flag of vLLM's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Known {
    /// Accepted with a warning.
    Ignored(Arity),
    /// Refused with any value but one. It has one value.
    RefusedUnless {
        /// What this build does anyway; empty where there is no such value.
        accepted: &'static str,
        /// The text completes "…: ".
        why: &'static str,
    },
}

const SWITCHES: &[&str] = &[
    "allow-credentials",
    "async-engine-use-ray",
    "calculate-kv-scales",
    "data-parallel-external-lb",
    "data-parallel-hybrid-lb",
    "disable-async-output-proc",
    "disable-cascade-attn",
    "disable-chunked-mm-input",
    "disable-custom-all-reduce",
    "disable-fastapi-docs",
    "disable-frontend-multiprocessing",
    "disable-hybrid-kv-cache-manager",
    "disable-log-requests",
    "disable-sliding-window",
    "disable-uvicorn-access-log",
    "enable-auto-tool-choice",
    "enable-chunked-prefill",
    "enable-dbo",
    "enable-eplb",
    "enable-expert-parallel",
    "enable-fault-tolerance",
    "enable-flashinfer-autotune",
    "enable-log-outputs",
    "enable-lora",
    "enable-mfu-metrics",
    "enable-prompt-embeds",
    "enable-server-load-tracking",
    "enable-sleep-mode",
    "enable-ssl-refresh",
    "enforce-eager",
    "kv-cache-metrics",
    "language-model-only",
    "multi-step-stream-outputs",
    "ray-workers-use-nsight",
    "scheduler-reserve-full-isl",
    "show-hidden-metrics",
    "skip-mm-profiling",
    "trust-remote-code",
    "use-tqdm-on-load",
    "use-v2-block-manager",
];

const VALUES: &[&str] = &[
    "additional-config",
    "all2all-backend",
    "allowed-headers",
    "allowed-local-media-path",
    "allowed-methods",
    "api-server-count",
    "attention-backend",
    "attention-config",
    "chat-template-content-format",
    "code-revision",
    "collect-detailed-traces",
    "compilation-config",
    "config-format",
    "cpu-offload-gb",
    "data-parallel-address",
    "data-parallel-backend",
    "data-parallel-rank",
    "data-parallel-rpc-port",
    "data-parallel-size",
    "data-parallel-size-local",
    "data-parallel-start-rank",
    "default-mm-loras",
    "distributed-executor-backend",
    "distributed-timeout-seconds",
    "ec-transfer-config",
    "eplb-config",
    "guided-decoding-backend",
    "h11-max-header-count",
    "h11-max-incomplete-event-size",
    "hf-token",
    "interleave-mm-strings",
    "kernel-config",
    "kv-events-config",
    "kv-offloading-backend",
    "kv-offloading-size",
    "kv-transfer-config",
    "limit-mm-per-prompt",
    "log-config-file",
    "long-prefill-threshold",
    "master-addr",
    "master-port",
    "max-cpu-loras",
    "max-cudagraph-capture-size",
    "max-log-len",
    "max-long-partial-prefills",
    "max-lora-rank",
    "max-loras",
    "max-num-active-seqs",
    "max-num-partial-prefills",
    "max-parallel-loading-workers",
    "max-seq-len-to-capture",
    "media-io-kwargs",
    "mm-encoder-tp-mode",
    "mm-processor-cache-gb",
    "mm-processor-kwargs",
    "model-loader-extra-config",
    "nnodes",
    "node-rank",
    "num-gpu-blocks-override",
    "num-lookahead-slots",
    "numa-bind-cpus",
    "optimization-level",
    "otlp-traces-endpoint",
    "performance-mode",
    "pipeline-parallel-size",
    "preemption-mode",
    "prefix-caching-hash-algo",
    "profiler-config",
    "pt-load-map-location",
    "ray-num-workers",
    "reasoning-config",
    "reasoning-parser",
    "safetensors-load-strategy",
    "scheduler-cls",
    "scheduler-delay-factor",
    "spec-method",
    "spec-model",
    "spec-tokens",
    "speculative-config",
    "stream-interval",
    "structured-outputs-config",
    "swap-space",
    "tensor-parallel-size",
    "tokenizer-mode",
    "tokenizer-pool-size",
    "tool-call-parser",
    "tool-parser-plugin",
    "tool-server",
    "uvicorn-log-level",
    "video-pruning-rate",
    "watchdog-config",
    "watermark",
    "worker-cls",
    "worker-extension-cls",
];

const LISTS: &[&str] = &[
    "cuda-graph-sizes",
    "cudagraph-capture-sizes",
    "ignore-patterns",
    "logits-processors",
    "middleware",
    "reasoning-parser-plugin",
];

/// One value each, in vLLM's short spellings.
const SHORT_VALUES: &[&str] = &[
    "-O", "-ac", "-asc", "-cc", "-dp", "-dpa", "-dpb", "-dpl", "-dpn", "-dpp", "-dpr", "-pp", "-tp",
];

const NO_TLS: &str = "this build does not speak TLS; put a proxy that does in front of it";
const NO_OTHER_FILES: &str = "this build reads all of a model's files from one place";
const NO_OTHER_CONFIG: &str = "this build serves a model's config as it is";
const ONLY_TEXT: &str = "this build generates text only";

/// Name, value that asks for what this build does anyway (empty where there is none), and why
/// another value is refused.
const REFUSED: &[(&str, &str, &str)] = &[
    ("convert", "none", ONLY_TEXT),
    (
        "default-chat-template-kwargs",
        "{}",
        "this build takes them from requests only",
    ),
    ("hf-config-path", "", NO_OTHER_FILES),
    ("hf-overrides", "{}", NO_OTHER_CONFIG),
    (
        "logits-processor-pattern",
        "",
        "this build loads no plugins",
    ),
    (
        "logprobs-mode",
        "raw_logprobs",
        "this build reports raw log-probabilities only",
    ),
    ("lora-modules", "", "this build has no adapters"),
    (
        "max-num-queued-tokens",
        "",
        "this build bounds requests: --max-num-queued-reqs",
    ),
    ("pooler-config", "", ONLY_TEXT),
    (
        "response-role",
        "assistant",
        "this build answers as `assistant` only",
    ),
    ("root-path", "", "this build serves at the root only"),
    ("rope-scaling", "", NO_OTHER_CONFIG),
    ("rope-theta", "", NO_OTHER_CONFIG),
    ("runner", "generate", ONLY_TEXT),
    ("ssl-ca-certs", "", NO_TLS),
    ("ssl-cert-reqs", "0", NO_TLS),
    ("ssl-certfile", "", NO_TLS),
    ("ssl-ciphers", "", NO_TLS),
    ("ssl-keyfile", "", NO_TLS),
    ("task", "generate", ONLY_TEXT),
    ("tokenizer", "", NO_OTHER_FILES),
    ("tokenizer-revision", "main", NO_OTHER_FILES),
    ("uds", "", "this build listens on TCP only"),
];

/// Looks a long flag up by its name, without dashes in front; a `no-` form by its positive name.
pub(crate) fn lookup(name: &str) -> Option<Known> {
    // `--compilation-config.level 3` sets one key of a JSON option.
    let name = name.split('.').next().unwrap_or(name);
    if let Some((_, accepted, why)) = REFUSED.iter().find(|(refused, ..)| *refused == name) {
        return Some(Known::RefusedUnless { accepted, why });
    }
    if VALUES.contains(&name) {
        return Some(Known::Ignored(Arity::Value));
    }
    if LISTS.contains(&name) {
        return Some(Known::Ignored(Arity::List));
    }
    let positive = name.strip_prefix("no-").unwrap_or(name);
    SWITCHES
        .contains(&positive)
        .then_some(Known::Ignored(Arity::Switch))
}

/// Looks a flag in vLLM's short spelling up; `-O3` and `-tp=2` hold their value.
pub(crate) fn lookup_short(arg: &str) -> Option<Known> {
    if arg.starts_with("-O") && arg.len() > 2 {
        return Some(Known::Ignored(Arity::Switch));
    }
    if SHORT_VALUES.contains(&arg) {
        return Some(Known::Ignored(Arity::Value));
    }
    let (flag, _) = arg.split_once('=')?;
    SHORT_VALUES
        .contains(&flag)
        .then_some(Known::Ignored(Arity::Switch))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_flag_is_in_two_tables() {
        let refused = REFUSED.iter().map(|(name, ..)| name);
        let all = SWITCHES.iter().chain(VALUES).chain(LISTS).chain(refused);
        let mut names: Vec<&&str> = all.collect();
        let num_names = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), num_names);
    }

    #[test]
    fn looks_up_every_spelling() {
        let ignored = |arity| Some(Known::Ignored(arity));
        assert_eq!(lookup("tensor-parallel-size"), ignored(Arity::Value));
        assert_eq!(lookup("enforce-eager"), ignored(Arity::Switch));
        assert_eq!(lookup("no-enable-chunked-prefill"), ignored(Arity::Switch));
        assert_eq!(lookup("compilation-config.level"), ignored(Arity::Value));
        assert_eq!(lookup("cudagraph-capture-sizes"), ignored(Arity::List));
        assert!(matches!(
            lookup("ssl-keyfile"),
            Some(Known::RefusedUnless { accepted: "", .. })
        ));
        assert_eq!(lookup("made-up"), None);
        assert_eq!(lookup_short("-tp"), ignored(Arity::Value));
        assert_eq!(lookup_short("-tp=2"), ignored(Arity::Switch));
        assert_eq!(lookup_short("-O3"), ignored(Arity::Switch));
        assert_eq!(lookup_short("-x"), None);
    }
}
