//! `/v1/completions`, answered whole: text and token prompts, several prompts, echo,
//! log-probabilities.
//!
//! Invariant: choices stand in the order of prompts, then of `n`.

use serde_json::{Value, json};

use crate::support::serve_mini;

const PATH: &str = "/v1/completions";

fn texts(answer: &Value) -> Vec<String> {
    let choices = answer["choices"]
        .as_array()
        .unwrap_or_else(|| panic!("choices in {answer}"));
    choices
        .iter()
        .map(|c| c["text"].as_str().unwrap().to_owned())
        .collect()
}

#[test]
fn a_text_prompt_is_continued() {
    let server = serve_mini(&[]);
    let body = json!({"prompt": "Once upon a time", "temperature": 0});
    let answer = server.client().post(PATH, &body).json();
    assert_eq!(answer["object"], "text_completion");
    assert!(answer["id"].as_str().unwrap().starts_with("cmpl-"));
    assert!(
        answer["usage"]["completion_tokens"].as_u64().unwrap() <= 16,
        "the default is 16"
    );
}

#[test]
fn ids_and_text_of_one_prompt_give_one_answer() {
    let server = serve_mini(&[]);
    let client = server.client();
    let prompt = "The cat sat";
    let ids = client.post("/tokenize", &json!({"prompt": prompt})).json()["tokens"].clone();
    let ask = |prompt: Value| {
        let body = json!({"prompt": prompt, "temperature": 0, "ignore_eos": true});
        texts(&client.post(PATH, &body).json())
    };
    let from_text = ask(json!(prompt));
    assert_eq!(ask(ids.clone()), from_text);
    assert_eq!(
        ask(json!([ids, ids])),
        [from_text[0].clone(), from_text[0].clone()]
    );
}

#[test]
fn prompts_and_n_multiply_in_order() {
    let server = serve_mini(&[]);
    let ask = |body: Value| server.client().post(PATH, &body).json();
    let one = |prompt: &str, n: u32| {
        ask(json!({"prompt": prompt, "n": n, "seed": 5, "temperature": 1.0, "ignore_eos": true}))
    };
    let both = ask(
        json!({"prompt": ["A dog", "A cat"], "n": 2, "seed": 5, "temperature": 1.0,
        "ignore_eos": true}),
    );
    let expected = [texts(&one("A dog", 2)), texts(&one("A cat", 2))].concat();
    assert_eq!(texts(&both), expected);
    let indices: Vec<_> = both["choices"]
        .as_array()
        .unwrap()
        .iter()
        .map(|c| c["index"].as_u64().unwrap())
        .collect();
    assert_eq!(indices, [0, 1, 2, 3]);
}

#[test]
fn token_ids_are_returned_on_request() {
    let server = serve_mini(&[]);
    let body = json!({"prompt": [5, 6, 7], "return_token_ids": true, "max_tokens": 4,
        "ignore_eos": true, "temperature": 0});
    let answer = server.client().post(PATH, &body).json();
    assert_eq!(
        answer["choices"][0]["token_ids"].as_array().unwrap().len(),
        4
    );
    let prompt_ids = &answer["choices"][0]["prompt_token_ids"];
    assert_eq!(prompt_ids, &json!([5, 6, 7]), "{answer}");
}

#[test]
fn stop_token_ids_stop_and_say_so() {
    let server = serve_mini(&[]);
    let ask = |more: Value| {
        let mut body = json!({"prompt": "A dog", "temperature": 0, "ignore_eos": true,
            "max_tokens": 12, "return_token_ids": true});
        body.as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        server.client().post(PATH, &body).json()["choices"][0].clone()
    };
    let free = ask(json!({}));
    let third = free["token_ids"][2].as_u64().unwrap();
    let first_at = free["token_ids"]
        .as_array()
        .unwrap()
        .iter()
        .position(|t| t == third)
        .unwrap();
    let stopped = ask(json!({"stop_token_ids": [third]}));
    assert_eq!(stopped["finish_reason"], "stop");
    assert_eq!(stopped["stop_reason"], third);
    assert_eq!(stopped["token_ids"].as_array().unwrap().len(), first_at + 1);
}

#[test]
fn echo_with_logprobs_covers_the_prompt() {
    // What lm-eval sends to score a text.
    let server = serve_mini(&[]);
    let body = json!({"prompt": [[5, 6, 7, 8]], "echo": true, "logprobs": 1, "max_tokens": 1,
        "temperature": 0, "seed": 1234});
    let answer = server.client().post(PATH, &body).json();
    let logprobs = &answer["choices"][0]["logprobs"];
    let values = logprobs["token_logprobs"]
        .as_array()
        .unwrap_or_else(|| panic!("{answer}"));
    assert_eq!(values.len(), 5, "four prompt tokens and one drawn");
    assert!(values[0].is_null(), "nothing comes before the first token");
    assert!(
        values[1..]
            .iter()
            .all(|v| v.as_f64().is_some_and(|v| v <= 0.0)),
        "{values:?}"
    );
    assert_eq!(logprobs["top_logprobs"].as_array().unwrap().len(), 5);
    assert_eq!(logprobs["tokens"].as_array().unwrap().len(), 5);
}

#[test]
fn penalties_and_bias_change_what_is_drawn() {
    let server = serve_mini(&[]);
    let ask = |more: Value| {
        let mut body = json!({"prompt": "the the the", "temperature": 0, "ignore_eos": true,
            "max_tokens": 30, "return_token_ids": true});
        body.as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        let answer = server.client().post(PATH, &body).json();
        answer["choices"][0]["token_ids"]
            .as_array()
            .unwrap_or_else(|| panic!("{answer}"))
            .clone()
    };
    let biased = ask(json!({"logit_bias": {"42": 100}}));
    assert!(biased.iter().all(|id| id == 42), "{biased:?}");
    let penalised = ask(json!({"logit_bias": {"42": 5}, "presence_penalty": 2.0,
        "frequency_penalty": 2.0, "repetition_penalty": 3.0}));
    let times = |ids: &[Value]| ids.iter().filter(|id| **id == 42).count();
    assert!(times(&penalised) < times(&biased), "{penalised:?}");
    let only = ask(json!({"allowed_token_ids": [42, 43], "temperature": 1.0, "seed": 3}));
    assert!(only.iter().all(|id| id == 42 || id == 43), "{only:?}");
}
