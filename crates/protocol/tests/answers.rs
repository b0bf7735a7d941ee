//! The bytes of answers: whole bodies, chunk transcripts, log-probabilities.
#![allow(clippy::unwrap_used)]

use std::borrow::Cow;

use hotspare_batch::{TokenId, TokenLogprobs};
use hotspare_protocol::{
    AnswerHead, ApiError, ChatAnswer, ChatChoice, ChatChunks, ChatDelta, ChatLogprobs,
    CompletionAnswer, CompletionChoice, CompletionChunks, CompletionDelta, CompletionLogprobs,
    DONE_EVENT, FinishReason, LogprobFormat, ModelCard, StopReason, TokenTexts, Usage, models_json,
    write_error_event,
};
use serde_json::{Value, json};

struct Letters;

impl TokenTexts for Letters {
    fn text(&self, token: TokenId) -> Cow<'_, str> {
        match token {
            0 => "é".into(),
            9 => "b".into(),
            _ => char::from(b'a' + token as u8).to_string().into(),
        }
    }

    fn bytes(&self, token: TokenId) -> Cow<'_, [u8]> {
        self.text(token).as_bytes().to_vec().into()
    }
}

fn head() -> AnswerHead {
    AnswerHead {
        id: "chatcmpl-1".into(),
        created: 7,
        model: "m\"x".into(),
        system_fingerprint: Some("hotspare-test".into()),
    }
}

fn texts(as_token_ids: bool) -> LogprobFormat<'static> {
    LogprobFormat {
        texts: Some(&Letters),
        as_token_ids,
    }
}

fn token(token: u32, logprob: f32, top: &[(u32, f32)]) -> TokenLogprobs {
    TokenLogprobs {
        token,
        logprob,
        rank: 1,
        top: top.to_vec(),
    }
}

#[test]
fn a_chat_stream_is_these_bytes() {
    let chunks = ChatChunks::new(&head());
    let mut out = Vec::new();
    chunks.write_role(0, "assistant", None, None, &mut out);
    let delta = ChatDelta {
        text: "a\n\"é",
        ..ChatDelta::default()
    };
    chunks.write_delta(0, &delta, None, &mut out);
    let last = ChatDelta {
        finish: Some((FinishReason::Stop, Some(StopReason::Text("END".into())))),
        ..ChatDelta::default()
    };
    chunks.write_delta(0, &last, None, &mut out);
    chunks.write_usage(&Usage::new(3, 2), &mut out);
    out.extend_from_slice(DONE_EVENT);
    let prefix = concat!(
        r#"data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":7,"#,
        r#""model":"m\"x","choices":["#
    );
    let expected = [
        prefix,
        r#"{"index":0,"delta":{"role":"assistant","content":""},"logprobs":null,"#,
        r#""finish_reason":null}]}"#,
        "\n\n",
        prefix,
        r#"{"index":0,"delta":{"content":"a\n\"é"},"logprobs":null,"finish_reason":null}]}"#,
        "\n\n",
        prefix,
        r#"{"index":0,"delta":{"content":""},"logprobs":null,"#,
        r#""finish_reason":"stop","stop_reason":"END"}]}"#,
        "\n\n",
        prefix,
        r#"],"usage":{"prompt_tokens":3,"total_tokens":5,"completion_tokens":2},"#,
        r#""system_fingerprint":"hotspare-test"}"#,
        "\n\ndata: [DONE]\n\n",
    ];
    assert_eq!(String::from_utf8(out).unwrap(), expected.concat());
}

#[test]
fn chunks_carry_what_was_asked_for() {
    let chunks = ChatChunks::new(&head());
    let mut logprobs = ChatLogprobs::default();
    logprobs.extend(
        &[token(1, -0.5, &[(1, -0.5), (2, f32::NEG_INFINITY)])],
        2,
        texts(false),
    );
    let mut out = Vec::new();
    let delta = ChatDelta {
        text: "b",
        logprobs: Some(&logprobs),
        token_ids: Some(&[1]),
        finish: None,
    };
    let usage = Usage::new(1, 1).with_cached_tokens(1);
    chunks.write_delta(3, &delta, Some(&usage), &mut out);
    let chunk = json_of_event(&out);
    let choice = &chunk["choices"][0];
    assert_eq!(choice["index"], 3);
    assert_eq!(choice["token_ids"], json!([1]));
    assert_eq!(
        choice["logprobs"]["content"],
        json!([{"token": "b", "logprob": -0.5, "bytes": [98], "top_logprobs": [
            {"token": "b", "logprob": -0.5, "bytes": [98]},
            {"token": "c", "logprob": -9999.0, "bytes": [99]}]}])
    );
    assert_eq!(chunk["usage"]["prompt_tokens_details"]["cached_tokens"], 1);
    out.clear();
    chunks.write_role(1, "assistant", Some(&[5, 6]), None, &mut out);
    assert_eq!(json_of_event(&out)["prompt_token_ids"], json!([5, 6]));
}

fn json_of_event(event: &[u8]) -> Value {
    let text = std::str::from_utf8(event).unwrap();
    let data = text.strip_prefix("data: ").unwrap();
    serde_json::from_str(data.strip_suffix("\n\n").unwrap()).unwrap()
}

#[test]
fn a_completion_chunk_names_all_its_keys() {
    let chunks = CompletionChunks::new(&head());
    let mut out = Vec::new();
    let delta = CompletionDelta {
        text: "x",
        ..CompletionDelta::default()
    };
    chunks.write_delta(0, &delta, None, &mut out);
    let text = String::from_utf8(out).unwrap();
    assert!(text.contains("\"object\":\"text_completion\""), "{text}");
    let choice =
        r#"[{"index":0,"text":"x","logprobs":null,"finish_reason":null,"stop_reason":null}]}"#;
    assert!(text.ends_with(&format!("{choice}\n\n")), "{text}");
}

#[test]
fn echoed_logprobs_have_a_null_at_the_first_place_only() {
    let mut logprobs = CompletionLogprobs::default();
    let mut offset = 0;
    logprobs.push_first(0, &mut offset, texts(false));
    let rest = [
        token(1, -1.0, &[(2, -0.5)]),
        // Token 9 looks like token 1; the more likely of the two is shown.
        token(1, -2.0, &[(9, -0.25)]),
    ];
    logprobs.extend(&rest, 1, &mut offset, texts(false));
    assert_eq!(
        serde_json::to_value(&logprobs).unwrap(),
        json!({"text_offset": [0, 1, 2], "token_logprobs": [null, -1.0, -2.0],
            "tokens": ["é", "b", "b"],
            "top_logprobs": [null, {"b": -1.0, "c": -0.5}, {"b": -0.25}]})
    );
    let mut by_id = CompletionLogprobs::default();
    by_id.extend(&rest[..1], 0, &mut 0, texts(true));
    let by_id = serde_json::to_value(&by_id).unwrap();
    assert_eq!(by_id["tokens"], json!(["token_id:1"]));
    assert_eq!(by_id["top_logprobs"], json!([{"token_id:1": -1.0}]));
}

#[test]
fn bodies_parse_back() {
    let answer = ChatAnswer {
        head: &head(),
        role: "assistant",
        choices: vec![ChatChoice {
            content: "hi".into(),
            logprobs: None,
            finish_reason: FinishReason::Length,
            stop_reason: Some(StopReason::Token(4)),
            token_ids: None,
        }],
        usage: Usage::new(2, 1),
        prompt_logprobs: Some(texts(false).prompt(&[token(1, -0.5, &[(2, -0.25)])])),
        prompt_token_ids: None,
        prompt_text: None,
    };
    let body: Value = serde_json::from_slice(&answer.to_json()).unwrap();
    assert_eq!(body["object"], "chat.completion");
    assert_eq!(body["choices"][0]["message"]["content"], "hi");
    assert_eq!(body["choices"][0]["finish_reason"], "length");
    assert_eq!(body["choices"][0]["stop_reason"], 4);
    assert_eq!(body["usage"]["total_tokens"], 3);
    assert_eq!(
        body["prompt_logprobs"],
        json!([null, {"1": {"logprob": -0.5, "rank": 1, "decoded_token": "b"},
            "2": {"logprob": -0.25, "rank": 1, "decoded_token": "c"}}])
    );

    let answer = CompletionAnswer {
        head: &head(),
        choices: vec![CompletionChoice {
            index: 0,
            text: "t".into(),
            logprobs: None,
            finish_reason: FinishReason::Stop,
            stop_reason: None,
            token_ids: Some(vec![1]),
            prompt_logprobs: None,
            prompt_token_ids: None,
            prompt_text: None,
        }],
        usage: Usage::new(1, 1),
    };
    let body: Value = serde_json::from_slice(&answer.to_json()).unwrap();
    assert_eq!(body["object"], "text_completion");
    assert_eq!(body["choices"][0]["token_ids"], json!([1]));
    assert_eq!(body["choices"][0]["stop_reason"], Value::Null);

    let card = ModelCard {
        id: "a",
        root: "r",
        created: 1,
        max_model_len: 9,
        model_hash: Some("ab12"),
    };
    let list: Value = serde_json::from_slice(&models_json(&[card])).unwrap();
    assert_eq!(list["data"][0]["max_model_len"], 9);
    assert_eq!(list["data"][0]["model_hash"], "ab12");
    assert_eq!(list["data"][0]["permission"][0]["organization"], "*");
}

#[test]
fn an_error_event_is_one_line() {
    let mut out = Vec::new();
    write_error_event(&ApiError::internal("a\nb"), &mut out);
    let body = json_of_event(&out);
    assert_eq!(body["error"]["code"], 500);
    assert_eq!(body["error"]["message"], "a\nb");
    assert_eq!(out.iter().filter(|&&byte| byte == b'\n').count(), 2);
}
