//! Streams: the chunks, their order, their end, and what a client that leaves causes.
//!
//! Invariant: a stream's text is the text of the whole answer.

use hotspare_testkit::wait_until;
use serde_json::json;

use crate::support::{PATIENCE, chat, serve_mini, streamed_text, wait_idle, with};

const CHAT: &str = "/v1/chat/completions";

#[test]
fn a_chat_stream_is_the_answer_in_pieces() {
    let server = serve_mini(&[]);
    let whole = server.client().post(CHAT, &chat("Tell me a story.")).json();
    let body = with(chat("Tell me a story."), json!({"stream": true}));
    let events = server.client().stream(CHAT, &body).collect_json();
    let text = whole["choices"][0]["message"]["content"].as_str().unwrap();
    assert_eq!(streamed_text(&events, 0), text);
    let first = &events[0]["choices"][0];
    assert_eq!(first["delta"], json!({"role": "assistant", "content": ""}));
    assert!(first["finish_reason"].is_null());
    let last = events.last().unwrap();
    assert_eq!(
        last["choices"][0]["finish_reason"],
        whole["choices"][0]["finish_reason"]
    );
    for event in &events {
        assert_eq!(event["object"], "chat.completion.chunk");
        assert_eq!(event["id"], events[0]["id"]);
        assert_eq!(event["created"], events[0]["created"]);
        assert!(event.get("usage").is_none(), "no usage unless asked for");
    }
}

#[test]
fn usage_comes_last_when_asked_for() {
    let server = serve_mini(&[]);
    let more = json!({"stream": true, "stream_options": {"include_usage": true}});
    let events = server
        .client()
        .stream(CHAT, &with(chat("Hello"), more))
        .collect_json();
    let last = events.last().unwrap();
    assert_eq!(last["choices"], json!([]));
    let whole = server.client().post(CHAT, &chat("Hello")).json();
    for field in ["prompt_tokens", "completion_tokens", "total_tokens"] {
        assert_eq!(last["usage"][field], whole["usage"][field], "{field}");
    }
    let more = json!({"stream": true,
        "stream_options": {"include_usage": true, "continuous_usage_stats": true}});
    let events = server
        .client()
        .stream(CHAT, &with(chat("Hello"), more))
        .collect_json();
    assert!(
        events
            .iter()
            .all(|event| event["usage"]["total_tokens"].is_u64())
    );
}

#[test]
fn a_completion_stream_carries_several_choices() {
    let server = serve_mini(&[]);
    let body = json!({"prompt": ["A dog", "A cat"], "n": 2, "seed": 3, "temperature": 1.0,
        "max_tokens": 20, "ignore_eos": true});
    let whole = server.client().post("/v1/completions", &body).json();
    let events = server
        .client()
        .stream("/v1/completions", &with(body, json!({"stream": true})))
        .collect_json();
    for index in 0..4 {
        let choice = &whole["choices"][usize::try_from(index).unwrap()];
        assert_eq!(
            streamed_text(&events, index),
            choice["text"].as_str().unwrap()
        );
        let finishes = events
            .iter()
            .flat_map(|event| event["choices"].as_array().unwrap().clone())
            .filter(|choice| choice["index"] == index && choice["finish_reason"].is_string())
            .count();
        assert_eq!(finishes, 1, "choice {index} ends once");
    }
}

#[test]
fn multi_byte_characters_are_never_torn() {
    let server = serve_mini(&[]);
    let crab: Vec<u64> = {
        let reply = server
            .client()
            .post("/tokenize", &json!({"prompt": "🦀é"}))
            .json();
        reply["tokens"]
            .as_array()
            .unwrap()
            .iter()
            .map(|t| t.as_u64().unwrap())
            .collect()
    };
    // Byte tokens in random order make broken and whole characters alike.
    let body = json!({"prompt": "x", "allowed_token_ids": crab, "temperature": 1.0, "seed": 11,
        "max_tokens": 200, "ignore_eos": true});
    let whole = server.client().post("/v1/completions", &body).json();
    let text = whole["choices"][0]["text"].as_str().unwrap();
    let events = server
        .client()
        .stream("/v1/completions", &with(body, json!({"stream": true})))
        .collect_json();
    assert_eq!(streamed_text(&events, 0), text);
}

#[test]
fn a_client_that_leaves_frees_its_sequence() {
    // Slow enough that each would run for twenty seconds.
    let options = hotspare_testkit::ServerOptions::new("spark-mini", &[])
        .env("HOTSPARE_FAULTS", "slow-step-ms=10");
    let server = hotspare_testkit::Server::start(crate::support::binary(), &options);
    let more = json!({"stream": true, "ignore_eos": true, "max_tokens": null});
    for _ in 0..3 {
        let mut stream = server
            .client()
            .stream(CHAT, &with(chat("Tell me a story."), more.clone()));
        assert!(stream.next().is_some() && stream.next().is_some());
        drop(stream);
    }
    wait_idle(&server);
    let generated = crate::support::metric(&server, "vllm:generation_tokens_total");
    assert!(
        generated < 3.0 * 1900.0,
        "the sequences ended early: {generated} tokens"
    );
}

#[test]
fn a_waiting_client_that_leaves_is_forgotten() {
    // A slow engine that runs one sequence at a time: the second request waits.
    let faults = "slow-step-ms=20";
    let options = hotspare_testkit::ServerOptions::new("spark-mini", &["--max-num-seqs", "1"])
        .env("HOTSPARE_FAULTS", faults);
    let server = hotspare_testkit::Server::start(crate::support::binary(), &options);
    let endless = with(
        chat("Hi"),
        json!({"stream": true, "ignore_eos": true, "max_tokens": null}),
    );
    let mut running = server.client().stream(CHAT, &endless);
    assert!(running.next().is_some() && running.next().is_some());
    let waiting = server.client().stream(CHAT, &endless);
    wait_until("one request waits", PATIENCE, || {
        server.main_engine()["waiting"] == 1
    });
    drop(waiting);
    wait_until("nobody waits", PATIENCE, || {
        server.main_engine()["waiting"] == 0
    });
    assert_eq!(
        server.main_engine()["running"],
        1,
        "the other request goes on"
    );
    drop(running);
    wait_idle(&server);
}

#[test]
fn a_slow_reader_harms_nobody() {
    let server = serve_mini(&[]);
    let endless = with(
        chat("Tell me a story."),
        json!({"stream": true, "ignore_eos": true, "max_tokens": 1000}),
    );
    let slow = server.client().stream(CHAT, &endless);
    for _ in 0..5 {
        let reply = server.client().post(CHAT, &chat("Hello"));
        assert_eq!(reply.status, 200);
    }
    let events = slow.collect_json();
    assert_eq!(
        events.last().unwrap()["choices"][0]["finish_reason"],
        "length"
    );
}
