//! Downloads from a hub on loopback, with everything that can go wrong on the way.
//!
//! Invariant: after each failure the cache holds no file that would load, and the next try goes on
//! from what is there.
#![allow(missing_docs, reason = "a test binary has no public surface")]
#![allow(clippy::unwrap_used, reason = "a failed step ends its test")]

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use hotspare_hub::{Fetched, HubConfig, HubError, HubProgress, Token, Wanted, fetch};
use hotspare_testkit::{HubFault, HubServer};
use tempfile::TempDir;

const REPO: &str = "org/model";
const WEIGHTS: &str = "model.safetensors";

/// A hub with one small model, and an empty cache.
struct Rig {
    hub: HubServer,
    directory: TempDir,
    config: HubConfig,
    weights: Vec<u8>,
}

impl Rig {
    fn new() -> Self {
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

    fn fetch(&self) -> Result<Fetched, HubError> {
        fetch(&self.config, &wanted(REPO), &mut |_| {})
    }

    fn error(&self) -> String {
        self.fetch().unwrap_err().to_string()
    }

    fn repo_cache(&self) -> PathBuf {
        self.directory.path().join("hub/models--org--model")
    }

    /// Bytes of the download that is not whole.
    fn incomplete_bytes(&self) -> Option<u64> {
        let blobs = std::fs::read_dir(self.repo_cache().join("blobs")).ok()?;
        let mut blobs = blobs.map(|entry| entry.unwrap());
        let found = blobs.find(|entry| entry.path().extension().is_some_and(|e| e == "incomplete"));
        found.map(|entry| entry.metadata().unwrap().len())
    }

    /// No snapshot has weights: nothing would load.
    fn check_nothing_loads(&self) {
        let snapshot = self.repo_cache().join("snapshots").join(self.hub.commit());
        assert!(!snapshot.join(WEIGHTS).exists());
        assert!(!self.repo_cache().join("refs/main").exists());
        let mut offline = self.config.clone();
        offline.is_offline = true;
        assert!(fetch(&offline, &wanted(REPO), &mut |_| {}).is_err());
    }

    fn check_whole(&self, fetched: &Fetched) {
        assert_eq!(fetched.commit, self.hub.commit());
        assert!(std::fs::read(fetched.path.join(WEIGHTS)).unwrap() == self.weights);
        assert_eq!(self.incomplete_bytes(), None);
    }

    fn weight_ranges(&self) -> Vec<Option<String>> {
        let downloads = self.hub.downloads().into_iter();
        let weights = downloads.filter(|request| request.path.ends_with(WEIGHTS));
        weights.map(|request| request.range).collect()
    }
}

fn config(hub: &HubServer, directory: &Path) -> HubConfig {
    let home = directory.to_str().unwrap().to_owned();
    let mut config = HubConfig::from_env(&|name| match name {
        "HF_HOME" => Some(home.clone()),
        "HF_ENDPOINT" => Some(hub.endpoint()),
        _ => None,
    })
    .unwrap();
    config.retry_backoff_min_ms = 1;
    config.retry_backoff_max_ms = 10;
    config.read_timeout_ms = 5_000;
    config
}

fn wanted(model: &str) -> Wanted {
    Wanted {
        model: model.parse().unwrap(),
        revision: None,
        include: Vec::new(),
        has_weights: true,
    }
}

#[test]
fn a_model_is_fetched_once_in_the_shared_layout() {
    let rig = Rig::new();
    let mut start = None;
    let mut num_bytes = 0;
    let fetched = fetch(&rig.config, &wanted(REPO), &mut |event| match event {
        HubProgress::Start {
            num_files,
            num_bytes,
        } => start = Some((num_files, num_bytes)),
        HubProgress::Bytes { num_new, .. } => num_bytes += num_new,
        other => panic!("{other:?}"),
    })
    .unwrap();
    rig.check_whole(&fetched);
    assert_eq!(start, Some((3, 3_000_010)));
    assert_eq!(num_bytes, 3_000_010);
    let root = rig.repo_cache();
    let expected = root.join("snapshots").join(rig.hub.commit());
    assert_eq!(fetched.path, expected);
    let mut names: Vec<_> = std::fs::read_dir(&expected)
        .unwrap()
        .map(|e| e.unwrap().file_name())
        .collect();
    names.sort();
    assert_eq!(
        names,
        ["config.json", WEIGHTS, "tokenizer.json"],
        "only what is needed"
    );
    let target = std::fs::read_link(expected.join(WEIGHTS)).unwrap();
    let blob = target
        .strip_prefix("../../blobs")
        .unwrap()
        .to_str()
        .unwrap();
    assert_eq!(blob.len(), 64, "named by its SHA-256");
    assert_eq!(
        std::fs::read_to_string(root.join("refs/main")).unwrap(),
        rig.hub.commit()
    );
    // Again: one question, no file.
    let num_before = rig.hub.requests().len();
    assert_eq!(rig.fetch().unwrap(), fetched);
    assert_eq!(rig.hub.requests().len(), num_before + 1);
    // A commit: no question at all.
    let mut pinned = wanted(REPO);
    pinned.revision = Some(rig.hub.commit().to_owned());
    assert_eq!(fetch(&rig.config, &pinned, &mut |_| {}).unwrap(), fetched);
    // Offline, and with the hub gone.
    let mut offline = rig.config.clone();
    offline.is_offline = true;
    assert_eq!(
        fetch(&offline, &wanted(REPO), &mut |_| {}).unwrap(),
        fetched
    );
    assert_eq!(rig.hub.requests().len(), num_before + 1);
    let mut gone = rig.config.clone();
    gone.endpoint = "http://127.0.0.1:1".to_owned();
    let mut reason = String::new();
    let found = fetch(&gone, &wanted(REPO), &mut |event| {
        if let HubProgress::FromCache { reason: why } = event {
            reason = why.to_owned();
        }
    });
    assert_eq!(found.unwrap(), fetched);
    assert!(reason.contains("cannot be reached"), "{reason}");
}

#[test]
fn a_cut_download_goes_on_where_it_ended() {
    let rig = Rig::new();
    rig.hub.add_fault(WEIGHTS, HubFault::CutAfter(1_000_000));
    rig.hub.add_fault(WEIGHTS, HubFault::CutAfter(500_000));
    rig.hub.add_fault(WEIGHTS, HubFault::Status(503));
    let mut retries = Vec::new();
    let fetched = fetch(&rig.config, &wanted(REPO), &mut |event| {
        if let HubProgress::Retry { num_bytes, .. } = event {
            retries.push(num_bytes);
        }
    });
    rig.check_whole(&fetched.unwrap());
    assert_eq!(retries, [1_000_000, 1_500_000, 1_500_000]);
    let range = |first: u32| Some(format!("bytes={first}-"));
    let expected = [None, range(1_000_000), range(1_500_000), range(1_500_000)];
    assert_eq!(rig.weight_ranges(), expected);
}

#[test]
fn a_download_that_is_always_cut_ends_and_is_continued_by_the_next() {
    let mut rig = Rig::new();
    rig.config.max_num_retries = 2;
    for _ in 0..3 {
        rig.hub.add_fault(WEIGHTS, HubFault::CutAfter(1000));
    }
    let error = rig.error();
    assert!(
        error.contains("cut 3 times") && error.contains("3000 bytes"),
        "{error}"
    );
    rig.check_nothing_loads();
    assert_eq!(rig.incomplete_bytes(), Some(3000));
    rig.check_whole(&rig.fetch().unwrap());
    assert_eq!(
        rig.weight_ranges().last().unwrap().as_deref(),
        Some("bytes=3000-")
    );
}

#[test]
fn progress_renews_patience() {
    let mut rig = Rig::new();
    rig.config.max_num_retries = 1;
    rig.config.min_retry_progress_bytes = 100_000;
    for _ in 0..6 {
        rig.hub.add_fault(WEIGHTS, HubFault::CutAfter(400_000));
    }
    rig.check_whole(&rig.fetch().unwrap());
}

#[test]
fn a_connection_that_says_nothing_is_given_up() {
    let mut rig = Rig::new();
    rig.config.read_timeout_ms = 200;
    rig.hub
        .add_fault(WEIGHTS, HubFault::Stall(Duration::from_secs(20)));
    let start = Instant::now();
    rig.check_whole(&rig.fetch().unwrap());
    assert!(start.elapsed() < Duration::from_secs(15));
    assert_eq!(rig.weight_ranges().len(), 2);
}

#[test]
fn storage_without_ranges_is_read_from_the_beginning() {
    let rig = Rig::new();
    rig.hub.add_fault(WEIGHTS, HubFault::CutAfter(1_000_000));
    rig.hub.add_fault(WEIGHTS, HubFault::IgnoreRange);
    rig.check_whole(&rig.fetch().unwrap());
}

#[test]
fn a_wrong_hash_is_thrown_away() {
    let rig = Rig::new();
    rig.hub.add_fault(WEIGHTS, HubFault::Damage);
    let error = rig.error();
    assert!(
        error.contains("SHA-256") && error.contains(WEIGHTS),
        "{error}"
    );
    rig.check_nothing_loads();
    assert_eq!(rig.incomplete_bytes(), None, "nothing of it stays");
    let small = Rig::new();
    small.hub.add_fault("config.json", HubFault::Damage);
    let error = small.error();
    assert!(
        error.contains("git hash") && error.contains("config.json"),
        "{error}"
    );
    small.check_nothing_loads();
}

#[test]
fn a_stale_beginning_is_found_out() {
    let rig = Rig::new();
    rig.check_whole(&rig.fetch().unwrap());
    let snapshot = rig.repo_cache().join("snapshots").join(rig.hub.commit());
    let blob = snapshot.join(WEIGHTS).canonicalize().unwrap();
    std::fs::remove_file(&blob).unwrap();
    let incomplete = blob.with_extension("incomplete");
    std::fs::write(&incomplete, vec![9; 1_000_000]).unwrap();
    rig.check_whole(&rig.fetch().unwrap());
    let ranges = rig.weight_ranges();
    let expected = [Some("bytes=1000000-".to_owned()), None];
    assert_eq!(
        ranges[ranges.len() - 2..],
        expected,
        "continued, found wrong, read anew"
    );
    // A blob that lost its end is no blob.
    std::fs::write(&blob, &rig.weights[..5]).unwrap();
    rig.check_whole(&rig.fetch().unwrap());
    // Longer than the file can be.
    std::fs::remove_file(&blob).unwrap();
    std::fs::write(&incomplete, vec![9; 4_000_000]).unwrap();
    rig.check_whole(&rig.fetch().unwrap());
}

#[test]
fn locked_repositories_need_a_token_which_stays_with_the_hub() {
    let mut rig = Rig::new();
    rig.hub.lock_repo(REPO, "hf_right", true);
    let error = rig.error();
    assert!(
        error.contains("gated") && error.contains("set HF_TOKEN"),
        "{error}"
    );
    rig.config.token = Token::new("hf_wrong");
    let error = rig.error();
    assert!(
        error.contains("gated") && !error.contains("hf_wrong"),
        "{error}"
    );
    rig.config.token = Token::new("hf_right");
    rig.check_whole(&rig.fetch().unwrap());
    let requests = rig.hub.requests();
    assert!(requests.iter().any(|request| request.is_storage));
    for request in requests.iter().filter(|request| request.is_storage) {
        assert_eq!(request.authorization, None, "{request:?}");
    }
    let private = Rig::new();
    private.hub.lock_repo(REPO, "hf_right", false);
    let error = private.error();
    assert!(
        error.contains("401") && error.contains("set HF_TOKEN"),
        "{error}"
    );
    private.check_nothing_loads();
}

#[test]
fn what_is_not_there_is_named() {
    let rig = Rig::new();
    let error = |model: &str, revision: Option<&str>| {
        let mut wanted = wanted(model);
        wanted.revision = revision.map(str::to_owned);
        fetch(&rig.config, &wanted, &mut |_| {})
            .unwrap_err()
            .to_string()
    };
    assert!(error("org/other", None).contains("no model org/other"));
    let text = error(REPO, Some("v9"));
    assert!(text.contains("revision `v9`"), "{text}");
    let text = error("org/model:x.gguf", None);
    assert!(
        text.contains("x.gguf") && text.contains("config.json"),
        "{text}"
    );
    assert!(error(REPO, Some("../../x")).contains("revision"));
}

#[test]
fn a_named_gguf_file_is_fetched_alone() {
    let rig = Rig::new();
    rig.hub
        .add_file("org/quants", "a-Q4_K_M.gguf", b"GGUF four");
    rig.hub.add_file("org/quants", "a-Q8_0.gguf", b"GGUF eight");
    let error = fetch(&rig.config, &wanted("org/quants"), &mut |_| {}).unwrap_err();
    let text = error.to_string();
    assert!(text.contains("a-Q4_K_M.gguf, a-Q8_0.gguf"), "{text}");
    for name in ["org/quants:a-Q8_0.gguf", "org/quants:a-Q8_0"] {
        let fetched = fetch(&rig.config, &wanted(name), &mut |_| {}).unwrap();
        assert_eq!(std::fs::read(&fetched.path).unwrap(), b"GGUF eight");
        assert!(fetched.path.ends_with("a-Q8_0.gguf"));
        let mut offline = rig.config.clone();
        offline.is_offline = true;
        assert_eq!(
            fetch(&offline, &wanted(name), &mut |_| {}).unwrap(),
            fetched
        );
    }
    let mut offline = rig.config.clone();
    offline.is_offline = true;
    let missing = fetch(&offline, &wanted("org/quants:a-Q4_K_M.gguf"), &mut |_| {});
    let text = missing.unwrap_err().to_string();
    assert!(
        text.contains("hotspare pull org/quants:a-Q4_K_M.gguf"),
        "{text}"
    );
}

#[test]
fn shards_are_those_of_the_index() {
    let rig = Rig::new();
    let index = br#"{"weight_map": {"x": "m-1.safetensors", "y": "m-2.safetensors"}}"#;
    for (name, bytes) in [
        ("config.json", &b"{}"[..]),
        ("model.safetensors.index.json", index),
        ("m-1.safetensors", b"one"),
        ("consolidated.safetensors", b"a copy"),
    ] {
        rig.hub.add_file("org/shards", name, bytes);
    }
    let error = fetch(&rig.config, &wanted("org/shards"), &mut |_| {}).unwrap_err();
    assert!(error.to_string().contains("m-2.safetensors"), "{error}");
    rig.hub.add_file("org/shards", "m-2.safetensors", b"two");
    let fetched = fetch(&rig.config, &wanted("org/shards"), &mut |_| {}).unwrap();
    assert_eq!(
        std::fs::read(fetched.path.join("m-2.safetensors")).unwrap(),
        b"two"
    );
    assert!(!fetched.path.join("consolidated.safetensors").exists());
    let mut offline = rig.config.clone();
    offline.is_offline = true;
    fetch(&offline, &wanted("org/shards"), &mut |_| {}).unwrap();
    std::fs::remove_file(fetched.path.join("m-1.safetensors")).unwrap();
    let error = fetch(&offline, &wanted("org/shards"), &mut |_| {}).unwrap_err();
    assert!(error.to_string().contains("m-1.safetensors"), "{error}");
}

#[test]
fn patterns_and_random_weights_choose_other_files() {
    let rig = Rig::new();
    let mut by_pattern = wanted(REPO);
    by_pattern.include = vec!["*.md".to_owned()];
    let fetched = fetch(&rig.config, &by_pattern, &mut |_| {}).unwrap();
    assert!(fetched.path.join("README.md").exists());
    assert!(!fetched.path.join("config.json").exists());
    let mut without = wanted(REPO);
    without.has_weights = false;
    let fetched = fetch(&rig.config, &without, &mut |_| {}).unwrap();
    assert!(fetched.path.join("config.json").exists());
    assert!(!fetched.path.join(WEIGHTS).exists());
    rig.check_whole(&rig.fetch().unwrap());
}

#[test]
fn a_busy_hub_is_asked_again_within_bounds() {
    let mut rig = Rig::new();
    rig.hub.fail_api(503);
    rig.hub.fail_api(429);
    rig.check_whole(&rig.fetch().unwrap());
    rig.config.max_num_retries = 1;
    rig.config.cache_dir = rig.directory.path().join("another");
    rig.hub.fail_api(503);
    rig.hub.fail_api(503);
    let error = rig.error();
    assert!(error.contains("503"), "{error}");
    rig.config.endpoint = "http://127.0.0.1:1".to_owned();
    let error = rig.error();
    assert!(
        error.contains("cannot be reached") && error.contains("HF_ENDPOINT"),
        "{error}"
    );
    let mut offline = rig.config.clone();
    offline.is_offline = true;
    let error = fetch(&offline, &wanted(REPO), &mut |_| {})
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("HF_HUB_OFFLINE") && error.contains("hotspare pull"),
        "{error}"
    );
}

#[test]
fn two_that_fetch_at_once_download_once() {
    let rig = Rig::new();
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| rig.check_whole(&rig.fetch().unwrap()));
        }
    });
    assert_eq!(
        rig.weight_ranges(),
        [None],
        "the others waited for the first"
    );
}

#[test]
fn a_lock_is_waited_for_within_bounds() {
    let mut rig = Rig::new();
    rig.config.lock_timeout_ms = 300;
    rig.check_whole(&rig.fetch().unwrap());
    let root = rig.repo_cache();
    let snapshot = root.join("snapshots").join(rig.hub.commit());
    let blob = snapshot.join(WEIGHTS).canonicalize().unwrap();
    std::fs::remove_file(&blob).unwrap();
    let etag = blob.file_name().unwrap().to_str().unwrap();
    let lock = rig
        .directory
        .path()
        .join(format!("hub/.locks/models--org--model/{etag}.lock"));
    let held = std::fs::File::open(&lock).unwrap();
    held.lock().unwrap();
    let mut waited = false;
    let result = fetch(&rig.config, &wanted(REPO), &mut |event| {
        waited |= matches!(event, HubProgress::Waiting { .. });
    });
    let error = result.unwrap_err().to_string();
    assert!(waited && error.contains("another process"), "{error}");
    held.unlock().unwrap();
    rig.check_whole(&rig.fetch().unwrap());
}

#[test]
fn what_is_no_hub_is_said_to_be_none() {
    // The storage's port knows no API.
    let rig = Rig::new();
    let mut config = rig.config.clone();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    config.endpoint = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        use std::io::{Read, Write};
        for mut stream in listener.incoming().flatten() {
            let _ = stream.read(&mut [0; 4096]);
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\n<html>");
        }
    });
    let error = fetch(&config, &wanted(REPO), &mut |_| {})
        .unwrap_err()
        .to_string();
    assert!(error.contains("does not answer as a hub"), "{error}");
}
