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

fn request(i: u64, num_tokens: u64) -> Value {
    json!({"prompt": format!("Story number {i}: once upon a time"), "max_tokens": num_tokens,
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
    survive(&[], 120);
}

#[test]
fn many_streams_survive_five_kills_beside_a_spare_that_reads_along() {
    let args = [
        "--spare-engines=1",
        "--spare-start-delay-ms=0",
        "--spare-shadow=full",
        "--spare-shadow-min-lag-tokens=16",
        "--spare-shadow-max-load-percent=100",
    ];
    // It takes over at once, so they run on while it is replaced.
    let server = survive(&args, 500);
    assert!(metric(&server, "vllm:prefix_cache_hits_total") > 0.0);
}

/// Kills the engine five times while many streams run.
fn survive(args: &[&str], num_tokens: u64) -> Server {
    let common = [
        "--engine-restart-backoff-max-ms=100",
        "--max-num-engine-failures=100",
        "--kv-cache-memory-bytes=64M",
    ];
    let slow = "slow-step-ms=5,engine=all";
    let args = [&common, args].concat();
    let options = ServerOptions::new("spark-mini", &args).env("HOTSPARE_FAULTS", slow);
    let server = Server::start(binary(), &options);
    let run = |i: u64| {
        server
            .client()
            .stream("/v1/completions", &request(i, num_tokens))
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
    let uncut: Vec<Vec<Value>> = std::thread::scope(|scope| {
        let streams: Vec<_> = (0..NUM_STREAMS)
            .map(|i| scope.spawn(move || run(i)))
            .collect();
        let answers = streams
            .into_iter()
            .map(|stream| stream.join().expect("a whole answer"));
        answers.collect()
    });
    for (i, (events, uncut)) in answers.iter().zip(&uncut).enumerate() {
        assert_eq!(ids(events).len() as u64, num_tokens, "stream {i}");
        assert_eq!(ids(events), ids(uncut), "stream {i}");
        assert_eq!(
            streamed_text(events, 0),
            streamed_text(uncut, 0),
            "stream {i}"
        );
        assert_eq!(events.len(), uncut.len(), "stream {i}");
    }
    wait_idle(&server);
    assert_eq!(metric(&server, "hotspare:journal_bytes"), 0.0);
    server
}

#[test]
fn a_request_that_kills_engines_is_refused_and_the_others_finish() {
    let args = [
        "--engine-restart-backoff-max-ms=100",
        "--max-num-engine-failures=100",
    ];
    let poison = "die-on-token-id=77,engine=all,slow-step-ms=5";
    let options = ServerOptions::new("spark-mini", &args).env("HOTSPARE_FAULTS", poison);
    let server = Server::start(binary(), &options);
    let body = |id: u64| {
        json!({"prompt": [5, 6, id], "max_tokens": 300, "temperature": 0, "ignore_eos": true,
            "priority": 0})
    };
    let post = |id: u64| server.client().post("/v1/completions", &body(id));
    let tokens = || metric(&server, "vllm:generation_tokens_total");
    std::thread::scope(|scope| {
        let innocent: Vec<_> = (100..107).map(|id| scope.spawn(move || post(id))).collect();
        wait_until("they run", PATIENCE, || tokens() >= 7.0);
        let refused = post(77);
        assert_eq!(refused.status, 422, "{}", refused.text());
        for answer in innocent {
            let answer = answer.join().expect("an answer");
            assert_eq!(answer.status, 200, "{}", answer.text());
            assert_eq!(answer.json()["usage"]["completion_tokens"], 300);
        }
    });
    let restarts = server.main_engine()["restarts"].clone();
    assert!(restarts.as_u64() >= Some(2), "{restarts}");
    let again = post(77);
    assert_eq!(again.status, 422, "{}", again.text());
    assert!(
        again.text().contains("refused for another"),
        "{}",
        again.text()
    );
    assert_eq!(
        server.main_engine()["restarts"],
        restarts,
        "it was not tried"
    );
    assert_eq!(post(78).status, 200);
}

/// Clients, and how many of them send poison.
fn poison_among(num_clients: u64, num_poisonous: u64) {
    let poison = "die-on-token-id=77,engine=all,slow-step-ms=2";
    // Every bound is the default: finding the poison is no crash loop.
    let args = ["--kv-cache-memory-bytes=64M", "--max-num-seqs=256"];
    let options = ServerOptions::new("spark-mini", &args).env("HOTSPARE_FAULTS", poison);
    let server = Server::start(binary(), &options);
    // Long enough to run while the others are found out.
    let post = |ids: [u64; 3]| {
        let body = json!({"prompt": ids, "max_tokens": 400, "temperature": 0, "ignore_eos": true});
        server.client().post("/v1/completions", &body)
    };
    // A request that comes while there is no engine is told to come again, and does.
    let post = |ids: [u64; 3]| loop {
        let reply = post(ids);
        if reply.status != 503 {
            return reply;
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    let tokens = || metric(&server, "vllm:generation_tokens_total");
    std::thread::scope(|scope| {
        let num_innocent = num_clients - num_poisonous;
        let innocent: Vec<_> = (0..num_innocent)
            .map(|i| scope.spawn(move || post([5, 100 + i % 50, 200 + i])))
            .collect();
        wait_until("they run", PATIENCE, || tokens() >= num_innocent as f64);
        let poisonous: Vec<_> = (0..num_poisonous)
            .map(|i| scope.spawn(move || post([6, 77, 100 + i])))
            .collect();
        for answer in poisonous {
            let answer = answer.join().expect("an answer");
            assert_eq!(answer.status, 422, "{}", answer.text());
        }
        for answer in innocent {
            let answer = answer.join().expect("an answer");
            assert_eq!(answer.status, 200, "{}", answer.text());
            assert_eq!(answer.json()["usage"]["completion_tokens"], 400);
        }
    });
    let log = server.log_lines().join("\n");
    assert!(!log.contains("times in a row"), "the node never gave up");
    assert_eq!(server.client().get("/ready").status, 200);
}

#[test]
fn several_poisonous_requests_among_many_harm_nobody_else() {
    poison_among(64, 4);
}

#[test]
fn poison_among_two_hundred_clients_harms_nobody_else() {
    poison_among(200, 2);
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
    let mut stream = server.client().stream("/v1/completions", &request(1, 120));
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
