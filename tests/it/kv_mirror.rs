//! KV blocks that outlive their engine, over real processes: what a takeover finds, and that
//! nothing of it stays.
//!
//! Invariant: the answer is that of a server whose engine nobody killed.

use hotspare_testkit::{Event, Server, ServerOptions, send_signal, wait_until};
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::{PATIENCE, binary, chat, metric, serve_mini, streamed_text, wait_idle, with};

const CHAT: &str = "/v1/chat/completions";
const NUM_TOKENS: u64 = 300;

fn body() -> Value {
    with(
        chat("Tell me a long story about a ship."),
        json!({"stream": true, "ignore_eos": true, "max_tokens": NUM_TOKENS, "temperature": 0.8,
               "seed": 5}),
    )
}

fn pid(server: &Server) -> u32 {
    let pid = server.main_engine()["pid"].as_u64();
    u32::try_from(pid.expect("an engine runs")).expect("pids are small")
}

/// Anonymous files of blocks that the front has open.
fn num_files(server: &Server) -> usize {
    let files = std::fs::read_dir(format!("/proc/{}/fd", server.pid()));
    let names = files
        .expect("it runs")
        .filter_map(|file| std::fs::read_link(file.ok()?.path()).ok());
    names
        .filter(|name| name.to_string_lossy().contains("memfd:hotspare-kv"))
        .count()
}

/// The text, while engines are killed at these numbers of events.
fn text(server: &Server, kill_at: &[usize]) -> String {
    let mut events = Vec::new();
    for (index, event) in server.client().stream(CHAT, &body()).enumerate() {
        if kill_at.contains(&index) {
            send_signal(pid(server), Signal::KILL);
        }
        if let Event::Json(event) = event {
            events.push(event);
        }
    }
    streamed_text(&events, 0)
}

#[test]
fn a_takeover_reads_little_again_and_nothing_stays() {
    let expected = text(&serve_mini(&[]), &[]);
    for spares in ["0", "1"] {
        let mut options = ServerOptions::new(
            "spark-mini",
            &[
                "--spare-engines",
                spares,
                "--kv-mirror-retention-ms",
                "1000",
                "--engine-restart-backoff-min-ms",
                "1",
                "--stream-flush-interval-ms",
                "0",
            ],
        );
        // So slow that an event is a token, and a kill is between two.
        let slow = (
            "HOTSPARE_FAULTS".to_owned(),
            "engine=all,slow-step-ms=4".to_owned(),
        );
        options.envs.push(slow);
        let server = Server::start(binary(), &options);
        let num_engines = 1 + usize::from(spares == "1");
        wait_until("every engine has a file", PATIENCE, || {
            num_files(&server) == num_engines
        });
        assert_eq!(text(&server, &[120, 240]), expected, "{spares} spares");
        wait_idle(&server);
        let num_looked_up = metric(&server, "vllm:prefix_cache_queries_total");
        let num_found = metric(&server, "vllm:prefix_cache_hits_total");
        // Two takeovers, of some 120 and 240 tokens and the prompt; each reads again less than a
        // block, and what was on its way.
        assert!(num_looked_up > 360.0, "{num_looked_up}");
        let num_prompt_tokens = (num_looked_up - 360.0) / 3.0;
        let num_read_again = num_looked_up - num_found;
        assert!(
            num_read_again < num_prompt_tokens + 96.0,
            "{spares} spares: {num_read_again} of {num_looked_up} read again"
        );
        wait_until("what was lost is let go of", PATIENCE, || {
            num_files(&server) == num_engines
        });
    }
}

#[test]
fn nothing_is_kept_where_nothing_is_to_be() {
    let server = serve_mini(&["--kv-mirror-memory-bytes", "0", "--spare-engines", "1"]);
    wait_until("the spare is there", PATIENCE, || {
        server.status()["engines"]
            .as_array()
            .is_some_and(|engines| {
                engines.len() == 2 && engines.iter().all(|engine| engine["state"] == "ready")
            })
    });
    assert_eq!(num_files(&server), 0);
}
