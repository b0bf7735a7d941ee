//! Values out of range, and the messages that clients know them by.
#![allow(clippy::unwrap_used)]

use hotspare_protocol::{ApiError, ChatRequest, CompletionRequest, RequestLimits};
use serde_json::{Value, json};

fn limits() -> RequestLimits {
    RequestLimits::new(128, 1000)
}

fn chat(fields: Value) -> Result<ChatRequest, ApiError> {
    let mut body = json!({"messages": [{"role": "user", "content": "hi"}]});
    for (key, value) in fields.as_object().unwrap() {
        body[key] = value.clone();
    }
    ChatRequest::parse(body.to_string().as_bytes(), &limits())
}

fn completion(fields: Value) -> Result<CompletionRequest, ApiError> {
    let mut body = json!({"prompt": "hi"});
    for (key, value) in fields.as_object().unwrap() {
        body[key] = value.clone();
    }
    CompletionRequest::parse(body.to_string().as_bytes(), &limits())
}

#[track_caller]
fn refused<T: std::fmt::Debug>(result: Result<T, ApiError>, status: u16, part: &str) -> ApiError {
    let error = result.unwrap_err();
    assert_eq!(error.status, status, "{error}");
    assert!(error.message.contains(part), "{}", error.message);
    error
}

/// Fields that are out of range for both endpoints, and a part of the message.
const OUT_OF_RANGE: &[(&str, &str)] = &[
    (
        r#"{"presence_penalty": 3}"#,
        "presence_penalty must be in [-2, 2], got 3.0.",
    ),
    (
        r#"{"frequency_penalty": -2.5}"#,
        "frequency_penalty must be in [-2, 2], got -2.5.",
    ),
    (
        r#"{"repetition_penalty": 0}"#,
        "repetition_penalty must be greater than zero, got 0.0.",
    ),
    (
        r#"{"repetition_penalty": "inf"}"#,
        "repetition_penalty must be a finite number, got inf.",
    ),
    (
        r#"{"temperature": "nan"}"#,
        "temperature must be a finite number, got nan.",
    ),
    (
        r#"{"temperature": -0.5}"#,
        "temperature must be non-negative, got -0.5. (parameter=temperature, value=-0.5)",
    ),
    (
        r#"{"temperature": 2.5}"#,
        "temperature must be in [0, 2], got 2.5.",
    ),
    (
        r#"{"repetition_penalty": 1e300}"#,
        "repetition_penalty is too large for a 32-bit float, got 1e+300.",
    ),
    (
        r#"{"repetition_penalty": 1e-300}"#,
        "repetition_penalty is too small for a 32-bit float, got 1e-300.",
    ),
    (
        r#"{"top_p": 1e-300}"#,
        "top_p is too small for a 32-bit float, got 1e-300.",
    ),
    (r#"{"top_p": 0}"#, "top_p must be in (0, 1], got 0.0."),
    (r#"{"top_p": "nan"}"#, "top_p must be in (0, 1], got nan."),
    (
        r#"{"top_k": -2}"#,
        "top_k must be 0 (disable), or at least 1, got -2.",
    ),
    (r#"{"min_p": 1.5}"#, "min_p must be in [0, 1], got 1.5."),
    (
        r#"{"max_tokens": 0}"#,
        "max_tokens must be at least 1, got 0.",
    ),
    (
        r#"{"max_tokens": 129}"#,
        "max_tokens=129 cannot be greater than max_model_len=128.",
    ),
    (
        r#"{"min_tokens": -1}"#,
        "min_tokens must be greater than or equal to 0, got -1.",
    ),
    (
        r#"{"stop": ["a", ""]}"#,
        "stop cannot contain an empty string.",
    ),
    (
        r#"{"stop": ["a", "b", "c", "d", "e"]}"#,
        "stop must hold at most 4",
    ),
    (
        r#"{"stream_options": {"include_usage": true}}"#,
        "Stream options can only be defined when `stream=True`.",
    ),
    (
        r#"{"stream": true, "prompt_logprobs": 1}"#,
        "`prompt_logprobs` are not available when `stream=True`.",
    ),
    (r#"{"cache_salt": ""}"#, "must be a non-empty string"),
    (r#"{"cache_salt": "a/b"}"#, "cache_salt' must not contain"),
    (r#"{"n": -1}"#, "n must be at least 1, got -1."),
    (
        r#"{"n": 5000000000}"#,
        "n must be at most 16384, got 5000000000.",
    ),
    (
        r#"{"stream": true, "return_prompt_text": true}"#,
        "`return_prompt_text` is not available when `stream=True`.",
    ),
    (r#"{"n": 0}"#, "n must be at least 1, got 0."),
    (r#"{"n": 20000}"#, "n must be at most 16384"),
    (r#"{"n": 1025}"#, "n times the number of prompts"),
    (
        r#"{"logit_bias": {"x": 1}}"#,
        "Found token_id `x` in logit_bias",
    ),
    (
        r#"{"logit_bias": {"1000": 1}}"#,
        "token_id(s) [1000] in logit_bias contain out-of-vocab",
    ),
    (
        r#"{"allowed_token_ids": []}"#,
        "allowed_token_ids is not None and empty!",
    ),
    (
        r#"{"allowed_token_ids": [-1]}"#,
        "contains out-of-vocab token id!",
    ),
    (
        r#"{"prompt_logprobs": 21}"#,
        "Requested prompt logprobs of 21, which is greater than max allowed: 20",
    ),
];

#[test]
fn value_checks_have_the_messages_clients_know() {
    for (fields, message) in OUT_OF_RANGE {
        let fields: Value = serde_json::from_str(fields).unwrap();
        let error = refused(chat(fields.clone()), 400, message);
        assert_eq!(error.error_type, "BadRequestError");
        refused(completion(fields), 400, message);
    }
}

#[test]
fn chat_has_checks_of_its_own() {
    for (fields, status, message) in [
        (
            json!({"top_logprobs": 2}),
            400,
            "when using `top_logprobs`, `logprobs` must be set to true.",
        ),
        (
            json!({"logprobs": true, "top_logprobs": 21}),
            400,
            "Requested sample logprobs of 21",
        ),
        (json!({"messages": []}), 400, "at least one message"),
        (
            json!({"continue_final_message": true}),
            400,
            "Cannot set both `continue_final_message` and `add_generation_prompt` to True.",
        ),
        (
            json!({"chat_template": "x"}),
            400,
            "--trust-request-chat-template is not set",
        ),
        (
            json!({"chat_template_kwargs": {"chat_template": "x"}}),
            400,
            "--trust-request-chat-template is not set",
        ),
        (
            json!({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}),
            400,
            "Content parts of type 'image_url' are not supported",
        ),
        (json!({"tools": []}), 400, "`tools` must not be an empty"),
        (
            json!({"tool_choice": "auto"}),
            400,
            "When using `tool_choice`, `tools` must be set.",
        ),
        (
            json!({"tool_choice": "required"}),
            400,
            "Tool choice 'required' must be specified with 'tools' parameter.",
        ),
        (
            json!({"response_format": {"type": "json_object"}}),
            501,
            "response_format 'json_object' is not implemented",
        ),
        (
            json!({"response_format": {"type": "json_schema"}}),
            400,
            "the 'json_schema' field must be provided.",
        ),
        (
            json!({"structured_outputs": {"json": {}}}),
            501,
            "Structured output",
        ),
        (json!({"use_beam_search": true}), 501, "Beam search"),
        (json!({"bad_words": ["x"]}), 501, "bad_words"),
    ] {
        refused(chat(fields), status, message);
    }
}
