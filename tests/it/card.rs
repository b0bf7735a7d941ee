//! The real binary on a card that is none: kernels/emu/driver is a CUDA driver that runs them on
//! the emulator, so that all that talks to a driver is run, and what a card does wrong can be had.
//!
//! The driver runs work late, in an order that a seed chooses, and refuses what a driver refuses; a
//! wrong use of it stands in the log.
//!
//! Invariant: no test leaves a wrong use in a log.

use std::path::Path;
use std::process::{Command, Output};
use std::sync::OnceLock;

use hotspare_testkit::{Server, ServerOptions, shared_asset};
use serde_json::{Value, json};

use crate::support::{binary, streamed_text};

/// What the driver writes before each complaint.
const COMPLAINT: &str = "emulated CUDA:";
/// A card on which the embedded model has room to spare.
pub(crate) const CARD: &str = "memory_mb=1024";
/// Little memory is quickly filled with poison.
const SMALL: [&str; 5] = [
    "--device=cuda:0",
    "--kv-cache-memory-bytes=4M",
    "--max-model-len=256",
    "--max-num-seqs=8",
    "--engine-restart-backoff-max-ms=100",
];

/// The folder of the driver's library; `None`, and said, where it cannot be compiled.
#[allow(clippy::print_stderr, reason = "a suite that is skipped says so")]
pub(crate) fn driver() -> Option<&'static str> {
    static FOLDER: OnceLock<Option<String>> = OnceLock::new();
    let build = || {
        let compiler = std::env::var("CXX").unwrap_or_else(|_| "g++".to_owned());
        if Command::new(compiler).arg("--version").output().is_err() {
            eprintln!("SKIPPED the emulated card: no C++ compiler");
            assert!(std::env::var_os("CI").is_none(), "CI leaves nothing out");
            return None;
        }
        let script =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("../../kernels/emu/driver/build.sh");
        let output = Command::new(script).output().expect("bash is there");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.success(),
            "kernels/emu/driver/build.sh: {errors}"
        );
        Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    FOLDER.get_or_init(build).as_deref()
}

/// Options of a server on the card that `card` describes.
pub(crate) fn options(folder: &str, card: &str, args: &[&str]) -> ServerOptions {
    ServerOptions::new("spark-mini", &[&SMALL, args].concat())
        .env("LD_LIBRARY_PATH", folder)
        // No memory is asked for in a step.
        .env("EMULATED_CUDA", &format!("{card},allocates_once=1"))
}

/// A ready server on that card.
pub(crate) fn serve(folder: &str, card: &str, args: &[&str]) -> Server {
    Server::start(binary(), &options(folder, card, args))
}

/// What a stream of `num_tokens` tokens says.
pub(crate) fn text(server: &Server, prompt: &str, num_tokens: u64) -> String {
    let body = json!({"prompt": prompt, "max_tokens": num_tokens, "temperature": 0,
        "ignore_eos": true, "stream": true});
    let events = server
        .client()
        .stream("/v1/completions", &body)
        .collect_json();
    let finish = events
        .iter()
        .rev()
        .find_map(|event| event["choices"][0]["finish_reason"].as_str());
    assert_eq!(finish, Some("length"), "{events:?}");
    streamed_text(&events, 0)
}

/// That nothing in `lines` is the driver's complaint.
pub(crate) fn assert_no_complaint<'a>(lines: impl IntoIterator<Item = &'a str>) {
    let complaint = lines.into_iter().find(|line| line.contains(COMPLAINT));
    assert_eq!(complaint, None);
}

pub(crate) fn assert_no_complaint_of(server: &Server) {
    let lines = server.log_lines();
    assert_no_complaint(lines.iter().map(String::as_str));
}

pub(crate) fn run(folder: &str, card: &str, args: &[&str]) -> String {
    let mut command = Command::new(binary());
    command
        .env("LD_LIBRARY_PATH", folder)
        .env("EMULATED_CUDA", card);
    let Output {
        status,
        stdout,
        stderr,
    } = command.args(args).output().unwrap();
    let text = [stdout, stderr]
        .map(|text| String::from_utf8_lossy(&text).into_owned())
        .concat();
    assert!(status.success(), "{status}: {text}");
    assert_no_complaint(text.lines());
    text
}

#[test]
fn every_kernel_passes_through_the_driver() {
    let Some(folder) = driver() else {
        return;
    };
    let text = run(folder, CARD, &["kernel-tests", "--seeds", "3"]);
    assert!(text.contains("17 passed, 0 failed"), "{text}");
}

#[test]
fn models_pass_their_checks_whenever_the_card_comes_to_its_work() {
    let (Some(folder), Some(path)) = (driver(), shared_asset("the emulated card", "tiny")) else {
        return;
    };
    let assets = path.parent().unwrap().to_str().unwrap();
    // Every family and file in every type, and look-ahead once more at other moments.
    for (seed, only, num_passed) in [(2, "", 72), (3, "look-ahead", 3)] {
        let card = format!("{CARD},seed={seed}");
        let args = ["model-tests", "--assets", assets, "--only", only];
        let text = run(folder, &card, &args);
        let expected = format!("{num_passed} passed, 0 failed");
        assert!(text.contains(&expected), "{only}: {text}");
    }
}

#[test]
fn a_server_passes_its_tests_on_the_card() {
    let Some(folder) = driver() else {
        return;
    };
    let args = [
        "server-tests",
        "--model",
        "spark-mini",
        "--clients",
        "5",
        "--tokens",
        "8",
    ];
    let text = run(
        folder,
        "memory_mb=256",
        &[&args[..], &["--long-tokens", "60"]].concat(),
    );
    assert!(text.contains("7 passed, 0 failed"), "{text}");
}

#[test]
fn a_benchmark_on_the_card_writes_each_result() {
    let Some(folder) = driver() else {
        return;
    };
    let out = tempfile::tempdir().unwrap();
    let file = out.path().join("bench.jsonl");
    let file = file.to_str().unwrap();
    let args = [
        "bench",
        "--models",
        "spark-mini",
        "--load-format",
        "auto",
        "--json",
        file,
    ];
    let sizes = [
        "--decode=1,3",
        "--context=8",
        "--steps=4",
        "--prefill=40",
        "--repeats=1",
        "--skip-products",
    ];
    run(folder, "memory_mb=256", &[&args[..], &sizes].concat());
    let text = std::fs::read_to_string(file).unwrap();
    let lines = text.lines().map(|line| serde_json::from_str(line).unwrap());
    let lines: Vec<Value> = lines.collect();
    assert_eq!(lines[0]["machine"]["device"], "cuda:0", "{text}");
    let kinds: Vec<&str> = lines
        .iter()
        .filter_map(|line| line["kind"].as_str())
        .collect();
    assert!(
        kinds.starts_with(&["start", "decode", "decode", "prefill"]),
        "{text}"
    );
    // Each kind of kernel of each step.
    let profiled = |name: &str| {
        let of_kind = lines.iter().filter(|line| line["kind"] == "profile");
        of_kind
            .filter(|line| line.to_string().contains(name))
            .count()
    };
    for name in ["attention", "linear down", "sample"] {
        assert!(profiled(name) >= 3, "{name}: {text}");
    }
    assert_eq!(lines.last().unwrap()["failed"], 0, "{text}");
}

#[test]
fn a_text_does_not_depend_on_when_the_card_comes_to_its_work() {
    let Some(folder) = driver() else {
        return;
    };
    let one = |seed: u64, args: &[&str]| {
        let server = serve(folder, &format!("{CARD},seed={seed}"), args);
        let texts: Vec<String> = std::thread::scope(|scope| {
            let streams = [10, 14, 18].map(|n| {
                let server = &server;
                scope.spawn(move || text(server, &format!("Once there were {n}"), n))
            });
            streams
                .into_iter()
                .map(|stream| stream.join().unwrap())
                .collect()
        });
        assert_no_complaint_of(&server);
        texts
    };
    let texts = one(1, &[]);
    assert_eq!(one(7, &[]), texts);
    // Single launches, each step waited for.
    assert_eq!(one(8, &["--async-scheduling=false"]), texts);
}

#[test]
fn a_card_is_chosen_by_its_number() {
    let Some(folder) = driver() else {
        return;
    };
    let two = format!("{CARD},cards=2");
    let server = serve(folder, &two, &["--device=cuda:1"]);
    assert_eq!(server.main_engine()["device"], "cuda:1");
    assert!(!text(&server, "Once", 4).is_empty());
    drop(server);
    let auto = serve(folder, &two, &["--device=auto"]);
    assert_eq!(auto.main_engine()["device"], "cuda:0");
    assert_no_complaint_of(&auto);
}
