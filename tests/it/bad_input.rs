//! Bad input: a 4xx in the right shape, and a server that goes on.
//!
//! Invariant: after each bad request, a good one is answered.

use serde_json::{Value, json};

use hotspare_testkit::{Client, Reply};

use crate::support::{chat, serve_mini, with};

const CHAT: &str = "/v1/chat/completions";
const COMPLETIONS: &str = "/v1/completions";

/// Checks status and the shape of vLLM's error object.
#[track_caller]
fn assert_error(reply: &Reply, status: u16) -> Value {
    assert_eq!(reply.status, status, "{}", reply.text());
    let error = reply.json()["error"].clone();
    assert!(
        error["message"].as_str().is_some_and(|m| !m.is_empty()),
        "{error}"
    );
    assert!(error["type"].is_string(), "{error}");
    assert_eq!(error["code"], status);
    assert!(error.as_object().unwrap().contains_key("param"), "{error}");
    error
}

#[track_caller]
fn assert_alive(client: &Client) {
    assert_eq!(
        client.post(CHAT, &chat("Hello")).status,
        200,
        "the server goes on"
    );
}

#[test]
fn what_is_not_a_request_is_refused() {
    let server = serve_mini(&[]);
    let client = server.client();
    for body in [
        &b""[..],
        b"{",
        b"nonsense",
        b"[]",
        b"null",
        b"\"text\"",
        b"{\"messages\": 3}",
        b"{\"messages\": [{\"role\": \"user\"",
        b"\xff\xfe\x00",
        b"{\"messages\": [{\"role\": \"user\", \"content\": \"\\ud800\"}]}",
        b"{\"messages\": [{\"role\": \"user\", \"content\": \"a\tb\n\"}]}",
        b"{\"messages\": [{\"role\": \"user\", \"content\": \"x\"}], \"temperature\": NaN}",
        b"{\"messages\": [{\"role\": \"user\", \"content\": \"x\"}], \"max_tokens\": 1e999}",
    ] {
        let error = assert_error(&client.post_bytes(CHAT, body), 400);
        assert_eq!(
            error["type"],
            "Bad Request",
            "{}",
            String::from_utf8_lossy(body)
        );
    }
    let nested = format!(
        "{{\"messages\": {}{}}}",
        "[".repeat(100_000),
        "]".repeat(100_000)
    );
    assert_error(&client.post_bytes(CHAT, nested.as_bytes()), 400);
    assert_alive(&client);
}

#[test]
fn values_out_of_range_are_named() {
    let server = serve_mini(&[]);
    let client = server.client();
    for (more, named) in [
        (json!({"temperature": -1}), "temperature"),
        (json!({"temperature": 3}), "temperature"),
        (json!({"temperature": "hot"}), "temperature"),
        (json!({"top_p": 0}), "top_p"),
        (json!({"top_p": 1.5}), "top_p"),
        (json!({"top_k": -2}), "top_k"),
        (json!({"min_p": 2}), "min_p"),
        (json!({"presence_penalty": 3}), "presence_penalty"),
        (json!({"frequency_penalty": -3}), "frequency_penalty"),
        (json!({"repetition_penalty": 0}), "repetition_penalty"),
        (json!({"max_tokens": 0}), "max_tokens"),
        (json!({"max_tokens": -5}), "max_tokens"),
        (json!({"max_tokens": 1.5}), "max_tokens"),
        (json!({"max_tokens": 1_000_000}), "max_tokens"),
        (json!({"min_tokens": 30, "max_tokens": 20}), "min_tokens"),
        (json!({"n": 0}), "n"),
        (json!({"n": 2, "temperature": 0}), "n"),
        (json!({"stop": [""]}), "stop"),
        (json!({"stop": 5}), "stop"),
        (json!({"seed": 1e30}), "seed"),
        (json!({"logit_bias": {"999999": 1}}), "logit_bias"),
        (json!({"logit_bias": {"x": 1}}), "logit_bias"),
        (json!({"top_logprobs": 3}), "logprobs"),
        (json!({"logprobs": true, "top_logprobs": 1000}), "logprobs"),
        (json!({"stream_options": {"include_usage": true}}), "stream"),
        (json!({"stop_token_ids": ["a"]}), "stop_token_ids"),
        (json!({"messages": []}), "messages"),
        (json!({"messages": [{"content": "x"}]}), "role"),
    ] {
        let reply = client.post(CHAT, &with(chat("Hello"), more.clone()));
        let error = assert_error(&reply, 400);
        let text = error.to_string();
        assert!(text.contains(named), "{more}: {text}");
    }
    assert_alive(&client);
}

#[test]
fn an_unknown_model_is_not_found() {
    let server = serve_mini(&[]);
    for path in [CHAT, COMPLETIONS] {
        let body = json!({"model": "gpt-99", "prompt": "x",
            "messages": [{"role": "user", "content": "x"}]});
        let error = assert_error(&server.client().post(path, &body), 404);
        assert_eq!(error["type"], "NotFoundError");
        assert!(
            error["message"].as_str().unwrap().contains("gpt-99"),
            "{error}"
        );
    }
}

#[test]
fn what_is_too_long_is_refused() {
    let server = serve_mini(&[]);
    let client = server.client();
    let many_tokens = json!({"prompt": vec![5; 2049]});
    let error = assert_error(&client.post(COMPLETIONS, &many_tokens), 400);
    assert!(
        error["message"].as_str().unwrap().contains("2048"),
        "{error}"
    );
    let many_words = json!({"prompt": "word ".repeat(3000)});
    assert_error(&client.post(COMPLETIONS, &many_words), 400);
    let long_chat = chat(&"word ".repeat(3000));
    assert_error(&client.post(CHAT, &long_chat), 400);
    let huge = vec![b'x'; 10 << 20];
    let reply = client.post_bytes(CHAT, &huge);
    assert!([400, 413].contains(&reply.status), "{}", reply.status);
    assert_error(&reply, reply.status);
    let huge_json = json!({"prompt": "x".repeat(10 << 20)});
    let reply = client.post(COMPLETIONS, &huge_json);
    assert!([400, 413].contains(&reply.status), "{}", reply.status);
    assert_alive(&client);
}

#[test]
fn token_ids_outside_the_vocabulary_are_refused() {
    let server = serve_mini(&[]);
    let client = server.client();
    for prompt in [
        json!([99_999_999]),
        json!([-1]),
        json!([[5], [4_294_967_295_u64]]),
        json!([]),
    ] {
        assert_error(&client.post(COMPLETIONS, &json!({"prompt": prompt})), 400);
    }
    let detokenize = client.post("/detokenize", &json!({"tokens": [99_999_999]}));
    assert_error(&detokenize, 400);
    assert_alive(&client);
}

#[test]
fn features_that_are_not_there_are_refused_by_name() {
    let server = serve_mini(&[]);
    let client = server.client();
    for (more, named) in [
        (
            json!({"response_format": {"type": "json_object"}}),
            "response_format",
        ),
        (
            json!({"structured_outputs": {"regex": "a+"}}),
            "structured_outputs",
        ),
        (json!({"use_beam_search": true}), "use_beam_search"),
    ] {
        let error = assert_error(&client.post(CHAT, &with(chat("Hello"), more)), 501);
        assert_eq!(error["type"], "NotImplementedError");
        assert!(error.to_string().contains(named), "{error}");
    }
    assert_alive(&client);
}

#[test]
fn unknown_fields_are_ignored() {
    let server = serve_mini(&[]);
    let body = with(
        chat("Hello"),
        json!({"frobnicate": {"deep": [1, 2]}, "user": "u", "store": true}),
    );
    assert_eq!(server.client().post(CHAT, &body).status, 200);
}
