//! The arguments of the commands beside `serve`.
//!
//! Invariant: an option that `serve` has too means the same here.

use std::path::PathBuf;

use clap::Args;

use super::values::{LogFormat, Secret};

/// Below the options in `pull --help`.
pub(crate) const PULL_AFTER_HELP: &str = "\
Prints the path that was fetched. A download that was cut goes on where it ended; every file is
checked against the hub's hash.

Environment: HF_HOME or HF_HUB_CACHE (where it is kept), HF_ENDPOINT (which hub), HF_TOKEN (for
private and gated models), HF_HUB_OFFLINE (only look into the cache), HF_HUB_DOWNLOAD_TIMEOUT
(seconds of silence after which a connection counts as cut), HTTPS_PROXY; and HOTSPARE_HUB_… for
the bounds that `serve --help` lists as hub limits.";

/// Arguments of `hotspare pull`.
#[derive(Args, Clone, Debug)]
pub(crate) struct PullArgs {
    /// ORG/NAME, or ORG/NAME:FILE for one of several .gguf files.
    #[arg(value_name = "MODEL")]
    pub(crate) model: String,
    /// Branch, tag or commit [default: main].
    #[arg(long, env = "HOTSPARE_REVISION", value_name = "REVISION")]
    pub(crate) revision: Option<String>,
    /// Fetch the files that match (`*` and `?`), in place of those that a server needs.
    #[arg(long, value_name = "GLOB")]
    pub(crate) include: Vec<String>,
    /// Where models are kept [default: as HF_HUB_CACHE and HF_HOME say].
    #[arg(long, env = "HOTSPARE_DOWNLOAD_DIR", value_name = "DIR")]
    pub(crate) download_dir: Option<PathBuf>,
    /// As for `serve`.
    #[arg(long, env = "HOTSPARE_LOG_LEVEL", default_value = "info")]
    pub(crate) log_level: String,
    /// As for `serve`.
    #[arg(long, env = "HOTSPARE_LOG_FORMAT", default_value = "human")]
    pub(crate) log_format: LogFormat,
}

/// Arguments of `hotspare inspect`.
#[derive(Args, Clone, Debug)]
pub(crate) struct InspectArgs {
    /// A directory, a .gguf file, a model of the hub that was fetched before, an embedded model, a
    /// known shape such as Llama-3.1-8B, or a config.json.
    #[arg(value_name = "MODEL")]
    pub(crate) model: String,
    /// One JSON object, sizes in bytes.
    #[arg(long)]
    pub(crate) json: bool,
    /// Do not compute the content hash, which reads all weights once.
    #[arg(long)]
    pub(crate) no_hash: bool,
    /// Branch, tag or commit of a model of the hub [default: main].
    #[arg(long, env = "HOTSPARE_REVISION", value_name = "REVISION")]
    pub(crate) revision: Option<String>,
    /// Where models of the hub are kept [default: as HF_HUB_CACHE and HF_HOME say].
    #[arg(long, env = "HOTSPARE_DOWNLOAD_DIR", value_name = "DIR")]
    pub(crate) download_dir: Option<PathBuf>,
    /// Where hashes of weight files are kept, as for `serve`.
    #[arg(long, env = "HOTSPARE_CACHE_DIR", value_name = "DIR")]
    pub(crate) cache_dir: Option<PathBuf>,
}

/// Which running server a command is for.
#[derive(Args, Clone, Debug)]
pub(crate) struct ServerArgs {
    /// The server to ask.
    #[arg(
        long,
        global = true,
        env = "HOTSPARE_URL",
        default_value = "http://127.0.0.1:8000",
        value_name = "URL"
    )]
    pub(crate) url: String,
    /// Its admin key; none is needed on its own machine unless it was started with one.
    #[arg(
        long,
        global = true,
        env = "HOTSPARE_ADMIN_KEY",
        value_name = "KEY",
        hide_env_values = true
    )]
    pub(crate) admin_key: Option<Secret>,
}

/// Arguments of `hotspare reload`.
#[derive(Args, Clone, Debug)]
pub(crate) struct ReloadArgs {
    /// What to serve, as for `serve` and with its options [default: what the server began with].
    #[arg(value_name = "MODEL")]
    pub(crate) model: Option<String>,
    #[command(flatten)]
    pub(crate) server: ServerArgs,
    /// Seconds to wait until the new model serves.
    #[arg(long, default_value_t = 600, value_name = "SECONDS")]
    pub(crate) timeout: u64,
}
