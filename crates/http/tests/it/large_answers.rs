//! Answers much longer than their requests: complete, and never whole in memory where they are
//! sent piece by piece.

use serde_json::{Value, json};

use crate::rig::{Rig, RigOptions, eventually};

const COMPLETIONS: &str = "/v1/completions";

#[tokio::test(flavor = "multi_thread")]
async fn tokens_of_a_long_text_come_in_pieces_that_are_one_object() {
    let rig = Rig::start(RigOptions::default()).await;
    let text: String = (0..50_000u32)
        .map(|i| char::from(b' ' + (i % 95) as u8))
        .collect();
    let body = json!({"prompt": text, "return_token_strs": true, "return_prompt_text": true});
    let reply = rig.client().post("/tokenize", &body).await;
    assert_eq!(reply.status, 200);
    assert_eq!(reply.header("transfer-encoding"), Some("chunked"));
    let answer = reply.json();
    assert_eq!(answer["count"], 50_000);
    let ids: Vec<u32> = (0..50_000).map(|i| 3 + i % 95).collect();
    assert_eq!(answer["tokens"], json!(ids));
    assert_eq!(answer["prompt_text"], text);
    let strs = answer["token_strs"].as_array().unwrap();
    assert_eq!(
        (strs.len(), &strs[0], &strs[94]),
        (50_000, &json!("\u{120}"), &json!("~"))
    );

    let reply = rig
        .client()
        .post("/detokenize", &json!({"tokens": ids.repeat(3)}))
        .await;
    assert_eq!(reply.header("transfer-encoding"), Some("chunked"));
    assert_eq!(reply.json(), json!({"prompt": text.repeat(3)}));
    // A short one has a length.
    let reply = rig
        .client()
        .post("/detokenize", &json!({"tokens": [3, 4]}))
        .await;
    assert!(reply.header("content-length").is_some());
    assert_eq!(reply.json(), json!({"prompt": " !"}));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_is_not_streamed_is_bounded_in_memory() {
    let mut options = RigOptions::default();
    options.http.max_whole_answer_bytes = 10_000;
    let rig = Rig::start(options).await;
    let client = rig.client();
    let mut body = json!({"prompt": "a", "max_tokens": 200, "ignore_eos": true, "n": 3,
        "temperature": 1, "logprobs": 5});
    let refused = client.post(COMPLETIONS, &body).await;
    assert_eq!(refused.status, 400, "{}", refused.body);
    assert!(
        refused.body.contains("more than 10000 bytes"),
        "{}",
        refused.body
    );
    assert!(refused.body.contains("Stream it"), "{}", refused.body);
    eventually("what still ran is cancelled", || {
        let engine = &rig.front().status().engines[0];
        rig.front().server_load() == 0 && engine.running + engine.waiting == 0
    })
    .await;
    body["stream"] = json!(true);
    let events = client.post(COMPLETIONS, &body).await.events();
    let num_tokens: usize = events
        .iter()
        .filter_map(|event: &Value| event["choices"][0]["logprobs"]["tokens"].as_array())
        .map(Vec::len)
        .sum();
    assert_eq!(num_tokens, 600);
    body["stream"] = json!(false);
    body["logprobs"] = Value::Null;
    assert_eq!(client.post(COMPLETIONS, &body).await.status, 200);
}
