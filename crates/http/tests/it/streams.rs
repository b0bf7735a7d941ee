//! Streamed answers: their events, their errors, and what a client that leaves does.

use hotspare_engine::ScriptedOptions;
use serde_json::{Value, json};

use crate::client::{parse, read_until};
use crate::rig::{Rig, RigOptions, endless, eventually, slow};

fn content(events: &[Value], index: u64) -> String {
    let choices = events
        .iter()
        .flat_map(|event| event["choices"].as_array().unwrap());
    choices
        .filter(|choice| choice["index"] == index)
        .filter_map(|choice| choice["delta"]["content"].as_str())
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chat_stream_tells_the_same_as_the_whole_answer() {
    let rig = Rig::start(RigOptions::default()).await;
    let client = rig.client();
    let mut body = json!({"messages": [{"role": "user", "content": "hi"}], "max_tokens": 9,
        "n": 2, "seed": 4});
    let whole = client.post("/v1/chat/completions", &body).await.json();
    body["stream"] = json!(true);
    body["stream_options"] = json!({"include_usage": true});
    let reply = client.post("/v1/chat/completions", &body).await;
    assert_eq!(
        reply.header("content-type"),
        Some("text/event-stream; charset=utf-8")
    );
    let events = reply.events();
    for index in [0, 1] {
        let message = &whole["choices"][index as usize]["message"];
        assert_eq!(content(&events, index), message["content"]);
    }
    for (index, event) in events[..2].iter().enumerate() {
        assert_eq!(
            event["choices"],
            json!([{"index": index, "delta": {"role": "assistant", "content": ""},
                "logprobs": null, "finish_reason": null}])
        );
    }
    let usage = events.last().unwrap();
    assert_eq!(usage["choices"], json!([]));
    assert_eq!(usage["usage"], whole["usage"]);
    // Two first chunks, one for each of eighteen tokens, one for usage.
    assert_eq!(events.len(), 2 + 18 + 1);
    for event in &events {
        for key in ["id", "created", "model", "object"] {
            assert_eq!(event[key], events[0][key]);
        }
    }
    let finishes: Vec<&Value> = events
        .iter()
        .filter_map(|event| event["choices"].get(0))
        .filter(|choice| !choice["finish_reason"].is_null())
        .collect();
    assert_eq!(finishes.len(), 2);
    for finish in finishes {
        assert_eq!(finish["finish_reason"], "length");
        assert_eq!(finish.get("stop_reason"), Some(&Value::Null));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_is_the_same_bytes_at_any_pace() {
    let body = json!({"messages": [{"role": "user", "content": "hi"}], "max_tokens": 20,
        "seed": 4, "stream": true, "logprobs": true, "top_logprobs": 1, "request_id": "same",
        "stop": ["!!"], "stream_options": {"include_usage": true, "continuous_usage_stats": true}});
    let mut transcripts = Vec::new();
    for step_time_us in [0, 3_000] {
        let rig = Rig::start(slow(step_time_us)).await;
        let reply = rig.client().post("/v1/chat/completions", &body).await;
        let mut events = reply.events();
        for (index, event) in events.iter_mut().enumerate() {
            event["created"] = json!(0);
            let usage = &event["usage"]["completion_tokens"];
            if index < events_with_tokens() {
                assert_eq!(usage, &json!(index), "usage so far in every chunk");
            }
        }
        transcripts.push(events);
    }
    assert_eq!(transcripts[0], transcripts[1]);
}

/// The first chunk and one for each token.
fn events_with_tokens() -> usize {
    21
}

#[tokio::test(flavor = "multi_thread")]
async fn a_completion_stream_tells_the_same_as_the_whole_answer() {
    let rig = Rig::start(RigOptions::default()).await;
    let client = rig.client();
    let mut body = json!({"prompt": [[4, 5], [5, 6, 7]], "n": 2, "seed": 3, "max_tokens": 4,
        "echo": true, "logprobs": 2, "return_token_ids": true});
    let whole = client.post("/v1/completions", &body).await.json();
    body["stream"] = json!(true);
    let events = client.post("/v1/completions", &body).await.events();
    assert!(events.iter().all(|event| event.get("usage").is_none()));
    for index in 0..4usize {
        let parts: Vec<&Value> = events
            .iter()
            .map(|event| &event["choices"][0])
            .filter(|choice| choice["index"] == index)
            .collect();
        let choice = &whole["choices"][index];
        let text: String = parts
            .iter()
            .map(|part| part["text"].as_str().unwrap())
            .collect();
        assert_eq!(text, choice["text"]);
        for key in ["tokens", "token_logprobs", "text_offset", "top_logprobs"] {
            let joined: Vec<Value> = parts
                .iter()
                .flat_map(|part| part["logprobs"][key].as_array().unwrap().clone())
                .collect();
            assert_eq!(Value::from(joined), choice["logprobs"][key], "{key}");
        }
        assert_eq!(parts[0]["prompt_token_ids"], choice["prompt_token_ids"]);
        assert_eq!(parts.last().unwrap()["finish_reason"], "length");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_a_stream_cancels_it() {
    let rig = Rig::start(endless()).await;
    let body = json!({"messages": [{"role": "user", "content": "hi"}], "stream": true});
    let body = body.to_string();
    let client = rig.client();
    let mut stream = client
        .send("POST", "/v1/chat/completions", body.as_bytes())
        .await;
    read_until(&mut stream, "\"content\"").await;
    assert_eq!(rig.front().server_load(), 1);
    drop(stream);
    eventually("the stream is cancelled", || rig.front().server_load() == 0).await;
    eventually("the engine is idle", || {
        rig.front().status().engines[0].running == 0
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_a_whole_answer_cancels_it() {
    let rig = Rig::start(endless()).await;
    let body = json!({"messages": [{"role": "user", "content": "hi"}]}).to_string();
    let client = rig.client();
    let stream = client
        .send("POST", "/v1/chat/completions", body.as_bytes())
        .await;
    eventually("the request runs", || rig.front().server_load() == 1).await;
    drop(stream);
    eventually("the request is cancelled", || {
        rig.front().server_load() == 0
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_that_dies_ends_the_stream_with_an_error() {
    let rig = Rig::start(RigOptions {
        scripted: ScriptedOptions {
            failing_token_id: Some(9),
            ..RigOptions::default().scripted
        },
        ..RigOptions::default()
    })
    .await;
    let client = rig.client();
    // The prompt holds the token that fails.
    let body = json!({"prompt": [5, 9], "max_tokens": 4});
    let whole = client.post("/v1/completions", &body).await;
    assert_eq!(whole.status, 500, "{}", whole.body);
    assert_eq!(whole.json()["error"]["type"], "InternalServerError");
    let body = json!({"prompt": [5, 9], "max_tokens": 4, "stream": true});
    let events = client.post("/v1/completions", &body).await.events();
    assert_eq!(events.last().unwrap()["error"]["code"], 500);
    let fine = json!({"prompt": [5], "max_tokens": 1, "temperature": 0, "logit_bias": {}});
    assert_eq!(client.post("/v1/completions", &fine).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn comments_keep_a_slow_stream_alive() {
    let mut options = slow(200_000);
    options.http.sse_keep_alive_interval_ms = 10;
    let rig = Rig::start(options).await;
    let body = json!({"prompt": "a", "max_tokens": 2, "stream": true});
    let reply = rig.client().post("/v1/completions", &body).await;
    assert!(reply.body.contains(": keep-alive\n\n"), "{}", reply.body);
    assert_eq!(reply.events().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn comments_fill_the_gap_of_a_stream_that_has_begun() {
    let mut options = slow(100);
    options.engine.faults = "die-after-token=2".to_owned();
    options.restart_backoff_ms = 200;
    options.http.replay_keep_alive_interval_ms = 20;
    let rig = Rig::start(options).await;
    let body = json!({"prompt": "a", "max_tokens": 6, "stream": true, "ignore_eos": true});
    let reply = rig.client().post("/v1/completions", &body).await;
    let comments = reply.body.matches(": resuming\n").count();
    assert!(comments >= 2, "{}", reply.body);
    assert!(
        !reply.body.contains(": resuming\n\n"),
        "no blank line of its own"
    );
    let without = reply.body.replace(": resuming\n", "");
    assert_eq!(
        without.matches("data: ").count(),
        7,
        "six tokens and the end"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_has_not_begun_gets_no_comment() {
    let mut options = slow(100);
    options.engine.faults = "die-before-token=1".to_owned();
    options.restart_backoff_ms = 200;
    options.http.replay_keep_alive_interval_ms = 20;
    let rig = Rig::start(options).await;
    let body = json!({"prompt": "a", "max_tokens": 6, "stream": true, "ignore_eos": true});
    let reply = rig.client().post("/v1/completions", &body).await;
    assert!(!reply.body.contains("resuming"), "{}", reply.body);
    assert_eq!(reply.events().len(), 6);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_lets_streams_end() {
    let mut rig = Rig::start(slow(20_000)).await;
    let body = json!({"prompt": "a", "max_tokens": 30, "stream": true, "ignore_eos": true});
    let client = rig.client();
    let body = body.to_string();
    let mut stream = client
        .send("POST", "/v1/completions", body.as_bytes())
        .await;
    let mut seen = read_until(&mut stream, "data: ").await;
    rig.stop();
    eventually("the front drains", || rig.front().is_draining()).await;
    if !seen.contains("[DONE]") {
        seen += &read_until(&mut stream, "[DONE]\n\n").await;
    }
    seen += "\r\n0\r\n\r\n";
    let reply = parse(seen.as_bytes());
    assert_eq!(
        reply.events().last().unwrap()["choices"][0]["finish_reason"],
        "length"
    );
    rig.ended().await;
    assert!(tokio::net::TcpStream::connect(rig.addr).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_does_not_wait_for_ever_and_cuts_nothing_silently() {
    let mut options = endless();
    options.http.shutdown_timeout_ms = 50;
    // For the client to take the error, however busy the machine is.
    options.http.shutdown_grace_ms = 30_000;
    let mut rig = Rig::start(options).await;
    let body = json!({"prompt": "a", "max_tokens": 60_000, "stream": true});
    let client = rig.client();
    let body = body.to_string();
    let mut stream = client
        .send("POST", "/v1/completions", body.as_bytes())
        .await;
    read_until(&mut stream, "data: ").await;
    let whole = json!({"prompt": "a", "max_tokens": 60_000}).to_string();
    let whole = tokio::spawn(async move {
        client
            .request("POST", "/v1/completions", whole.as_bytes())
            .await
    });
    eventually("both run", || rig.front().server_load() == 2).await;
    rig.stop();
    let end = read_until(&mut stream, "[DONE]").await;
    let error = end.find("\"error\"").expect("an explicit end");
    assert!(end[error..].contains("shutting down"), "{end}");
    let whole = whole.await.unwrap();
    assert_eq!(whole.status, 503);
    assert_eq!(whole.header("x-should-retry"), Some("true"));
    rig.ended().await;
    eventually("the stream is dropped", || rig.front().server_load() == 0).await;
}
