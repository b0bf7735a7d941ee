//! Whatever the bytes: no panic, and either an error of the 4xx or 501 kind or values in range.
//!
//! `PROPTEST_CASES` sets how long it searches; CI runs the default.
#![allow(clippy::unwrap_used)]

use hotspare_protocol::{
    ApiError, ChatRequest, CompletionRequest, DetokenizeRequest, GenerationDefaults, Prompt,
    RequestLimits, SamplingFields, TokenizeRequest,
};
use proptest::collection::vec;
use proptest::prelude::*;
use serde_json::Value;

const VOCAB: u32 = 1000;
const MAX_MODEL_LEN: u32 = 128;

fn limits() -> RequestLimits {
    RequestLimits {
        trust_request_chat_template: true,
        ..RequestLimits::new(MAX_MODEL_LEN, VOCAB)
    }
}

fn check_error(error: &ApiError) {
    assert!(matches!(error.status, 400 | 501), "{error}");
    assert!(error.message.len() < 20_000);
    let body: Value = serde_json::from_slice(&error.to_json()).unwrap();
    assert_eq!(body["error"]["code"], error.status);
}

fn check_sampling(fields: &SamplingFields, num_logprobs: Option<u32>) {
    let (defaults, limits) = (GenerationDefaults::default(), limits());
    assert!((1..=1024).contains(&fields.n));
    match fields.sampling_params(&defaults, &limits, num_logprobs, None) {
        Err(error) => check_error(&error),
        Ok(params) => {
            assert!(params.temperature == 0.0 || (0.01..=2.0).contains(&params.temperature));
            assert!(params.top_p > 0.0 && params.top_p <= 1.0);
            assert!((0.0..=1.0).contains(&params.min_p));
            assert!(params.top_k < VOCAB);
            assert!(params.repetition_penalty > 0.0 && params.repetition_penalty.is_finite());
            assert!(params.frequency_penalty.abs() <= 2.0);
            assert!(params.presence_penalty.abs() <= 2.0);
            assert!(params.num_logprobs.is_none_or(|num| num <= 20));
            assert!(params.allowed_token_ids.iter().all(|&id| id < VOCAB));
            let biases = &params.logit_bias;
            assert!(biases.iter().all(|&(id, b)| id < VOCAB && b.abs() <= 100.0));
        }
    }
    match fields.stop_params(&defaults, &limits, None, 5) {
        Err(error) => check_error(&error),
        Ok(stop) => {
            assert!((1..=MAX_MODEL_LEN - 5).contains(&stop.max_tokens));
            assert!(stop.min_tokens <= stop.max_tokens);
            assert!(stop.stop_token_ids.iter().all(|&id| id < VOCAB));
        }
    }
    assert!(fields.stop.len() <= 4 && fields.stop.iter().all(|stop| !stop.is_empty()));
    let mut ids: Vec<u32> = (0..200).collect();
    fields.truncate_prompt(&mut ids, &limits);
    assert!(fields.truncate_prompt_tokens.is_none() || ids.len() <= MAX_MODEL_LEN as usize);
}

fn check_all(body: &[u8]) {
    let limits = limits();
    match ChatRequest::parse(body, &limits) {
        Err(error) => check_error(&error),
        Ok(request) => {
            assert!(!request.template.messages.is_empty());
            assert!(!request.stream.continuous_usage_stats || request.stream.include_usage);
            check_sampling(&request.sampling, request.num_top_logprobs);
            assert_eq!(
                request.template.template_messages().len(),
                request.template.messages.len()
            );
            let _ = (request.response_role(), request.echo_text());
        }
    }
    match CompletionRequest::parse(body, &limits) {
        Err(error) => check_error(&error),
        Ok(request) => {
            assert!((1..=1024).contains(&(request.prompts.len() * request.sampling.n as usize)));
            for prompt in &request.prompts {
                if let Prompt::Ids(ids) = prompt {
                    assert!(!ids.is_empty() && ids.iter().all(|&id| id < VOCAB));
                }
            }
            assert!(request.sampling.max_tokens.is_some());
            check_sampling(&request.sampling, request.num_logprobs);
        }
    }
    if let Err(error) = TokenizeRequest::parse(body, &limits) {
        check_error(&error);
    }
    match DetokenizeRequest::parse(body, &limits) {
        Err(error) => check_error(&error),
        Ok(request) => assert!(request.tokens.iter().all(|&id| id < VOCAB)),
    }
}

/// A request that uses every field.
fn full_request() -> Value {
    let text = r#"{
        "model": "m",
        "messages": [
            {"role": "system", "content": [{"type": "text", "text": "a"}]},
            {"role": "user", "content": "b", "name": "c"},
            {"role": "assistant", "content": null, "tool_calls": [{"id": "1", "type": "function",
                "function": {"name": "f", "arguments": "{\"x\":[1]}"}}]},
            {"role": "tool", "content": "d", "tool_call_id": "1"}
        ],
        "prompt": [[1, 2], [3]], "tokens": [1, 2], "n": 2, "seed": 3, "temperature": 0.5,
        "top_p": 0.5, "top_k": 5, "min_p": 0.1, "repetition_penalty": 1.1,
        "frequency_penalty": 0.1, "presence_penalty": 0.1, "logit_bias": {"5": 1.0},
        "allowed_token_ids": [1, 2], "max_tokens": 5, "max_completion_tokens": 6,
        "min_tokens": 1, "stop": ["x", "y"], "stop_token_ids": [7], "ignore_eos": true,
        "include_stop_str_in_output": true, "skip_special_tokens": false, "priority": 1,
        "cache_salt": "s", "truncate_prompt_tokens": 4, "truncation_side": "right",
        "prompt_logprobs": 0, "logprobs": 1, "top_logprobs": 1, "echo": true, "stream": true,
        "stream_options": {"include_usage": true, "continuous_usage_stats": true},
        "tools": [{"type": "function", "function": {"name": "f", "parameters": {}}}],
        "tool_choice": "none", "documents": [{"text": "t"}], "chat_template": "x",
        "chat_template_kwargs": {"a": 1}, "add_generation_prompt": true,
        "continue_final_message": false, "add_special_tokens": true, "reasoning_effort": "low",
        "request_id": "r", "return_token_ids": true, "return_tokens_as_token_ids": true,
        "return_prompt_text": false, "return_token_strs": true, "user": "u",
        "response_format": {"type": "text"}, "suffix": null, "bad_words": [],
        "structured_outputs": null, "stream_interval": 1, "unknown": {"a": [1]}
    }"#;
    serde_json::from_str(text).unwrap()
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        (-3i64..1100).prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        (-3.0f64..3.0).prop_map(Value::from),
        ".{0,12}".prop_map(Value::from),
        prop_oneof![
            Just("nan"),
            Just("inf"),
            Just("-1"),
            Just("auto"),
            Just("none"),
            Just("required"),
            Just("user"),
            Just("text"),
            Just("json_schema"),
            Just(""),
            Just("1e3"),
        ]
        .prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 24, 5, |inner| {
        let key = prop_oneof![
            ".{0,6}",
            "[0-9]{1,4}",
            Just("type".to_owned()),
            Just("text".to_owned()),
            Just("role".to_owned()),
            Just("content".to_owned()),
            Just("function".to_owned()),
            Just("name".to_owned()),
            Just("arguments".to_owned()),
            Just("include_usage".to_owned()),
        ];
        prop_oneof![
            vec(inner.clone(), 0..5).prop_map(Value::from),
            vec((key, inner), 0..4).prop_map(|pairs| Value::Object(pairs.into_iter().collect())),
        ]
    })
}

#[test]
fn the_full_request_parses() {
    let body = full_request().to_string();
    check_all(body.as_bytes());
    CompletionRequest::parse(body.as_bytes(), &limits()).unwrap();
    ChatRequest::parse(body.as_bytes(), &limits()).unwrap();
    TokenizeRequest::parse(body.as_bytes(), &limits()).unwrap();
    DetokenizeRequest::parse(body.as_bytes(), &limits()).unwrap();
}

proptest! {
    #[test]
    fn any_bytes(body in vec(any::<u8>(), 0..200)) {
        check_all(&body);
    }

    #[test]
    fn any_json_body(body in any_json()) {
        check_all(body.to_string().as_bytes());
    }

    /// Some fields replaced or dropped.
    #[test]
    fn any_value_for_each_field(
        changes in vec((any::<prop::sample::Index>(), prop::option::of(any_json())), 1..4),
    ) {
        let mut body = full_request();
        let map = body.as_object_mut().unwrap();
        let names: Vec<String> = map.keys().cloned().collect();
        for (index, value) in changes {
            let name = index.get(&names);
            match value {
                Some(value) => { map.insert(name.clone(), value); }
                None => { map.shift_remove(name); }
            }
        }
        check_all(body.to_string().as_bytes());
    }

    /// The text of a right request with bytes changed, cut out, or doubled.
    #[test]
    fn mutated_text(
        edits in vec((any::<prop::sample::Index>(), any::<u8>(), 0u8..4, 1usize..40), 1..6),
    ) {
        let mut body = full_request().to_string().into_bytes();
        for (index, byte, kind, len) in edits {
            let at = index.index(body.len().max(1)).min(body.len());
            let end = (at + len).min(body.len());
            match kind {
                0 if at < body.len() => body[at] = byte,
                1 => { body.drain(at..end); }
                2 => { let part = body[at..end].to_vec(); body.splice(at..at, part); }
                _ => body.insert(at, b"{}[]\",:\\"[byte as usize % 8]),
            }
        }
        check_all(&body);
    }
}
