//! Engines that are killed from outside in the middle of many streams.
//!
//! Invariant: every stream ends with its own text, and nothing is lost or doubled.

use std::time::Duration;

use hotspare_testkit::{Server, ServerOptions, send_signal, wait_until};
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::{PATIENCE, USED_BLOCKS, binary, metric, streamed_text, wait_idle};

const NUM_STREAMS: u64 = 64;
const NUM_KILLS: u64 = 5;

fn request(i: u64) -> Value {
    json!({"prompt": format!("Story number {i}: once upon a time"), "max_tokens": 120,
        "temperature": if i.is_multiple_of(2) { 0.0 } else { 1.0 }, "seed": i, "ignore_eos": true,
        "stream": true, "return_token_ids": true})
}

fn ids(events: &[Value]) -> Vec<u64> {
    let choices = events
        .iter()
        .filter_map(|event| event["choices"][0]["token_ids"].as_array());
    choices.flatten().filter_map(Value::as_u64).collect()
}

#[test]
fn many_streams_survive_five_kills() {
    let args = [
        "--engine-restart-backoff-max-ms=100",
        "--max-num-engine-failures=100",
        "--kv-cache-memory-bytes=64M",
    ];
    let slow = "slow-step-ms=5,engine=all";
    let options = ServerOptions::new("spark-mini", &args).env("HOTSPARE_FAULTS", slow);
    let server = Server::start(binary(), &options);
    let run = |i: u64| {
        server
            .client()
            .stream("/v1/completions", &request(i))
            .collect_json()
    };
    let answers: Vec<Vec<Value>> = std::thread::scope(|scope| {
        let streams: Vec<_> = (0..NUM_STREAMS)
            .map(|i| scope.spawn(move || run(i)))
            .collect();
        for kill in 0..NUM_KILLS {
            let tokens = || metric(&server, "vllm:generation_tokens_total");
            let goal = tokens() + 200.0 + 97.0 * kill as f64;
            wait_until("tokens come", PATIENCE * 4, || tokens() >= goal);
            wait_until("an engine runs", PATIENCE, || {
                server.main_engine()["pid"].is_u64()
            });
            let pid = server.main_engine()["pid"]
                .as_u64()
                .expect("an engine runs");
            send_signal(u32::try_from(pid).unwrap(), Signal::KILL);
            wait_until("another one runs", PATIENCE, || {
                server.main_engine()["restarts"].as_u64() > Some(kill)
            });
        }
        let answers = streams
            .into_iter()
            .map(|stream| stream.join().expect("a whole answer"));
        answers.collect()
    });
    assert_eq!(server.main_engine()["restarts"], NUM_KILLS);
    for (i, events) in (0..).zip(&answers) {
        let uncut = run(i);
        assert_eq!(ids(events).len(), 120, "stream {i}");
        assert_eq!(ids(events), ids(&uncut), "stream {i}");
        assert_eq!(
            streamed_text(events, 0),
            streamed_text(&uncut, 0),
            "stream {i}"
        );
        assert_eq!(events.len(), uncut.len(), "stream {i}");
    }
    wait_idle(&server);
    assert_eq!(metric(&server, "hotspare:journal_bytes"), 0.0);
}

#[test]
fn a_client_that_leaves_in_the_gap_is_forgotten() {
    let args = [
        "--engine-restart-backoff-min-ms=1500",
        "--replay-keep-alive-interval-ms=50",
    ];
    let options =
        ServerOptions::new("spark-mini", &args).env("HOTSPARE_FAULTS", "die-after-token=5");
    let server = Server::start(binary(), &options);
    let mut stream = server.client().stream("/v1/completions", &request(1));
    let comment = stream.find(|event| matches!(event, hotspare_testkit::Event::Comment(_)));
    assert_eq!(
        comment,
        Some(hotspare_testkit::Event::Comment("resuming".to_owned()))
    );
    assert!(metric(&server, "hotspare:journal_bytes") > 0.0);
    drop(stream);
    wait_until("the client is forgotten", PATIENCE, || {
        metric(&server, "hotspare:journal_bytes") == 0.0
    });
    wait_until("the engine is back", Duration::from_secs(60), || {
        server.client().get("/ready").status == 200
    });
    assert_eq!(metric(&server, USED_BLOCKS), 0.0);
    assert_eq!(server.main_engine()["running"], 0);
}
