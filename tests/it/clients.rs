//! Many clients at once, half of which leave when they like.
//!
//! Invariant: who stays is served, and when all are gone every block is free and memory is flat.

use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::json;

use crate::support::{PATIENCE, chat, metric, serve, wait_idle, with};

const NUM_CLIENTS: usize = 200;
const NUM_ROUNDS: usize = 10;

/// Resident memory of a process, in KiB.
fn resident_kib(pid: u64) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmRSS:"))
        .unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
fn two_hundred_clients_half_of_which_leave() {
    // The default model with default memory, as a newcomer starts it.
    let server = serve("spark", &[]);
    let front = u64::from(server.pid());
    let engine = server.main_engine()["pid"].as_u64().unwrap();
    let mut resident = Vec::new();
    for round in 0..NUM_ROUNDS {
        let num_served = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for index in 0..NUM_CLIENTS {
                let (server, num_served) = (&server, &num_served);
                scope.spawn(move || {
                    let more = json!({"stream": true, "seed": index, "temperature": 1.0,
                        "ignore_eos": true, "max_tokens": 16 + index % 17});
                    let body = with(
                        chat(&format!("Tell me a story about number {index}.")),
                        more,
                    );
                    let mut stream = server.client().stream("/v1/chat/completions", &body);
                    if index % 2 == 0 {
                        // Leaves after some events: how many depends on the client alone.
                        let num_events = (index * 7 + round * 3) % 14;
                        assert!(stream.by_ref().take(num_events).count() <= num_events);
                        return;
                    }
                    let events = stream.collect_json();
                    let finish = &events.last().unwrap()["choices"][0]["finish_reason"];
                    assert_eq!(finish, "length", "client {index}");
                    num_served.fetch_add(1, Ordering::Relaxed);
                });
            }
        });
        assert_eq!(num_served.load(Ordering::Relaxed), NUM_CLIENTS / 2);
        wait_idle(&server);
        resident.push(resident_kib(front) + resident_kib(engine));
    }
    // The first rounds fill caches and pools; after them memory stays where it is.
    let (warm, last) = (resident[NUM_ROUNDS / 2], resident[NUM_ROUNDS - 1]);
    assert!(
        last <= warm + warm / 10 + 4096,
        "resident memory grew: {resident:?} KiB"
    );
    assert_eq!(metric(&server, "vllm:kv_cache_usage_perc"), 0.0);
    assert_eq!(
        server
            .client()
            .post("/v1/chat/completions", &chat("Hello"))
            .status,
        200
    );
}

#[test]
fn a_full_queue_refuses_at_once_and_says_when_to_return() {
    let options = hotspare_testkit::ServerOptions::new(
        "spark-mini",
        &["--max-num-seqs", "1", "--max-num-queued-reqs", "2"],
    )
    .env("HOTSPARE_FAULTS", "slow-step-ms=20");
    let server = hotspare_testkit::Server::start(crate::support::binary(), &options);
    let endless = with(
        chat("Hi"),
        json!({"stream": true, "ignore_eos": true, "max_tokens": null}),
    );
    let mut streams = Vec::new();
    for _ in 0..3 {
        streams.push(server.client().stream("/v1/chat/completions", &endless));
        if streams.len() == 1 {
            let first: Vec<_> = streams[0].by_ref().take(2).collect();
            assert_eq!(first.len(), 2, "the first one runs");
        }
    }
    let refused = server.client().post("/v1/chat/completions", &endless);
    assert_eq!(refused.status, 503, "{}", refused.text());
    assert!(
        refused.header("retry-after").is_some(),
        "{:?}",
        refused.headers
    );
    assert_eq!(refused.json()["error"]["code"], 503);
    drop(streams);
    wait_idle(&server);
    assert_eq!(
        server
            .client()
            .post("/v1/chat/completions", &chat("Hello"))
            .status,
        200
    );
}

#[test]
fn a_gateway_can_say_who_goes_first() {
    let options = hotspare_testkit::ServerOptions::new(
        "spark-mini",
        &["--max-num-seqs", "1", "--scheduling-policy", "priority"],
    )
    .env("HOTSPARE_FAULTS", "slow-step-ms=20");
    let server = hotspare_testkit::Server::start(crate::support::binary(), &options);
    let endless = json!({"stream": true, "ignore_eos": true, "max_tokens": null});
    let short = with(
        chat("Hi"),
        json!({"stream": true, "ignore_eos": true, "max_tokens": 8}),
    );
    let client = server.client();
    let mut first = client.stream("/v1/chat/completions", &with(chat("Hi"), endless));
    assert!(first.next().is_some(), "the first one runs");
    let (order, ended) = std::sync::mpsc::channel();
    std::thread::scope(|scope| {
        for (num_waiting, priority) in [(1.0, "5"), (2.0, "-5")] {
            let (order, client) = (order.clone(), server.client());
            let short = &short;
            scope.spawn(move || {
                let client = client.with_header("X-Vllm-Priority", priority);
                let num_events = client.stream("/v1/chat/completions", short).count();
                order.send((priority, num_events))
            });
            hotspare_testkit::wait_until("a request waits", PATIENCE, || {
                metric(&server, "vllm:num_requests_waiting") == num_waiting
            });
        }
        drop(first);
    });
    let order: Vec<_> = ended.try_iter().collect();
    assert!(matches!(order[..], [("-5", 9..), ("5", 9..)]), "{order:?}");
    let wrong = server.client().with_header("X-Vllm-Priority", "soon");
    let reply = wrong.post("/v1/chat/completions", &chat("Hi"));
    assert_eq!(reply.status, 400, "{}", reply.text());
}
