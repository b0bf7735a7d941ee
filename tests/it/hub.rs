//! Models from a hub on loopback: `pull`, `serve ORG/NAME`, and what goes wrong, with real
//! processes.
//!
//! Invariant: a process that is killed, cut off or out of space leaves nothing that loads, and what
//! the next one goes on from.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use hotspare_testkit::{HubFault, HubServer, Server, ServerOptions, shared_asset, wait_until};
use serde_json::json;
use tempfile::TempDir;

use crate::support::{PATIENCE, binary};

const REPO: &str = "org/stories260k";
const WEIGHTS: &str = "model.safetensors";
const TOKEN: &str = "hf_very_secret_token";

/// A hub, and an empty cache.
struct Rig {
    hub: HubServer,
    home: TempDir,
}

impl Rig {
    fn new() -> Self {
        Self {
            hub: HubServer::start(),
            home: tempfile::tempdir().unwrap(),
        }
    }

    /// A hub with a model of `num_bytes` of weights that are none.
    fn with_weights(num_bytes: usize) -> Self {
        let rig = Self::new();
        rig.hub.add_file(REPO, "config.json", b"{}");
        let weights: Vec<u8> = (0..num_bytes).map(|i| (i * 31 / 7) as u8).collect();
        rig.hub.add_file(REPO, WEIGHTS, &weights);
        rig
    }

    /// A hub with a real small model, and its directory.
    fn with_stories(suite: &str) -> Option<(Self, PathBuf)> {
        let path = shared_asset(suite, "stories260k")?;
        let rig = Self::new();
        for name in ["config.json", "tokenizer.json", WEIGHTS] {
            rig.hub
                .add_file(REPO, name, &std::fs::read(path.join(name)).unwrap());
        }
        Some((rig, path))
    }

    fn home(&self) -> &str {
        self.home.path().to_str().unwrap()
    }

    fn envs(&self) -> [(&'static str, String); 2] {
        [
            ("HF_ENDPOINT", self.hub.endpoint()),
            ("HF_HOME", self.home().to_owned()),
        ]
    }

    fn command(&self, program: &Path, args: &[&str]) -> Command {
        let mut command = Command::new(program);
        command.args(args).envs(self.envs()).stdin(Stdio::null());
        for name in [
            "HF_HUB_CACHE",
            "HF_TOKEN",
            "HF_HUB_OFFLINE",
            "HTTP_PROXY",
            "http_proxy",
        ] {
            command.env_remove(name);
        }
        command
    }

    fn pull(&self, args: &[&str]) -> Output {
        let args = [&["pull"], args].concat();
        self.command(binary(), &args).output().unwrap()
    }

    fn options(&self, args: &[&str]) -> ServerOptions {
        let options = ServerOptions::new(REPO, args);
        let envs = self.envs();
        envs.iter()
            .fold(options, |options, (name, value)| options.env(name, value))
    }

    fn blobs(&self) -> PathBuf {
        self.home.path().join("hub/models--org--stories260k/blobs")
    }

    /// Bytes of the download that is not whole.
    fn incomplete_bytes(&self) -> Option<u64> {
        let blobs = std::fs::read_dir(self.blobs()).ok()?;
        let mut blobs = blobs.map(|entry| entry.unwrap());
        let found = blobs.find(|entry| entry.path().extension().is_some_and(|e| e == "incomplete"));
        Some(found?.metadata().ok()?.len())
    }
}

fn stderr(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!text.contains("panicked"), "{text}");
    text
}

fn completion(server: &Server) -> String {
    let body = json!({"prompt": "Once upon a time", "temperature": 0, "max_tokens": 24});
    let answer = server.client().post("/v1/completions", &body).json();
    answer["choices"][0]["text"].as_str().unwrap().to_owned()
}

#[test]
fn a_model_of_the_hub_is_served_under_its_name() {
    let Some((rig, directory)) = Rig::with_stories("hub end to end") else {
        return;
    };
    let local = Server::start(
        binary(),
        &ServerOptions::new(directory.to_str().unwrap(), &[]),
    );
    let expected = completion(&local);
    assert!(expected.contains("there was"), "{expected}");
    let server = Server::start(binary(), &rig.options(&[]));
    assert_eq!(completion(&server), expected);
    let card = |server: &Server| server.client().get("/v1/models").json()["data"][0].clone();
    assert_eq!(card(&server)["id"], REPO);
    assert_eq!(card(&server)["root"], REPO);
    let hash = card(&local)["model_hash"].clone();
    assert!(hash.is_string());
    assert_eq!(
        card(&server)["model_hash"],
        hash,
        "the same wherever it lies"
    );
    let num_downloads = rig.hub.downloads().len();
    assert_eq!(num_downloads, 3);
    drop(server);
    // From the cache, and again without a hub.
    let again = Server::start(binary(), &rig.options(&["--served-model-name", "tales"]));
    assert_eq!(card(&again)["id"], "tales");
    assert_eq!(rig.hub.downloads().len(), num_downloads);
    drop(again);
    let num_requests = rig.hub.requests().len();
    let offline = Server::start(binary(), &rig.options(&[]).env("HF_HUB_OFFLINE", "1"));
    assert_eq!(completion(&offline), expected);
    assert_eq!(rig.hub.requests().len(), num_requests);
}

#[test]
fn the_token_reaches_the_hub_and_no_log() {
    let Some((rig, _)) = Rig::with_stories("hub token") else {
        return;
    };
    rig.hub.lock_repo(REPO, TOKEN, true);
    let refused = rig.pull(&[REPO]);
    assert_eq!(refused.status.code(), Some(1));
    let text = stderr(&refused);
    assert!(
        text.contains("gated") && text.contains("HF_TOKEN"),
        "{text}"
    );
    let mut pull = rig.command(binary(), &["pull", REPO, "--log-level", "trace"]);
    let pulled = pull.env("HF_TOKEN", TOKEN).output().unwrap();
    let text = stderr(&pulled);
    assert!(pulled.status.success(), "{text}");
    assert!(!text.contains(TOKEN), "{text}");
    assert!(text.contains("hub request"), "the log was on: {text}");
    let expected = format!("Bearer {TOKEN}");
    for request in rig.hub.requests() {
        if request.is_storage {
            assert_eq!(request.authorization, None, "{request:?}");
        }
    }
    let with_token = |r: &hotspare_testkit::HubRequest| r.authorization == Some(expected.clone());
    assert!(rig.hub.requests().iter().any(with_token));
    // The path is all that is on standard output.
    let path = String::from_utf8(pulled.stdout).unwrap();
    assert!(Path::new(path.trim_end()).join(WEIGHTS).exists(), "{path}");
    // As `huggingface-cli login` leaves it.
    std::fs::write(rig.home.path().join("token"), TOKEN).unwrap();
    std::fs::remove_dir_all(rig.home.path().join("hub")).unwrap();
    assert!(rig.pull(&[REPO]).status.success());
}

#[test]
fn what_cannot_be_fetched_ends_with_its_cause() {
    let rig = Rig::with_weights(100_000);
    rig.hub.add_file("org/quants", "m-Q8_0.gguf", b"GGUF");
    for (args, named) in [
        (&["org/absent"][..], "no model org/absent"),
        (&[REPO, "--revision", "v2"], "no revision `v2`"),
        (&["org/quants"], "org/quants:FILE. There are: m-Q8_0.gguf"),
        (&["org/quants:m-Q4_0.gguf"], "There are: m-Q8_0.gguf"),
        (&["nonsense"], "ORG/NAME"),
        (&[REPO, "--include", "*.txt"], "*.txt"),
    ] {
        let output = rig.pull(args);
        assert_eq!(output.status.code(), Some(1), "{args:?}");
        let text = stderr(&output).to_lowercase();
        assert!(text.contains(&named.to_lowercase()), "{args:?}: {text}");
        assert_eq!(output.stdout, b"");
    }
    let offline = rig
        .command(binary(), &["pull", REPO])
        .env("HF_HUB_OFFLINE", "1")
        .output();
    let text = stderr(&offline.unwrap());
    assert!(
        text.contains("HF_HUB_OFFLINE") && text.contains("hotspare pull"),
        "{text}"
    );
    let mut unreachable = rig.command(binary(), &["serve", REPO, "--port", "0"]);
    let unreachable = unreachable
        .env("HF_ENDPOINT", "http://127.0.0.1:1")
        .output()
        .unwrap();
    let text = stderr(&unreachable);
    assert!(text.contains("cannot be reached"), "{text}");
    // A bare machine, which trusts nobody.
    let mut bare = rig.command(binary(), &["pull", REPO]);
    for name in ["SSL_CERT_FILE", "SSL_CERT_DIR"] {
        bare.env(name, "/nonexistent");
    }
    let text = stderr(&bare.output().unwrap());
    assert!(
        text.contains("ca-certificates") && text.contains("No CA certificates"),
        "{text}"
    );
    rig.hub.add_fault(WEIGHTS, HubFault::Damage);
    let text = stderr(&rig.pull(&[REPO]));
    assert!(text.contains("SHA-256") && text.contains(WEIGHTS), "{text}");
    assert_eq!(rig.incomplete_bytes(), None);
}

#[test]
fn a_killed_download_is_continued_by_the_next_process() {
    let rig = Rig::with_weights(2_000_000);
    // Half arrives, then nothing: the process is killed while it waits.
    rig.hub.add_fault(WEIGHTS, HubFault::CutAfter(1_000_000));
    rig.hub
        .add_fault(WEIGHTS, HubFault::Stall(Duration::from_secs(60)));
    let mut child = rig
        .command(binary(), &["pull", REPO])
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    wait_until("half has arrived", PATIENCE, || {
        rig.incomplete_bytes().is_some_and(|n| n > 1_000_000)
    });
    child.kill().unwrap();
    child.wait().unwrap();
    let snapshots = rig.blobs().parent().unwrap().join("snapshots");
    let weights = snapshots.join(rig.hub.commit()).join(WEIGHTS);
    assert!(!weights.exists());
    assert!(rig.pull(&[REPO]).status.success());
    assert_eq!(std::fs::metadata(&weights).unwrap().len(), 2_000_000);
    let last = rig.hub.downloads().pop().unwrap();
    assert_eq!(last.range.as_deref(), Some("bytes=1000001-1999999"));
}

#[test]
fn a_full_disk_is_named_and_what_arrived_is_kept() {
    let rig = Rig::with_weights(2_000_000);
    // A bound of the kernel on the length of files: what a full disk is to `write`.
    let script = "trap '' XFSZ; ulimit -f 1000; exec \"$0\" \"$@\"";
    let program = binary().to_str().unwrap();
    let args = ["-c", script, program, "pull", REPO];
    let output = rig.command(Path::new("sh"), &args).output().unwrap();
    let text = stderr(&output);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(
        text.contains("no space for model.safetensors") && text.contains("HF_HOME"),
        "{text}"
    );
    let kept = rig.incomplete_bytes().unwrap();
    assert_eq!(kept, 512_000);
    assert!(rig.pull(&[REPO]).status.success());
    let last = rig.hub.downloads().pop().unwrap();
    assert_eq!(last.range, Some(format!("bytes={kept}-1999999")));
}

#[test]
fn a_disk_that_is_too_small_is_found_out_before_the_download() {
    let rig = Rig::with_weights(2_000_000);
    // A file system of one megabyte, seen by this process alone.
    let script = "mount -t tmpfs -o size=1m tmpfs \"$HF_HOME\" && exec \"$0\" \"$@\"";
    let program = binary().to_str().unwrap();
    let args = ["-rm", "sh", "-c", script, program, "pull", REPO];
    let probe = ["-rm", "mount", "-t", "tmpfs", "x", rig.home()];
    let Ok(probe) = Command::new("unshare").args(probe).output() else {
        eprintln!("SKIPPED hub on a small disk: there is no unshare");
        return;
    };
    if !probe.status.success() {
        eprintln!("SKIPPED hub on a small disk: file systems cannot be mounted here");
        return;
    }
    let output = rig.command(Path::new("unshare"), &args).output().unwrap();
    let text = stderr(&output);
    assert_eq!(output.status.code(), Some(1), "{text}");
    let expected = "2000002 bytes are needed, 1048576 bytes are free";
    assert!(
        text.contains("no space") && text.contains(expected),
        "{text}"
    );
    assert_eq!(rig.hub.downloads(), [], "nothing was fetched in vain");
}

#[test]
fn a_shape_of_the_hub_needs_no_weights() {
    let Some((rig, _)) = Rig::with_stories("hub dummy") else {
        return;
    };
    let server = Server::start(binary(), &rig.options(&["--load-format", "dummy"]));
    assert!(!completion(&server).is_empty());
    let downloads = rig.hub.downloads();
    assert!(
        downloads.iter().all(|r| !r.path.contains(WEIGHTS)),
        "{downloads:?}"
    );
}
