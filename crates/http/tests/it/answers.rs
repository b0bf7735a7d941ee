//! Whole answers: chat, completions, models, tokenizer routes.

use hotspare_engine::ScriptedOptions;
use serde_json::{Value, json};

use crate::rig::{Rig, RigOptions};

fn chat(fields: Value) -> Value {
    let mut body = json!({"messages": [{"role": "user", "content": "hi"}], "max_tokens": 12});
    for (key, value) in fields.as_object().unwrap() {
        body[key] = value.clone();
    }
    body
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chat_completion_is_complete() {
    let rig = Rig::start(RigOptions::default()).await;
    let client = rig.client().with_header("X-Request-Id: abc");
    let reply = client
        .post("/v1/chat/completions", &chat(json!({"seed": 1})))
        .await;
    assert_eq!(reply.status, 200, "{}", reply.body);
    assert_eq!(reply.header("x-request-id"), Some("abc"));
    assert_eq!(reply.header("x-hotspare-node"), Some("test-node"));
    assert_eq!(reply.header("x-hotspare-epoch"), Some("0"));
    let body = reply.json();
    assert_eq!(body["id"], "chatcmpl-abc");
    assert_eq!(body["object"], "chat.completion");
    assert_eq!(body["model"], "toy");
    let choice = &body["choices"][0];
    assert_eq!(choice["message"]["role"], "assistant");
    let content = choice["message"]["content"].as_str().unwrap();
    assert_eq!(content.len(), 12, "one character a token");
    assert_eq!(choice["finish_reason"], "length");
    // "[user]hi[assistant]" has 19 characters.
    assert_eq!(
        body["usage"],
        json!({"prompt_tokens": 19, "completion_tokens": 12, "total_tokens": 31})
    );
    let fingerprint = body["system_fingerprint"].as_str().unwrap();
    assert!(fingerprint.starts_with("hotspare-"), "{fingerprint}");

    let again = rig
        .client()
        .post("/v1/chat/completions", &chat(json!({"seed": 1})))
        .await
        .json();
    assert_eq!(again["choices"][0]["message"]["content"], content);
    assert_ne!(again["id"], body["id"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn chat_shows_what_was_asked_for() {
    let rig = Rig::start(RigOptions::default()).await;
    let fields = json!({
        "n": 2, "logprobs": true, "top_logprobs": 2, "return_token_ids": true,
        "return_prompt_text": true, "prompt_logprobs": 1, "seed": 5, "max_completion_tokens": 3,
        "request_id": "mine", "echo": true, "add_generation_prompt": false,
    });
    let body = rig
        .client()
        .post("/v1/chat/completions", &chat(fields))
        .await
        .json();
    assert_eq!(body["id"], "chatcmpl-mine");
    assert_eq!(body["prompt_text"], "[user]hi");
    assert_eq!(body["prompt_token_ids"].as_array().unwrap().len(), 8);
    assert_eq!(body["prompt_logprobs"].as_array().unwrap().len(), 8);
    assert_eq!(body["prompt_logprobs"][0], Value::Null);
    assert_eq!(body["usage"]["prompt_tokens"], 8);
    assert_eq!(body["usage"]["completion_tokens"], 6);
    let choices = body["choices"].as_array().unwrap();
    assert_eq!(choices.len(), 2);
    for choice in choices {
        assert_eq!(choice["message"]["role"], "user");
        let content = choice["message"]["content"].as_str().unwrap();
        let answer = content.strip_prefix("hi").expect("the echoed message");
        let items = choice["logprobs"]["content"].as_array().unwrap();
        assert_eq!(items.len(), 3);
        let text: String = items.iter().map(|i| i["token"].as_str().unwrap()).collect();
        assert_eq!(text, answer);
        assert_eq!(items[0]["top_logprobs"].as_array().unwrap().len(), 2);
        assert_eq!(items[0]["bytes"], json!([answer.as_bytes()[0]]));
        assert_eq!(choice["token_ids"].as_array().unwrap().len(), 3);
    }
    assert_ne!(choices[0]["token_ids"], choices[1]["token_ids"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn ends_are_told_apart() {
    let rig = Rig::start(RigOptions {
        scripted: ScriptedOptions {
            finish_after_tokens: Some(4),
            ..RigOptions::default().scripted
        },
        ..RigOptions::default()
    })
    .await;
    let client = rig.client();
    let ask = async |fields: Value| {
        let reply = client.post("/v1/completions", &fields).await;
        reply.json()["choices"][0].clone()
    };
    let eos = ask(json!({"prompt": "a", "temperature": 0, "max_tokens": 9})).await;
    assert_eq!(
        (&eos["finish_reason"], &eos["stop_reason"]),
        (&json!("stop"), &Value::Null)
    );
    let text = eos["text"].as_str().unwrap();
    assert_eq!(text.len(), 4, "the end token leaves no text");
    let ignored = json!({"prompt": "a", "temperature": 0, "max_tokens": 9, "ignore_eos": true});
    assert_eq!(ask(ignored).await["finish_reason"], "length");
    let stop = &text[2..3];
    let stopped =
        ask(json!({"prompt": "a", "temperature": 0, "max_tokens": 9, "stop": stop})).await;
    assert_eq!(stopped["finish_reason"], "stop");
    assert_eq!(stopped["stop_reason"], stop);
    assert_eq!(stopped["text"], text[..text.find(stop).unwrap()]);
}

#[tokio::test(flavor = "multi_thread")]
async fn prompts_and_choices_are_numbered_together() {
    let rig = Rig::start(RigOptions::default()).await;
    let client = rig.client();
    let body = json!({"prompt": ["ab", "cde"], "n": 2, "seed": 3, "max_tokens": 4, "echo": true});
    let answer = client.post("/v1/completions", &body).await.json();
    assert_eq!(answer["object"], "text_completion");
    let texts: Vec<&str> = answer["choices"]
        .as_array()
        .unwrap()
        .iter()
        .map(|choice| choice["text"].as_str().unwrap())
        .collect();
    assert_eq!(texts.len(), 4);
    assert!(
        texts[..2]
            .iter()
            .all(|text| text.starts_with("ab") && text.len() == 6)
    );
    assert!(
        texts[2..]
            .iter()
            .all(|text| text.starts_with("cde") && text.len() == 7)
    );
    assert_eq!(
        answer["usage"],
        json!({"prompt_tokens": 5, "completion_tokens": 16, "total_tokens": 21})
    );
    let alone = json!({"prompt": "cde", "n": 2, "seed": 3, "max_tokens": 4, "echo": true});
    let alone = client.post("/v1/completions", &alone).await.json();
    assert_eq!(alone["choices"][1]["text"], texts[3]);
}

#[tokio::test(flavor = "multi_thread")]
async fn loglikelihoods_line_up_with_the_prompt() {
    let rig = Rig::start(RigOptions::default()).await;
    let client = rig.client();
    // As lm-eval asks.
    let body = json!({"prompt": [[5, 6, 7, 8], [9, 10]], "echo": true, "logprobs": 1,
        "max_tokens": 1, "temperature": 0, "seed": 1234});
    let answer = client.post("/v1/completions", &body).await.json();
    for (index, len) in [(0, 5), (1, 3)] {
        let logprobs = &answer["choices"][index]["logprobs"];
        for key in ["tokens", "token_logprobs", "top_logprobs", "text_offset"] {
            assert_eq!(logprobs[key].as_array().unwrap().len(), len, "{key}");
        }
        for key in ["token_logprobs", "top_logprobs"] {
            let values = logprobs[key].as_array().unwrap();
            assert!(values[0].is_null());
            assert!(values[1..].iter().all(|value| !value.is_null()), "{key}");
        }
        let text = answer["choices"][index]["text"].as_str().unwrap();
        let tokens = logprobs["tokens"].as_array().unwrap();
        let joined: String = tokens.iter().map(|token| token.as_str().unwrap()).collect();
        assert_eq!(joined, text);
    }
    let only = json!({"prompt": [[5, 6]], "echo": true, "logprobs": 0, "max_tokens": 0});
    let answer = client.post("/v1/completions", &only).await.json();
    assert_eq!(answer["choices"][0]["text"], "\"#");
    let tokens = &answer["choices"][0]["logprobs"]["tokens"];
    assert_eq!(tokens, &json!(["\"", "#"]));
    assert_eq!(answer["usage"]["completion_tokens"], 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn models_are_listed_by_every_name() {
    let rig = Rig::start(RigOptions::default()).await;
    let client = rig.client();
    let list = client.get("/v1/models").await.json();
    assert_eq!(list["data"][0]["id"], "toy");
    assert_eq!(list["data"][1]["id"], "org/alias");
    assert_eq!(list["data"][0]["max_model_len"], 256);
    let one = client.get("/v1/models/org/alias").await;
    assert_eq!((one.status, &one.json()["id"]), (200, &json!("org/alias")));
    let one = client.get("/v1/models/org%2Falias").await;
    assert_eq!((one.status, &one.json()["id"]), (200, &json!("org/alias")));
    let none = client.get("/v1/models/x").await;
    assert_eq!(none.status, 404);
    assert_eq!(none.json()["error"]["type"], "NotFoundError");
    let alias = chat(json!({"model": "org/alias"}));
    assert_eq!(
        client.post("/v1/chat/completions", &alias).await.status,
        200
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn tokenize_shows_what_chat_runs_on() {
    let rig = Rig::start(RigOptions::default()).await;
    let client = rig.client();
    let tool = json!({"type": "function", "function": {"name": "f"}});
    let body = json!({"messages": [{"role": "user", "content": [{"type": "text", "text": "a"}]}],
        "tools": [tool], "return_prompt_text": true, "return_token_strs": true});
    let answer = client.post("/tokenize", &body).await.json();
    let text = "[user]a[tools]f[assistant]";
    assert_eq!(answer["prompt_text"], text);
    assert_eq!(answer["count"], text.len());
    assert_eq!(answer["max_model_len"], 256);
    assert_eq!(answer["token_strs"][1], "u");
    let ids = answer["tokens"].clone();
    let back = client.post("/detokenize", &json!({"tokens": ids})).await;
    assert_eq!(back.json(), json!({"prompt": text}));
    let plain = client.post("/tokenize", &json!({"prompt": " ~"})).await;
    assert_eq!(
        plain.json(),
        json!({"count": 2, "max_model_len": 256, "tokens": [3, 97], "token_strs": null})
    );
    let chat = json!({"messages": [{"role": "user", "content": "a"}], "tools": [tool],
        "tool_choice": "none", "max_tokens": 1, "return_prompt_text": true});
    let chat = client.post("/v1/chat/completions", &chat).await.json();
    assert_eq!(chat["prompt_text"], text);
}

#[tokio::test(flavor = "multi_thread")]
async fn templates_of_requests_need_trust() {
    let body = json!({"messages": [{"role": "user", "content": "a"}], "return_prompt_text": true,
        "chat_template": "<{{ messages[0].content }}{{ x }}>", "chat_template_kwargs": {"x": 1}});
    let rig = Rig::start(RigOptions::default()).await;
    let refused = rig.client().post("/tokenize", &body).await;
    assert_eq!(refused.status, 400);
    let mut options = RigOptions::default();
    options.http.trust_request_chat_template = true;
    let rig = Rig::start(options).await;
    let answer = rig.client().post("/tokenize", &body).await.json();
    assert_eq!(answer["prompt_text"], "<a1>");
    for template in ["{{ raise_exception('no such role') }}", "{% if"] {
        let mut body = body.clone();
        body["chat_template"] = json!(template);
        let refused = rig.client().post("/tokenize", &body).await;
        assert_eq!(refused.status, 400, "{}", refused.body);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ids_go_in_and_out_without_a_tokenizer() {
    let rig = Rig::start(RigOptions {
        with_text: false,
        ..RigOptions::default()
    })
    .await;
    let client = rig.client();
    let body = json!({"prompt": [5, 6], "return_token_ids": true, "max_tokens": 3, "logprobs": 0,
        "temperature": 0});
    let answer = client.post("/v1/completions", &body).await.json();
    let choice = &answer["choices"][0];
    let ids = choice["token_ids"].as_array().unwrap();
    assert_eq!(ids.len(), 3);
    assert_eq!(choice["prompt_token_ids"], json!([5, 6]));
    assert_eq!(choice["text"], "");
    let name = format!("token_id:{}", ids[0]);
    assert_eq!(choice["logprobs"]["tokens"][0], name.as_str());
    let mut streamed = body.clone();
    streamed["stream"] = json!(true);
    let events = client.post("/v1/completions", &streamed).await.events();
    let of_events: Vec<Value> = events
        .iter()
        .flat_map(|event| event["choices"][0]["token_ids"].as_array().unwrap().clone())
        .collect();
    assert_eq!(&of_events, ids);
    for (path, body) in [
        (
            "/v1/chat/completions",
            chat(json!({"return_token_ids": true})),
        ),
        ("/tokenize", json!({"prompt": "a"})),
        (
            "/v1/completions",
            json!({"prompt": "a", "return_token_ids": true}),
        ),
    ] {
        let refused = client.post(path, &body).await;
        assert_eq!(refused.status, 400);
        assert!(
            refused.body.contains("--skip-tokenizer-init"),
            "{}",
            refused.body
        );
    }
}
