//! What goes wrong with a card, on the emulated one: no driver that can be used, no memory, errors
//! that end a context, captures that fail.
//!
//! Invariant: a stream ends with the text of an untroubled one, or the server says why it cannot.

use hotspare_testkit::Server;
use serde_json::json;

use crate::card::{CARD, assert_no_complaint_of, driver, options, serve, text};
use crate::support::{PATIENCE, binary, metric};

const PROMPT: &str = "Once upon a time";
const NUM_TOKENS: u64 = 24;
/// Of the emulated card number 0.
const UUID: &str = "GPU-e0e1e2e3-e4e5-e6e7-e8e9-eaebecedee00";

/// The text on a card that works.
fn untroubled(folder: &str) -> String {
    let server = serve(folder, CARD, &[]);
    let text = text(&server, PROMPT, NUM_TOKENS);
    assert_no_complaint_of(&server);
    text
}

fn has_line(server: &Server, parts: &[&str]) -> bool {
    let lines = server.log_lines();
    lines
        .iter()
        .any(|line| parts.iter().all(|part| line.contains(part)))
}

/// What the log of a server says that cannot start.
fn refusal(folder: &str, card: &str, args: &[&str]) -> String {
    let options = options(folder, card, args);
    let mut server = Server::start_unready(binary(), &options);
    let status = server.wait_exit(PATIENCE);
    let log = server.log_lines().join("\n");
    assert_eq!(status.code(), Some(1), "{log}");
    assert!(!log.contains("panicked"), "{log}");
    log
}

#[test]
fn what_cannot_be_used_is_said_and_auto_runs_on_the_cpu() {
    let Some(folder) = driver() else {
        return;
    };
    let cases: [(&str, &[&str]); 3] = [
        ("cuda=12080", &["too old", "CUDA 12.8", "driver 580"]),
        ("sm=75", &["compute capability 7.5", "8.0 or newer"]),
        ("cards=0", &["finds no GPU"]),
    ];
    for (fault, words) in cases {
        let card = format!("{CARD},{fault}");
        let log = refusal(folder, &card, &["--device=cuda:0"]);
        let all = ["--device cuda:0"].iter().chain(words);
        for word in all {
            assert!(log.contains(word), "{fault}: no {word} in {log}");
        }
        let server = serve(folder, &card, &["--device=auto"]);
        assert_eq!(server.main_engine()["device"], "cpu");
        assert!(
            has_line(&server, &["WARN", "no GPU can be used", words[0]]),
            "{fault}"
        );
        assert!(!text(&server, PROMPT, 4).is_empty());
        assert_no_complaint_of(&server);
    }
    let log = refusal(folder, CARD, &["--device=cuda:3"]);
    assert!(log.contains("there is no cuda:3"), "{log}");
}

#[test]
fn what_does_not_fit_at_the_start_is_said_with_what_helps() {
    let Some(folder) = driver() else {
        return;
    };
    // Too little for weights; for buffers; for a cache.
    for (card, words) in [
        ("memory_mb=1", ["a weight", "bytes", "fewer bits"]),
        (
            "memory_mb=9",
            ["needs", "are free", "--max-num-batched-tokens"],
        ),
    ] {
        let log = refusal(folder, card, &[]);
        for word in words {
            assert!(log.contains(word), "{card}: no {word} in {log}");
        }
    }
    let log = refusal(folder, CARD, &["--kv-cache-memory-bytes=64K"]);
    assert!(log.contains("--kv-cache-memory-bytes"), "{log}");
}

#[test]
fn an_error_that_ends_the_context_ends_the_engine_and_no_stream() {
    let Some(folder) = driver() else {
        return;
    };
    let expected = untroubled(folder);
    let marks = tempfile::tempdir().unwrap();
    for (code, name) in [
        (700, "ILLEGAL_ADDRESS"),
        (214, "ECC_UNCORRECTABLE"),
        (719, "LAUNCH_FAILED"),
    ] {
        let once = marks.path().join(name);
        let card = format!("{CARD},launch_error=400:{code},once={}", once.display());
        let server = serve(folder, &card, &[]);
        // The start's own step and some of this one's tokens come first.
        let seen = text(&server, PROMPT, NUM_TOKENS);
        assert!(once.exists(), "{name}: nothing went wrong");
        assert_eq!(seen, expected, "{name}");
        assert_eq!(server.main_engine()["restarts"], 1);
        let error = format!("CUDA_ERROR_{name}");
        let lost = ["ERROR", "context is lost", "kernel=", &error, UUID];
        assert!(has_line(&server, &lost), "{:?}", server.log_lines());
        let ended = ["The engine failed", &error, "exit status: 7"];
        assert!(has_line(&server, &ended), "{:?}", server.log_lines());
    }
}

#[test]
fn memory_that_runs_out_in_a_step_costs_the_graphs_and_no_stream() {
    let Some(folder) = driver() else {
        return;
    };
    let expected = untroubled(folder);
    let gave_back = ["ran out of memory in a step", "without graphs"];
    let cases: [(&str, &[&str]); 3] = [
        ("cuGraphLaunch@9:2", &[]),
        ("cuGraphLaunch@2:2", &[]),
        ("cuLaunchKernel@400:2", &["--async-scheduling=false"]),
    ];
    for (fault, args) in cases {
        let server = serve(folder, &format!("{CARD},fail={fault}"), args);
        assert_eq!(text(&server, PROMPT, NUM_TOKENS), expected, "{fault}");
        assert_eq!(server.main_engine()["restarts"], 0, "{fault}");
        assert!(
            has_line(&server, &gave_back),
            "{fault}: {:?}",
            server.log_lines()
        );
        // And it goes on so.
        assert_eq!(text(&server, PROMPT, NUM_TOKENS), expected, "{fault}");
        assert_no_complaint_of(&server);
    }
    // Where all of the step but its results is done, it cannot be tried again: it is refused.
    let server = serve(folder, &format!("{CARD},fail=cuMemcpyDtoHAsync@12:2"), &[]);
    let body = json!({"prompt": PROMPT, "max_tokens": NUM_TOKENS, "temperature": 0});
    let refused = server.client().post("/v1/completions", &body);
    assert_eq!(refused.status, 500, "{}", refused.text());
    assert!(
        refused.text().contains("ran out of memory in a step"),
        "{}",
        refused.text()
    );
    assert_eq!(text(&server, PROMPT, NUM_TOKENS), expected);
    assert_eq!(server.main_engine()["restarts"], 0);
}

#[test]
fn a_capture_that_fails_costs_its_graph_and_nothing_else() {
    let Some(folder) = driver() else {
        return;
    };
    let expected = untroubled(folder);
    for fault in [
        "cuStreamBeginCapture@17:1",
        "cuGraphInstantiate@18:2",
        "cuGraphUpload@19:1",
    ] {
        let server = serve(folder, &format!("{CARD},fail={fault}"), &[]);
        assert!(
            has_line(&server, &["WARN", "without a graph"]),
            "{:?}",
            server.log_lines()
        );
        assert!(
            has_line(&server, &["decode steps are captured"]),
            "{:?}",
            server.log_lines()
        );
        assert_eq!(text(&server, PROMPT, NUM_TOKENS), expected, "{fault}");
        assert_no_complaint_of(&server);
    }
}

#[test]
fn graphs_are_captured_where_what_they_take_cannot_be_measured() {
    let Some(folder) = driver() else {
        return;
    };
    let expected = untroubled(folder);
    let server = serve(
        folder,
        &format!("{CARD},fail=cuStreamBeginCapture@1:1"),
        &[],
    );
    assert!(has_line(
        &server,
        &["WARN", "could not be measured in full"]
    ));
    assert!(has_line(&server, &["decode steps are captured"]));
    assert_eq!(text(&server, PROMPT, NUM_TOKENS), expected);
    assert_no_complaint_of(&server);
}

#[test]
fn graphs_cost_the_cache_their_memory_and_no_more_than_they_may() {
    let Some(folder) = driver() else {
        return;
    };
    let num_blocks = |card: &str, args: &[&str]| {
        let mut options = options(folder, card, args);
        options
            .args
            .retain(|arg| !arg.starts_with("--kv-cache-memory-bytes"));
        let server = Server::start(binary(), &options);
        assert!(!text(&server, PROMPT, 4).is_empty());
        assert_no_complaint_of(&server);
        let lines = server.log_lines();
        let ready = lines.iter().find_map(|line| {
            let (_, rest) = line.split_once("The engine is ready.")?;
            let (_, number) = rest.split_once("num_blocks=")?;
            number.split_whitespace().next()?.parse::<u64>().ok()
        });
        ready.unwrap()
    };
    let free = num_blocks("memory_mb=200,graph_node_bytes=0", &[]);
    let dear = num_blocks("memory_mb=200,graph_node_bytes=40000", &[]);
    let none = num_blocks("memory_mb=200", &["--max-cuda-graph-memory-bytes=0"]);
    assert!(dear < free && free <= none, "{dear} {free} {none}");
}

#[test]
fn a_spare_on_the_same_card_takes_over() {
    let Some(folder) = driver() else {
        return;
    };
    let expected = untroubled(folder);
    let marks = tempfile::tempdir().unwrap();
    let once = marks.path().join("once");
    let card = format!("{CARD},launch_error=400:700,once={}", once.display());
    let args = ["--spare-engines=1", "--spare-start-delay-ms=0"];
    let server = serve(folder, &card, &args);
    hotspare_testkit::wait_until("the spare is ready", PATIENCE, || {
        let status = server.status();
        let engines = status["engines"].as_array().cloned().unwrap_or_default();
        engines
            .iter()
            .filter(|engine| engine["state"] == "ready")
            .count()
            == 2
    });
    // Enough steps that one of the two comes to the fault.
    for _ in 0..4 {
        assert_eq!(text(&server, PROMPT, NUM_TOKENS), expected);
    }
    assert!(once.exists(), "nothing went wrong");
    let body = json!({"prompt": PROMPT, "max_tokens": 2});
    assert_eq!(server.client().post("/v1/completions", &body).status, 200);
    assert!(metric(&server, "vllm:generation_tokens_total") >= 4.0 * NUM_TOKENS as f64);
}

#[test]
fn a_start_waits_for_the_memory_of_an_engine_that_just_ended() {
    let Some(folder) = driver() else {
        return;
    };
    // No cache of a given size: the share counts.
    let by_share = |card: &str, args: &[&str]| {
        let mut options = options(folder, card, args);
        options
            .args
            .retain(|arg| !arg.starts_with("--kv-cache-memory-bytes"));
        options
    };
    let server = Server::start(binary(), &by_share("memory_mb=256,others_mb=200:4", &[]));
    assert!(has_line(
        &server,
        &["waiting for what an ended process gives back"]
    ));
    assert!(!text(&server, PROMPT, 4).is_empty());
    // Who stays is named.
    let stays = by_share(
        "memory_mb=256,others_mb=200:1000000",
        &["--gpu-memory-wait-ms=200"],
    );
    let mut server = Server::start_unready(binary(), &stays);
    assert_eq!(server.wait_exit(PATIENCE).code(), Some(1));
    let words = [
        "free memory on",
        "56 of 256 MiB",
        "--gpu-memory-utilization 0.9",
    ];
    assert!(has_line(&server, &words), "{:?}", server.log_lines());
    // What is left to it is enough where less is asked for.
    let half = ["--gpu-memory-utilization=0.2", "--gpu-memory-wait-ms=0"];
    let server = Server::start(
        binary(),
        &by_share("memory_mb=256,others_mb=200:1000000", &half),
    );
    assert!(!text(&server, PROMPT, 4).is_empty());
}

#[test]
fn without_look_ahead_too_a_lost_context_is_told_by_the_status() {
    let Some(folder) = driver() else {
        return;
    };
    let marks = tempfile::tempdir().unwrap();
    let once = marks.path().join("once");
    let card = format!("{CARD},launch_error=400:700,once={}", once.display());
    let server = serve(folder, &card, &["--async-scheduling=false"]);
    assert!(!text(&server, PROMPT, NUM_TOKENS).is_empty());
    assert!(once.exists(), "nothing went wrong");
    assert!(
        has_line(&server, &["exit status: 7"]),
        "{:?}",
        server.log_lines()
    );
}

#[test]
fn auto_does_not_leave_a_card_that_is_only_full() {
    let Some(folder) = driver() else {
        return;
    };
    // A model that was to run on a card is no help at a hundredth of the speed.
    let card = format!("{CARD},fail=cuDevicePrimaryCtxRetain@1:2");
    let log = refusal(folder, &card, &["--device=auto"]);
    for word in ["no memory left for another process", "nvidia-smi"] {
        assert!(log.contains(word), "no {word} in {log}");
    }
    assert!(!log.contains("runs on the CPU"), "{log}");
}
