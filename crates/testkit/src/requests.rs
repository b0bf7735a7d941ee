//! Requests that together use every feature of the API: whatever must not change an answer is
//! tried on all of them. A feature that is added adds its row.
//!
//! Rows that need text or ids which the model really writes take them from a probe, so that the
//! table serves any model with a tokenizer.
//!
//! Invariant: the answer to a row is a function of the row and the model: greedy or seeded.

use serde_json::{Map, Value, json};

const COMPLETIONS: &str = "/v1/completions";
const CHAT: &str = "/v1/chat/completions";

/// Tokens of most answers.
pub const NUM_TOKENS: usize = 8;

/// One request.
#[derive(Clone, Debug)]
pub struct RequestRow {
    /// What it is for.
    pub name: String,
    /// Its endpoint.
    pub path: &'static str,
    /// Its body.
    pub body: Value,
    /// Choices in all: prompts times `n`.
    pub num_sequences: u64,
}

/// What the model writes after the table's prompt, greedily.
#[derive(Clone, Debug)]
pub struct Probe {
    /// The text.
    pub text: String,
    /// The ids, [`NUM_TOKENS`] of them.
    pub token_ids: Vec<u32>,
}

impl Probe {
    /// The request that asks for it.
    pub fn request() -> RequestRow {
        let body = json!({"prompt": PROMPT, "max_tokens": NUM_TOKENS, "temperature": 0,
            "ignore_eos": true, "return_token_ids": true});
        RequestRow {
            name: "probe".to_owned(),
            path: COMPLETIONS,
            body,
            num_sequences: 1,
        }
    }

    /// From the answer.
    ///
    /// # Panics
    /// Where it is none.
    pub fn from_answer(answer: &Value) -> Self {
        let choice = &answer["choices"][0];
        let ids = choice["token_ids"].as_array().expect("ids were asked for");
        let ids = ids.iter().map(|id| id.as_u64().expect("an id") as u32);
        Self {
            text: choice["text"].as_str().expect("a text").to_owned(),
            token_ids: ids.collect(),
        }
    }

    /// Characters from the middle of the text, across a token's end where it can be.
    fn stop_string(&self) -> String {
        let chars: Vec<char> = self.text.chars().collect();
        let middle = chars.len() / 2;
        let window = &chars[middle.min(chars.len().saturating_sub(2))..];
        let window: String = window.iter().take(2).collect();
        if window.is_empty() {
            "a".to_owned()
        } else {
            window
        }
    }
}

const PROMPT: &str = "Once upon a time there was a";

/// What tells a row from the plain one.
fn features(probe: &Probe) -> Vec<(&'static str, Value)> {
    let stop = probe.stop_string();
    // It begins as the text goes on and never comes to its end.
    let held_back = format!("{stop}\u{1}never");
    let [early, late] = [probe.token_ids[1], probe.token_ids[5]];
    let warm = |more: Value| with(json!({"temperature": 1.0, "seed": 11}), more);
    vec![
        ("greedy", json!({})),
        ("seeded", warm(json!({}))),
        (
            "filters",
            warm(json!({"top_k": 20, "top_p": 0.9, "min_p": 0.02})),
        ),
        (
            "repetition penalty",
            warm(json!({"repetition_penalty": 1.4})),
        ),
        (
            "greedy penalties",
            json!({"frequency_penalty": 1.5, "presence_penalty": 0.7}),
        ),
        (
            "all penalties",
            warm(json!({"frequency_penalty": 0.5, "presence_penalty": -0.7,
                "repetition_penalty": 1.1})),
        ),
        (
            "logit bias",
            json!({"logit_bias": {early.to_string(): -100, "5": 3.5}}),
        ),
        ("stop token", json!({"stop_token_ids": [late]})),
        (
            "stop token and min tokens",
            json!({"stop_token_ids": [early, late], "min_tokens": 4}),
        ),
        ("stop string", json!({"stop": stop})),
        (
            "included stop string",
            json!({"stop": [stop, "unmet"], "include_stop_str_in_output": true}),
        ),
        ("held back text", json!({"stop": [held_back]})),
        (
            "stop string and min tokens",
            json!({"stop": [stop, held_back], "min_tokens": 6}),
        ),
        (
            "special tokens",
            json!({"skip_special_tokens": false, "ignore_eos": false}),
        ),
        ("end of sequence", warm(json!({"ignore_eos": false}))),
        ("ids", json!({"return_token_ids": true})),
        ("salt", json!({"cache_salt": "pepper"})),
        ("priority", json!({"priority": -5})),
        ("one token", json!({"max_tokens": 1})),
        ("several choices", warm(json!({"n": 3}))),
        (
            "several choices that stop",
            warm(json!({"n": 2, "stop": stop})),
        ),
        (
            "allowed ids",
            warm(json!({"allowed_token_ids": probe.token_ids, "frequency_penalty": 1.0})),
        ),
        ("truncated prompt", json!({"truncate_prompt_tokens": 3})),
    ]
}

/// Features of completions alone.
fn completion_features() -> Vec<(&'static str, Value)> {
    vec![
        ("log-probabilities", json!({"logprobs": 0})),
        (
            "top log-probabilities",
            json!({"logprobs": 3, "temperature": 1.0, "seed": 5}),
        ),
        (
            "log-probabilities by id",
            json!({"logprobs": 1, "return_tokens_as_token_ids": true}),
        ),
        ("echo", json!({"echo": true})),
        (
            "echo with log-probabilities",
            json!({"echo": true, "logprobs": 2}),
        ),
        ("prompt ids", json!({"prompt": [9, 8, 7, 6, 5]})),
        (
            "several prompts",
            json!({"prompt": ["A dog", "A cat sat"], "n": 2, "temperature": 1.0, "seed": 3}),
        ),
    ]
}

/// Features of chat alone.
fn chat_features() -> Vec<(&'static str, Value)> {
    vec![
        ("log-probabilities", json!({"logprobs": true})),
        (
            "top log-probabilities",
            json!({"logprobs": true, "top_logprobs": 3, "temperature": 1.0, "seed": 5}),
        ),
        ("echo", json!({"echo": true})),
        (
            "completion tokens",
            json!({"max_tokens": null, "max_completion_tokens": 5}),
        ),
    ]
}

/// What only answers that are not streamed have.
fn whole_features() -> Vec<(&'static str, Value)> {
    vec![
        ("prompt log-probabilities", json!({"prompt_logprobs": 1})),
        ("prompt text", json!({"return_prompt_text": true})),
    ]
}

/// What only streams have.
fn stream_features() -> Vec<(&'static str, Value)> {
    let usage = json!({"stream_options": {"include_usage": true}});
    let continuous = json!({"n": 2, "temperature": 1.0, "seed": 4,
        "stream_options": {"include_usage": true, "continuous_usage_stats": true}});
    vec![("usage", usage), ("continuous usage", continuous)]
}

fn with(mut body: Value, more: Value) -> Value {
    if let (Some(body), Value::Object(more)) = (body.as_object_mut(), more) {
        body.extend(more);
    }
    body
}

fn row(path: &'static str, is_stream: bool, name: &str, more: Value) -> RequestRow {
    let prompt = match path {
        CHAT => json!({"messages": [{"role": "user", "content": PROMPT}]}),
        _ => json!({"prompt": PROMPT}),
    };
    let mut body = json!({"max_tokens": NUM_TOKENS, "temperature": 0, "ignore_eos": true});
    body = with(with(body, prompt), more);
    if is_stream {
        body = with(body, json!({"stream": true}));
    }
    let num_prompts = match &body["prompt"] {
        Value::Array(prompts) if prompts.iter().all(Value::is_string) => prompts.len() as u64,
        _ => 1,
    };
    let kind = if is_stream { "streamed" } else { "whole" };
    let endpoint = path.rsplit('/').next().unwrap_or_default();
    RequestRow {
        name: format!("{name}, {kind} {endpoint}"),
        path,
        num_sequences: num_prompts * body["n"].as_u64().unwrap_or(1),
        body,
    }
}

/// The table: every feature streamed, and whole where that is another path through the server.
pub fn requests(probe: &Probe) -> Vec<RequestRow> {
    let mut rows = Vec::new();
    for (name, more) in features(probe) {
        rows.push(row(COMPLETIONS, true, name, more.clone()));
        // Chat has its own way of writing, and the same way of drawing.
        rows.push(row(CHAT, rows.len() % 4 == 1, name, more));
    }
    for (i, (name, more)) in completion_features().into_iter().enumerate() {
        rows.push(row(COMPLETIONS, true, name, more.clone()));
        if i % 2 == 0 {
            rows.push(row(COMPLETIONS, false, name, more));
        }
    }
    for (name, more) in chat_features() {
        rows.push(row(CHAT, true, name, more.clone()));
        rows.push(row(CHAT, false, name, more));
    }
    for (name, more) in whole_features() {
        rows.push(row(COMPLETIONS, false, name, more.clone()));
        if name != "prompt text" {
            rows.push(row(CHAT, false, name, more));
        }
    }
    for (name, more) in stream_features() {
        rows.push(row(COMPLETIONS, true, name, more.clone()));
        rows.push(row(CHAT, true, name, more));
    }
    rows
}

/// The bytes of an answer without what differs from request to request: its id and its time, which
/// must be the same throughout, and comments.
///
/// # Panics
/// Where the id or the time changes within the answer.
pub fn masked(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body);
    let lines = text.split_inclusive('\n');
    let mut out: String = lines.filter(|line| !line.starts_with(':')).collect();
    for (key, end) in [("\"id\":\"", '"'), ("\"created\":", ',')] {
        let Some(start) = out.find(key) else { continue };
        let value: String = out[start + key.len()..]
            .chars()
            .take_while(|&c| c != end)
            .collect();
        let field = format!("{key}{value}{end}");
        assert_eq!(
            out.matches(&field).count(),
            out.matches(key).count(),
            "{out}"
        );
        out = out.replace(&field, &format!("{key}MASKED{end}"));
    }
    out
}

/// Fields of `body` that a request must not have to be answered whole.
pub fn unstreamed(body: &Value) -> Value {
    let mut fields: Map<String, Value> = body.as_object().cloned().unwrap_or_default();
    fields.remove("stream");
    fields.remove("stream_options");
    Value::Object(fields)
}
