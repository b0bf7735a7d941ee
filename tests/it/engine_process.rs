//! The engine as a process: it dies and is replaced, it ends with its front, and it says why it
//! cannot start.
//!
//! Invariant: no engine outlives its front by a second.

use std::process::Command;
use std::time::Duration;

use hotspare_testkit::{Event, Server, ServerOptions, is_running, send_signal, wait_until};
use rustix::process::Signal;
use serde_json::json;

use crate::support::{PATIENCE, binary, chat, serve_mini, streamed_text, wait_idle, with};

const CHAT: &str = "/v1/chat/completions";

fn engine_pid(server: &Server) -> u32 {
    u32::try_from(
        server.main_engine()["pid"]
            .as_u64()
            .expect("an engine runs"),
    )
    .unwrap()
}

#[test]
fn a_killed_engine_is_replaced() {
    let server = serve_mini(&[]);
    let old_pid = engine_pid(&server);
    let body = with(
        chat("Tell me a story."),
        json!({"stream": true, "ignore_eos": true, "max_tokens": 1900}),
    );
    let mut stream = server.client().stream(CHAT, &body);
    assert!(stream.next().is_some() && stream.next().is_some());
    send_signal(old_pid, Signal::KILL);
    let events = stream.collect_json();
    let last = events.last().expect("it goes on");
    assert_eq!(last["choices"][0]["finish_reason"], "length");
    wait_until("a new engine is ready", PATIENCE, || {
        server.client().get("/ready").status == 200
    });
    assert_ne!(engine_pid(&server), old_pid);
    assert!(!is_running(old_pid));
    assert_eq!(server.client().post(CHAT, &chat("Hello")).status, 200);
    wait_idle(&server);
}

#[test]
fn an_engine_ends_with_its_front() {
    let server = serve_mini(&[]);
    let engine = engine_pid(&server);
    server.signal(Signal::KILL);
    // One second is the promise; a loaded test machine gets some grace.
    wait_until("the engine ended", Duration::from_secs(10), || {
        !is_running(engine)
    });
}

#[test]
fn streams_go_on_when_the_engine_dies_and_returns() {
    let body = with(
        chat("Hi"),
        json!({"stream": true, "ignore_eos": true, "max_tokens": 50}),
    );
    let uncut = serve_mini(&[]).client().stream(CHAT, &body).collect_json();
    let uncut = streamed_text(&uncut, 0);
    for fault in [
        "die-before-token=5",
        "die-after-token=5",
        "die-in-frame-of-token=5",
    ] {
        let options = ServerOptions::new("spark-mini", &[]).env("HOTSPARE_FAULTS", fault);
        let server = Server::start(binary(), &options);
        let events = server.client().stream(CHAT, &body).collect_json();
        assert_eq!(streamed_text(&events, 0), uncut, "{fault}");
        assert_eq!(server.main_engine()["restarts"], 1, "{fault}");
        wait_until("the engine is back", PATIENCE, || {
            server.client().get("/ready").status == 200
        });
    }
}

#[test]
fn without_another_engine_a_stream_ends_with_an_error() {
    let args = [
        "--replay-timeout-ms=100",
        "--engine-restart-backoff-min-ms=5000",
    ];
    let fault = "die-after-token=5";
    let options = ServerOptions::new("spark-mini", &args).env("HOTSPARE_FAULTS", fault);
    let server = Server::start(binary(), &options);
    let body = with(
        chat("Hi"),
        json!({"stream": true, "ignore_eos": true, "max_tokens": 50}),
    );
    let events: Vec<Event> = server.client().stream(CHAT, &body).collect();
    let last_json = events.iter().rev().find_map(|e| match e {
        Event::Json(value) => Some(value.clone()),
        _ => None,
    });
    assert_eq!(last_json.unwrap()["error"]["code"], 500);
    assert_eq!(events.last(), Some(&Event::Done));
}

#[test]
fn an_engine_that_cannot_start_ends_the_server_with_a_message() {
    let folder = std::env::temp_dir().join(format!("hotspare-it-empty-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    for model in ["/nonexistent/model", folder.to_str().unwrap()] {
        let output = Command::new(binary())
            .args(["serve", model, "--port", "0"])
            .output()
            .expect("the binary runs");
        assert!(!output.status.success(), "{model}");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(
            stderr.contains(model),
            "the message names the model: {stderr}"
        );
        assert!(!stderr.contains("panicked"), "{stderr}");
    }
    std::fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn too_little_kv_memory_is_explained() {
    let output = Command::new(binary())
        .args([
            "serve",
            "spark-mini",
            "--port",
            "0",
            "--kv-cache-memory-bytes",
            "1000",
        ])
        .output()
        .expect("the binary runs");
    assert!(!output.status.success());
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(
        stderr.contains("kv-cache-memory-bytes"),
        "the message names the flag: {stderr}"
    );
}
