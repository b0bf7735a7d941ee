//! `/v1/chat/completions`, answered whole.
//!
//! Invariant: the same request gets the same answer, streamed or not, alone or not.

use serde_json::json;

use crate::support::{chat, serve, serve_mini, with};

const PATH: &str = "/v1/chat/completions";

#[test]
fn an_answer_has_the_expected_shape() {
    let server = serve_mini(&[]);
    let answer = server.client().post(PATH, &chat("Hello")).json();
    assert_eq!(answer["object"], "chat.completion");
    assert!(answer["id"].as_str().unwrap().starts_with("chatcmpl-"));
    assert!(answer["created"].as_u64().unwrap() > 1_700_000_000);
    let choice = &answer["choices"][0];
    assert_eq!(choice["message"]["role"], "assistant");
    assert!(!choice["message"]["content"].as_str().unwrap().is_empty());
    assert!(["stop", "length"].contains(&choice["finish_reason"].as_str().unwrap()));
    let usage = &answer["usage"];
    let sum =
        usage["prompt_tokens"].as_u64().unwrap() + usage["completion_tokens"].as_u64().unwrap();
    assert_eq!(usage["total_tokens"].as_u64().unwrap(), sum);
}

#[test]
fn the_embedded_model_knows_what_it_was_taught() {
    let server = serve("spark", &[]);
    let ask = |question: &str, more: serde_json::Value| {
        let body = with(chat(question), more);
        let answer = server.client().post(PATH, &body).json();
        let choice = &answer["choices"][0];
        let text = choice["message"]["content"].as_str().unwrap().to_owned();
        assert_eq!(choice["finish_reason"], "stop", "{question}: {text}");
        text
    };
    for (question, expected) in [
        ("What is Hotspare?", "server"),
        ("Tell me a story about a dog.", "dog"),
        ("Write a short story about a cat and a bird.", "cat"),
        ("Hello", "Hello"),
    ] {
        let text = ask(question, json!({"max_tokens": 250}));
        assert!(text.contains(expected), "{question}: {text}");
    }
    for (question, expected) in [
        ("What is 3 + 4?", "3 + 4 is 7."),
        ("What is 2 + 2?", "2 + 2 is 4."),
        ("Count from 1 to 5.", "1, 2, 3, 4, 5"),
        ("Count to 10.", "1, 2, 3, 4, 5, 6, 7, 8, 9, 10"),
        ("What does a cow say?", "moo"),
        ("What is the opposite of hot?", "cold"),
        ("What is the capital of France?", "Paris"),
    ] {
        let text = ask(question, json!({"max_tokens": 60, "temperature": 0}));
        assert!(text.contains(expected), "{question}: {text}");
        let count = |text: &str| text.matches(|c: char| c.is_ascii_digit()).count();
        assert_eq!(count(&text), count(expected), "{question}: {text}");
    }
}

#[test]
fn a_seed_fixes_the_answer() {
    let server = serve_mini(&[]);
    let ask = |seed: i64| {
        let more = json!({"seed": seed, "temperature": 1.0, "ignore_eos": true, "max_tokens": 32});
        let body = with(chat("Tell me a story."), more);
        let answer = server.client().post(PATH, &body).json();
        answer["choices"][0]["message"]["content"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    assert_eq!(ask(7), ask(7));
    assert_ne!(ask(7), ask(8));
}

#[test]
fn n_choices_differ_and_are_counted() {
    let server = serve_mini(&[]);
    let more = json!({"n": 3, "seed": 1, "temperature": 1.2, "ignore_eos": true, "max_tokens": 20});
    let body = with(chat("Tell me a story."), more);
    let answer = server.client().post(PATH, &body).json();
    let texts: Vec<_> = answer["choices"]
        .as_array()
        .unwrap()
        .iter()
        .map(|c| c["message"]["content"].clone())
        .collect();
    assert_eq!(texts.len(), 3);
    assert!(texts[0] != texts[1] && texts[1] != texts[2], "{texts:?}");
    assert_eq!(answer["usage"]["completion_tokens"], 60);
}

#[test]
fn a_stop_string_ends_the_answer_before_itself() {
    let server = serve_mini(&[]);
    let more = json!({"ignore_eos": true, "max_tokens": 60});
    let free = server
        .client()
        .post(PATH, &with(chat("Tell me a story."), more.clone()))
        .json();
    let text = free["choices"][0]["message"]["content"].as_str().unwrap();
    // A stop string out of the middle of the text, across whatever tokens it is made of.
    let middle: String = text.chars().skip(10).take(5).collect();
    let body = with(
        chat("Tell me a story."),
        with(more, json!({"stop": [middle]})),
    );
    let stopped = server.client().post(PATH, &body).json();
    let choice = &stopped["choices"][0];
    let (before, _) = text.split_once(&middle).unwrap();
    assert_eq!(choice["message"]["content"], before);
    assert_eq!(choice["finish_reason"], "stop");
    assert_eq!(choice["stop_reason"], middle.as_str());
}

#[test]
fn max_tokens_and_min_tokens_hold() {
    let server = serve_mini(&[]);
    let ask = |more| {
        server
            .client()
            .post(PATH, &with(chat("Hello"), more))
            .json()
    };
    let short = ask(json!({"max_tokens": 1}));
    assert_eq!(short["choices"][0]["finish_reason"], "length");
    assert_eq!(short["usage"]["completion_tokens"], 1);
    let newer = ask(json!({"max_tokens": 50, "max_completion_tokens": 2, "ignore_eos": true}));
    assert_eq!(
        newer["usage"]["completion_tokens"], 2,
        "max_completion_tokens wins"
    );
    let long = ask(json!({"min_tokens": 40, "max_tokens": 60}));
    assert!(
        long["usage"]["completion_tokens"].as_u64().unwrap() >= 40,
        "{long}"
    );
    let whole = ask(json!({"max_tokens": null, "max_completion_tokens": null, "ignore_eos": true}));
    assert_eq!(
        whole["usage"]["total_tokens"], 2048,
        "the default is what the context leaves"
    );
}

#[test]
fn logprobs_describe_the_tokens() {
    let server = serve_mini(&[]);
    let more = json!({"logprobs": true, "top_logprobs": 3, "max_tokens": 5, "ignore_eos": true});
    let answer = server
        .client()
        .post(PATH, &with(chat("Hello"), more))
        .json();
    let items = answer["choices"][0]["logprobs"]["content"]
        .as_array()
        .unwrap()
        .clone();
    assert_eq!(items.len(), 5);
    for item in items {
        let logprob = item["logprob"].as_f64().unwrap();
        let top = item["top_logprobs"].as_array().unwrap();
        assert_eq!(top.len(), 3);
        assert_eq!(
            top[0]["token"], item["token"],
            "greedy takes the most likely"
        );
        assert!((top[0]["logprob"].as_f64().unwrap() - logprob).abs() < 1e-6);
        assert!(logprob <= 0.0);
        assert!(item["bytes"].is_array());
    }
}

#[test]
fn content_may_come_in_parts() {
    let server = serve_mini(&[]);
    let parts = json!({"messages": [{"role": "user", "content": [
        {"type": "text", "text": "Hel"}, {"type": "text", "text": "lo"}]}],
        "temperature": 0, "max_tokens": 24});
    let reply = server.client().post(PATH, &parts);
    assert_eq!(reply.status, 200, "{}", reply.text());
    let image = json!({"messages": [{"role": "user", "content": [
        {"type": "image_url", "image_url": {"url": "http://localhost/x.png"}}]}]});
    assert_eq!(server.client().post(PATH, &image).status, 400);
}
