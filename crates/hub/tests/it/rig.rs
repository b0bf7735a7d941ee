//! A hub with one small model, an empty cache, and what may be asked of both.
//!
//! Invariant: each rig has ports and directories of its own.

use std::path::{Path, PathBuf};

use hotspare_hub::{Fetched, HubConfig, HubError, Wanted, fetch};
use hotspare_testkit::HubServer;
use tempfile::TempDir;

pub(crate) const REPO: &str = "org/model";
pub(crate) const WEIGHTS: &str = "model.safetensors";

/// A hub with one small model, and an empty cache.
pub(crate) struct Rig {
    pub(crate) hub: HubServer,
    pub(crate) directory: TempDir,
    pub(crate) config: HubConfig,
    pub(crate) weights: Vec<u8>,
}

impl Rig {
    pub(crate) fn new() -> Self {
        let hub = HubServer::start();
        let weights: Vec<u8> = (0..3_000_000u32).map(|i| (i * 7 / 3) as u8).collect();
        for (name, bytes) in [
            ("config.json", &b"{\"a\": 1}"[..]),
            ("tokenizer.json", b"{}"),
            ("README.md", b"not needed"),
            ("pytorch_model.bin", b"not needed"),
            (WEIGHTS, &weights),
        ] {
            hub.add_file(REPO, name, bytes);
        }
        let directory = tempfile::tempdir().unwrap();
        let config = config(&hub, directory.path());
        Self {
            hub,
            directory,
            config,
            weights,
        }
    }

    pub(crate) fn fetch(&self) -> Result<Fetched, HubError> {
        fetch(&self.config, &wanted(REPO), &mut |_| {})
    }

    pub(crate) fn error(&self) -> String {
        self.fetch().unwrap_err().to_string()
    }

    pub(crate) fn repo_cache(&self) -> PathBuf {
        self.directory.path().join("hub/models--org--model")
    }

    /// Bytes of the download that is not whole.
    pub(crate) fn incomplete_bytes(&self) -> Option<u64> {
        let blobs = std::fs::read_dir(self.repo_cache().join("blobs")).ok()?;
        let mut blobs = blobs.map(|entry| entry.unwrap());
        let found = blobs.find(|entry| entry.path().extension().is_some_and(|e| e == "incomplete"));
        found.map(|entry| entry.metadata().unwrap().len())
    }

    /// No snapshot has weights: nothing would load.
    pub(crate) fn check_nothing_loads(&self) {
        let snapshot = self.repo_cache().join("snapshots").join(self.hub.commit());
        assert!(!snapshot.join(WEIGHTS).exists());
        assert!(!self.repo_cache().join("refs/main").exists());
        let mut offline = self.config.clone();
        offline.is_offline = true;
        assert!(fetch(&offline, &wanted(REPO), &mut |_| {}).is_err());
    }

    pub(crate) fn check_whole(&self, fetched: &Fetched) {
        assert_eq!(fetched.commit, self.hub.commit());
        assert!(std::fs::read(fetched.path.join(WEIGHTS)).unwrap() == self.weights);
        assert_eq!(self.incomplete_bytes(), None);
    }

    pub(crate) fn weight_ranges(&self) -> Vec<Option<String>> {
        let downloads = self.hub.downloads().into_iter();
        let weights = downloads.filter(|request| request.path.ends_with(WEIGHTS));
        weights.map(|request| request.range).collect()
    }
}

pub(crate) fn config(hub: &HubServer, directory: &Path) -> HubConfig {
    let home = directory.to_str().unwrap().to_owned();
    let mut config = HubConfig::from_env(&|name| match name {
        "HF_HOME" => Some(home.clone()),
        "HF_ENDPOINT" => Some(hub.endpoint()),
        _ => None,
    })
    .unwrap();
    config.retry_backoff_min_ms = 1;
    config.retry_backoff_max_ms = 10;
    // No machine is so slow that these end a test.
    config.connect_timeout_ms = 600_000;
    config.read_timeout_ms = 600_000;
    config
}

pub(crate) fn wanted(model: &str) -> Wanted {
    Wanted {
        model: model.parse().unwrap(),
        revision: None,
        include: Vec::new(),
        has_weights: true,
    }
}
