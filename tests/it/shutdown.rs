//! Ending: a first signal drains, a second one ends at once.
//!
//! Invariant: a stream that runs when the first signal comes is finished.

use std::time::{Duration, Instant};

use hotspare_testkit::{Server, ServerOptions, is_running, send_signal, wait_until};
use rustix::process::Signal;
use serde_json::json;

use crate::support::{PATIENCE, binary, chat, serve_mini, with};

const CHAT: &str = "/v1/chat/completions";

fn slow_server() -> Server {
    let options = ServerOptions::new("spark-mini", &[]).env("HOTSPARE_FAULTS", "slow-step-ms=10");
    Server::start(binary(), &options)
}

#[test]
fn sigterm_drains_and_exits_zero() {
    let mut server = slow_server();
    let body = with(
        chat("Hi"),
        json!({"stream": true, "ignore_eos": true, "max_tokens": 100}),
    );
    let mut stream = server.client().stream(CHAT, &body);
    assert!(stream.next().is_some() && stream.next().is_some());
    let engine = server.main_engine()["pid"].as_u64().unwrap();
    // Twice, as `timeout` does: to the process and to its group.
    server.signal(Signal::TERM);
    server.signal(Signal::TERM);
    let events = stream.collect_json();
    assert_eq!(
        events.last().unwrap()["choices"][0]["finish_reason"],
        "length"
    );
    assert_eq!(server.wait_exit(PATIENCE).code(), Some(0));
    assert!(!is_running(u32::try_from(engine).unwrap()));
}

#[test]
fn signals_to_every_process_at_once_cut_no_stream() {
    for signal in [Signal::TERM, Signal::INT] {
        let options = ServerOptions::new("spark-mini", &["--spare-engines=1"])
            .env("HOTSPARE_FAULTS", "slow-step-ms=10,engine=all");
        let mut server = Server::start(binary(), &options);
        wait_until("a spare is ready", PATIENCE, || {
            let engines = server.status()["engines"].as_array().cloned();
            let engines = engines.unwrap_or_default();
            engines.len() == 2 && engines.iter().all(|engine| engine["state"] == "ready")
        });
        let body = with(
            chat("Hi"),
            json!({"stream": true, "ignore_eos": true, "max_tokens": 100}),
        );
        let mut stream = server.client().stream(CHAT, &body);
        assert!(stream.next().is_some() && stream.next().is_some());
        let engines = server.status()["engines"].as_array().cloned().unwrap();
        let pids = engines.iter().map(|engine| engine["pid"].as_u64().unwrap());
        let pids: Vec<u32> = pids.map(|pid| u32::try_from(pid).unwrap()).collect();
        // As a service manager does: the engines first, which is worse.
        for &pid in &pids {
            send_signal(pid, signal);
        }
        server.signal(signal);
        let events = stream.collect_json();
        assert_eq!(
            events.last().unwrap()["choices"][0]["finish_reason"],
            "length"
        );
        assert!(events.iter().all(|event| event["error"].is_null()));
        assert_eq!(server.wait_exit(PATIENCE).code(), Some(0));
        assert!(!pids.iter().any(|&pid| is_running(pid)));
    }
}

#[test]
fn an_engine_goes_on_over_signals_that_are_not_for_it() {
    let server = slow_server();
    let pid = server.main_engine()["pid"].as_u64().unwrap();
    let body = with(
        chat("Hi"),
        json!({"stream": true, "ignore_eos": true, "max_tokens": 100}),
    );
    let mut stream = server.client().stream(CHAT, &body);
    assert!(stream.next().is_some() && stream.next().is_some());
    for signal in [Signal::TERM, Signal::INT, Signal::HUP] {
        send_signal(u32::try_from(pid).unwrap(), signal);
    }
    let events = stream.collect_json();
    assert_eq!(
        events.last().unwrap()["choices"][0]["finish_reason"],
        "length"
    );
    let main = server.main_engine();
    assert_eq!((&main["pid"], &main["restarts"]), (&json!(pid), &json!(0)));
}

#[test]
fn an_idle_server_ends_promptly_on_sigint() {
    let mut server = serve_mini(&[]);
    server.signal(Signal::INT);
    assert_eq!(server.wait_exit(Duration::from_secs(10)).code(), Some(0));
}

#[test]
fn a_second_signal_ends_at_once() {
    let mut server = slow_server();
    let body = with(
        chat("Hi"),
        json!({"stream": true, "ignore_eos": true, "max_tokens": null}),
    );
    let mut stream = server.client().stream(CHAT, &body);
    assert!(stream.next().is_some() && stream.next().is_some());
    server.signal(Signal::TERM);
    let client = server.client();
    wait_until("the server drains", PATIENCE, || {
        client.get("/ha/status").json()["role"] == "draining"
    });
    // What comes right after the first one is its echo, so this goes on until one is heard. The
    // stream would run for 20 seconds.
    let is_told = Instant::now();
    let status = loop {
        if let Some(status) = server.try_exit() {
            break status;
        }
        assert!(
            is_told.elapsed() < Duration::from_secs(15),
            "it does not end"
        );
        server.signal(Signal::TERM);
        std::thread::sleep(Duration::from_millis(50));
    };
    assert_eq!(status.code(), Some(128 + 15));
}

#[test]
fn a_draining_server_takes_nothing_new_and_says_so() {
    let mut server = slow_server();
    let client = server.client();
    // This connection stays open from before the signal.
    assert_eq!(
        client
            .post(CHAT, &with(chat("Hi"), json!({"max_tokens": 1})))
            .status,
        200
    );
    let body = with(
        chat("Hi"),
        json!({"stream": true, "ignore_eos": true, "max_tokens": null}),
    );
    let mut stream = server.client().stream(CHAT, &body);
    assert!(stream.next().is_some() && stream.next().is_some());
    server.signal(Signal::TERM);
    wait_until("the server drains", PATIENCE, || {
        client.get("/ha/status").json()["role"] == "draining"
    });
    let refused = client.post(CHAT, &chat("Hi"));
    assert_eq!(refused.status, 503, "{}", refused.text());
    assert!(refused.header("retry-after").is_some());
    assert_eq!(client.get("/live").status, 200);
    for path in ["/ready", "/health"] {
        let reply = client.get(path);
        assert_eq!(reply.status, 503, "{path}");
        assert!(reply.text().contains("draining"), "{}", reply.text());
    }
    // Its only answer ends with its client, and so does the server.
    drop(stream);
    assert_eq!(server.wait_exit(PATIENCE).code(), Some(0));
}
