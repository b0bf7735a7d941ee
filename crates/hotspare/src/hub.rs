//! Models on the hub: when a name means one, and how its files become a local model.
//!
//! Invariant: a name that means something here, on this machine, never goes over the network.

use std::path::{Path, PathBuf};

use hotspare_hub::{Fetched, HubConfig, ModelRef, Wanted, fetch};
use hotspare_model::{LoadFormat, ModelSource};
use indicatif::MultiProgress;

use crate::cli::Settings;
use crate::hub_progress::View;

/// How patient downloads are; see [`HubConfig`] for each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HubOptions {
    /// In place of the environment's, which is in place of the default.
    pub(crate) hub_read_timeout_ms: Option<u64>,
    pub(crate) hub_connect_timeout_ms: u64,
    pub(crate) hub_max_num_retries: usize,
    pub(crate) hub_min_retry_progress_bytes: usize,
    pub(crate) hub_retry_backoff_min_ms: u64,
    pub(crate) hub_retry_backoff_max_ms: u64,
    pub(crate) hub_lock_timeout_ms: u64,
    pub(crate) hub_max_index_bytes: usize,
    pub(crate) hub_max_num_files: usize,
}

impl Default for HubOptions {
    fn default() -> Self {
        let config = HubConfig::from_env(&|name| (name == "HF_HOME").then(|| "/".to_owned()));
        let config = config.expect("a home is all that it needs");
        Self {
            hub_read_timeout_ms: None,
            hub_connect_timeout_ms: config.connect_timeout_ms,
            hub_max_num_retries: config.max_num_retries as usize,
            hub_min_retry_progress_bytes: config.min_retry_progress_bytes as usize,
            hub_retry_backoff_min_ms: config.retry_backoff_min_ms,
            hub_retry_backoff_max_ms: config.retry_backoff_max_ms,
            hub_lock_timeout_ms: config.lock_timeout_ms,
            hub_max_index_bytes: config.max_index_bytes as usize,
            hub_max_num_files: config.max_num_files,
        }
    }
}

impl HubOptions {
    fn apply(&self, config: &mut HubConfig) {
        if let Some(timeout) = self.hub_read_timeout_ms {
            config.read_timeout_ms = timeout;
        }
        config.connect_timeout_ms = self.hub_connect_timeout_ms;
        config.max_num_retries = u32::try_from(self.hub_max_num_retries).unwrap_or(u32::MAX);
        config.min_retry_progress_bytes = self.hub_min_retry_progress_bytes as u64;
        config.retry_backoff_min_ms = self.hub_retry_backoff_min_ms;
        config.retry_backoff_max_ms = self.hub_retry_backoff_max_ms;
        config.lock_timeout_ms = self.hub_lock_timeout_ms;
        config.max_index_bytes = self.hub_max_index_bytes as u64;
        config.max_num_files = self.hub_max_num_files;
    }
}

/// A model to fetch.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) config: HubConfig,
    pub(crate) wanted: Wanted,
}

impl Request {
    /// A request for `model`, as the environment says.
    pub(crate) fn new(
        model: ModelRef,
        revision: Option<String>,
        download_dir: Option<PathBuf>,
        options: &HubOptions,
    ) -> Result<Self, String> {
        let config = HubConfig::from_env(&|name| std::env::var(name).ok());
        let mut config = config.map_err(|e| e.to_string())?;
        if let Some(directory) = download_dir {
            config.cache_dir = directory;
        }
        options.apply(&mut config);
        Ok(Self {
            config,
            wanted: Wanted {
                model,
                revision,
                include: Vec::new(),
                has_weights: true,
            },
        })
    }

    /// Fetches it. Blocks, for as long as the download takes.
    pub(crate) fn run(&self, bars: Option<MultiProgress>) -> Result<Fetched, String> {
        let mut view = View::new(self.wanted.model.to_string(), bars);
        let result = fetch(&self.config, &self.wanted, &mut |event| view.show(event));
        view.end();
        let found = result.map_err(|e| e.to_string())?;
        let path = found.path.display();
        tracing::info!(commit = found.commit, %path, "{} is in the cache.", self.wanted.model);
        Ok(found)
    }
}

/// The model of the hub that `name` means, unless it means a local one or none at all.
pub(crate) fn model_ref(name: &str, format: LoadFormat) -> Option<ModelRef> {
    let is_local = ModelSource::resolve_as(name, format, 0).is_ok() || Path::new(name).exists();
    match is_local {
        true => None,
        false => name.parse().ok(),
    }
}

/// What `serve` has to fetch before it can start, if anything.
pub(crate) fn of_settings(settings: &Settings) -> Result<Option<Request>, String> {
    let format = settings.model.load_format;
    let Some(model) = model_ref(&settings.model.model, format) else {
        return Ok(None);
    };
    let (revision, directory) = (settings.revision.clone(), settings.download_dir.clone());
    let mut request = Request::new(model, revision, directory, &settings.hub)?;
    request.wanted.has_weights = format != LoadFormat::Dummy;
    Ok(Some(request))
}

/// Serves what was found, under the name that the user gave.
pub(crate) fn use_found(settings: &mut Settings, found: &Fetched) {
    let path = found.path.display().to_string();
    let name = std::mem::replace(&mut settings.model.model, path.clone());
    settings.model.root = Some(name);
    settings.engine.model = path;
}
