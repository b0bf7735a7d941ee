//! The arguments of the commands for machines with a card.
//!
//! Invariant: what each has in common means the same in all.

use std::path::PathBuf;

use clap::Args;

/// Of all of them.
#[derive(Args, Clone, Debug)]
pub(crate) struct CommonArgs {
    /// cpu or cuda:N.
    #[arg(long, default_value = "cuda:0")]
    pub(crate) device: String,
    /// A file to which each result is added as one line of JSON, when it is known.
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
}

/// Arguments of `hotspare kernel-tests`.
#[derive(Args, Clone, Debug)]
#[cfg_attr(
    not(feature = "cuda"),
    allow(dead_code, reason = "a build without CUDA only says that it has none")
)]
pub(crate) struct KernelTestsArgs {
    #[command(flatten)]
    pub(crate) common: CommonArgs,
    /// Seeds to run each check with.
    #[arg(long, default_value_t = 9, value_name = "N")]
    pub(crate) seeds: u64,
    /// Run only the checks whose name contains this.
    #[arg(long, default_value = "", value_name = "TEXT")]
    pub(crate) only: String,
    /// Seconds after which no further seed is begun, and the run counts as failed.
    #[arg(long, default_value_t = 450, value_name = "SECONDS")]
    pub(crate) time_limit_s: u64,
}

/// Arguments of `hotspare model-tests`.
#[derive(Args, Clone, Debug)]
pub(crate) struct ModelTestsArgs {
    #[command(flatten)]
    pub(crate) common: CommonArgs,
    /// Folder with tiny/FAMILY: models and golden.json.
    #[arg(long, value_name = "DIR")]
    pub(crate) assets: PathBuf,
    /// Compare cases whose golden margin is at least this [default: 0.002 on the CPU, 0.01 on a
    /// card, whose cache has sixteen bits].
    #[arg(long, value_name = "LOGIT")]
    pub(crate) min_margin: Option<f64>,
    /// Run only the families and checks whose name contains this.
    #[arg(long, default_value = "", value_name = "TEXT")]
    pub(crate) only: String,
}

/// Arguments of `hotspare server-tests`.
#[derive(Args, Clone, Debug)]
pub(crate) struct ServerTestsArgs {
    #[command(flatten)]
    pub(crate) common: CommonArgs,
    /// As for `serve`.
    #[arg(long, default_value = "spark", value_name = "MODEL")]
    pub(crate) model: String,
    /// Clients at a time.
    #[arg(long, default_value_t = 64, value_name = "N")]
    pub(crate) clients: usize,
    /// Tokens of a stream.
    #[arg(long, default_value_t = 64, value_name = "N")]
    pub(crate) tokens: usize,
    /// Tokens of the stream whose engine is killed.
    #[arg(long, default_value_t = 600, value_name = "N")]
    pub(crate) long_tokens: usize,
}

/// Arguments of `hotspare bench`.
#[derive(Args, Clone, Debug)]
#[cfg_attr(
    not(feature = "cuda"),
    allow(dead_code, reason = "only a card times single launches")
)]
pub(crate) struct BenchArgs {
    #[command(flatten)]
    pub(crate) common: CommonArgs,
    /// Shapes, directories or embedded models; weights are random unless --load-format says
    /// otherwise.
    #[arg(long, value_name = "MODEL", num_args = 1.., value_delimiter = ',',
          default_value = "Llama-3.1-8B,Qwen3-0.6B")]
    pub(crate) models: Vec<String>,
    /// As for `serve`.
    #[arg(long, default_value = "dummy", value_name = "FORMAT")]
    pub(crate) load_format: String,
    /// As for `serve`.
    #[arg(long, default_value = "bfloat16", value_name = "TYPE")]
    pub(crate) dtype: String,
    /// As for `serve`.
    #[arg(long, default_value = "invariant", value_name = "MODE")]
    pub(crate) numerics: String,
    /// Streams that decode at a time, one measurement each.
    #[arg(long, value_name = "N", num_args = 1.., value_delimiter = ',',
          default_value = "1,16,64")]
    pub(crate) decode: Vec<usize>,
    /// Prompt of each of these streams, tokens.
    #[arg(long, default_value_t = 256, value_name = "TOKENS")]
    pub(crate) context: usize,
    /// Steps of a measurement of decoding.
    #[arg(long, default_value_t = 64, value_name = "N")]
    pub(crate) steps: usize,
    /// Prompt that is timed alone, tokens.
    #[arg(long, default_value_t = 4096, value_name = "TOKENS")]
    pub(crate) prefill: usize,
    /// Measurements of each kind; the best and the median are reported.
    #[arg(long, default_value_t = 3, value_name = "N")]
    pub(crate) repeats: usize,
    /// Leaves out the dense products of the 8B shape.
    #[arg(long)]
    pub(crate) skip_products: bool,
    /// On a card: steps of the first model that fits whose launches are timed one by one, for each
    /// number of streams and the prompt; 0 for none.
    #[arg(long, default_value_t = 5, value_name = "N")]
    pub(crate) profile_steps: usize,
    /// Seconds after which they are not begun.
    #[arg(long, default_value_t = 450, value_name = "SECONDS")]
    pub(crate) time_limit_s: u64,
    /// Seconds in which a model must be loaded.
    #[arg(long, default_value_t = 300, value_name = "SECONDS")]
    pub(crate) start_timeout_s: u64,
}
