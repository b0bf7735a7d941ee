//! Everything that is refused: in the right shape, and the server goes on.

use serde_json::{Value, json};

use crate::rig::{Rig, RigOptions, endless, eventually};

const CHAT: &str = "/v1/chat/completions";

fn hello() -> Value {
    json!({"messages": [{"role": "user", "content": "hi"}], "max_tokens": 2})
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_requests_are_4xx_and_the_server_goes_on() {
    let rig = Rig::start(RigOptions::default()).await;
    let client = rig.client();
    let content =
        |text: &str| format!("{{\"messages\":[{{\"role\":\"user\",\"content\":\"{text}\"}}]}}");
    let with =
        |field: &str| format!("{{\"messages\":[{{\"role\":\"user\",\"content\":\"a\"}}],{field}}}");
    let cases: Vec<(u16, &str, String)> = vec![
        (400, "Bad Request", "{".into()),
        (400, "Bad Request", String::new()),
        (400, "Bad Request", "[]".into()),
        (400, "Bad Request", "{\"messages\":\"hi\"}".into()),
        (400, "Bad Request", "{}".into()),
        (400, "Bad Request", with("\"temperature\":NaN")),
        (400, "Bad Request", with("\"temperature\":\"hot\"")),
        (400, "BadRequestError", with("\"temperature\":3")),
        (400, "BadRequestError", with("\"top_p\":0")),
        (
            400,
            "BadRequestError",
            with("\"min_tokens\":2,\"allowed_token_ids\":[1]"),
        ),
        (400, "Bad Request", content("\u{1}")),
        (400, "Bad Request", content("\\ud800")),
        (400, "Bad Request", "[".repeat(100_000)),
        (404, "NotFoundError", with("\"model\":\"nope\"")),
        (400, "BadRequestError", content(&"a".repeat(300))),
        (501, "NotImplementedError", with("\"use_beam_search\":true")),
        (413, "BadRequestError", content(&"a".repeat(10 << 20))),
    ];
    for (status, kind, body) in cases {
        let reply = client.request("POST", CHAT, body.as_bytes()).await;
        assert_eq!(reply.status, status, "{:.80}: {}", body, reply.body);
        let error = &reply.json()["error"];
        assert_eq!(error["type"], kind, "{error}");
        assert_eq!(error["code"], status);
        assert!(error["message"].as_str().unwrap().len() > 10);
    }
    assert_eq!(client.post(CHAT, &hello()).await.status, 200);
    assert_eq!(rig.front().server_load(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn prompts_are_measured_before_they_run() {
    let rig = Rig::start(RigOptions::default()).await;
    let client = rig.client();
    let complete = async |prompt: Value| {
        let body = json!({"prompt": prompt, "max_tokens": 1});
        client.post("/v1/completions", &body).await
    };
    assert_eq!(complete(json!("a".repeat(255))).await.status, 200);
    let full = complete(json!("a".repeat(256))).await;
    assert_eq!(full.status, 400);
    assert!(
        full.body.contains("The decoder prompt (length 256)"),
        "{}",
        full.body
    );
    let ids = complete(json!(vec![5; 300])).await;
    assert!(
        ids.body.contains("your prompt contains 300 input tokens"),
        "{}",
        ids.body
    );
    assert_eq!(ids.json()["error"]["param"], "input_tokens");
    // No token is longer than "<unk>".
    let chars = complete(json!("a".repeat(256 * 5 + 1))).await;
    assert!(chars.body.contains("1281 characters"), "{}", chars.body);
    assert_eq!(chars.json()["error"]["param"], "input_text");
    let cut = json!({"prompt": "a".repeat(3000), "max_tokens": 1, "truncate_prompt_tokens": 10});
    let cut = client.post("/v1/completions", &cut).await.json();
    assert_eq!(cut["usage"]["prompt_tokens"], 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_tokenizing_and_stop_strings_cost_is_bounded() {
    let mut options = RigOptions::default();
    options.http.max_unsplit_text_bytes = 20_000;
    options.http.max_stop_string_bytes = 10;
    let rig = Rig::start(options).await;
    let client = rig.client();
    // This tokenizer does not split words, so that its texts cannot be cut.
    let tokenize = async |len| {
        let body = json!({"prompt": "a".repeat(len)});
        client.post("/tokenize", &body).await
    };
    assert_eq!(tokenize(20_000).await.json()["count"], 20_000);
    let refused = tokenize(20_001).await;
    assert_eq!(refused.status, 400);
    assert!(refused.body.contains("20001 bytes"), "{}", refused.body);
    for side in ["left", "right"] {
        let cut = json!({"prompt": "a".repeat(20_001), "truncate_prompt_tokens": 5,
            "truncation_side": side, "max_tokens": 1});
        let refused = client.post("/v1/completions", &cut).await;
        assert_eq!(refused.status, 400, "{}", refused.body);
    }
    let mut chat = hello();
    let mut complete = json!({"prompt": "a", "max_tokens": 2, "n": 2});
    for (path, body) in [(CHAT, &mut chat), ("/v1/completions", &mut complete)] {
        body["stop"] = json!(["b", "c".repeat(10)]);
        assert_eq!(client.post(path, body).await.status, 200);
        body["stop"] = json!(["b", "c".repeat(11)]);
        let refused = client.post(path, body).await;
        assert_eq!(refused.status, 400);
        assert_eq!(refused.json()["error"]["param"], "stop");
        assert!(
            refused.body.contains("at most 10 bytes, got 11"),
            "{}",
            refused.body
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_paths_have_fastapis_shapes() {
    let rig = Rig::start(RigOptions::default()).await;
    let client = rig.client();
    let none = client.get("/nope").await;
    assert_eq!(
        (none.status, none.json()),
        (404, json!({"detail": "Not Found"}))
    );
    assert_eq!(none.header("x-hotspare-node"), Some("test-node"));
    let wrong = client.get(CHAT).await;
    assert_eq!(
        (wrong.status, wrong.json()),
        (405, json!({"detail": "Method Not Allowed"}))
    );
    // What is no text names no model.
    let odd = client.get("/v1/models/%ff%zz").await;
    assert_eq!(odd.status, 404);
    assert_eq!(odd.json()["error"]["type"], "NotFoundError");
    let slash = client.post("/v1/chat/completions/?a=b", &hello()).await;
    assert_eq!(slash.status, 307);
    assert_eq!(slash.header("location"), Some("/v1/chat/completions?a=b"));
    for path in ["/nope/", "/", "//v1/models/"] {
        assert_eq!(client.get(path).await.status, 404, "{path}");
    }
    let form = client.with_header("Content-Type: application/x-www-form-urlencoded");
    let refused = form.post(CHAT, &hello()).await;
    assert_eq!(refused.status, 400);
    assert!(
        refused.body.contains("application/json"),
        "{}",
        refused.body
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_guard_v1() {
    let mut options = RigOptions::default();
    options.http.api_keys = vec!["secret".into()];
    let rig = Rig::start(options).await;
    let client = rig.client();
    for path in ["/v1/models", "/v1/nope"] {
        let refused = client.get(path).await;
        assert_eq!(refused.status, 401);
        assert_eq!(refused.json(), json!({"error": "Unauthorized"}));
    }
    assert_eq!(client.post(CHAT, &hello()).await.status, 401);
    for path in [
        "/health",
        "/live",
        "/ready",
        "/version",
        "/metrics",
        "/load",
        "/ping",
        "/ha/status",
    ] {
        assert_eq!(client.get(path).await.status, 200, "{path}");
    }
    let known = client.clone().with_header("Authorization: Bearer secret");
    assert_eq!(known.post(CHAT, &hello()).await.status, 200);
    let wrong = client.with_header("Authorization: Bearer secreT");
    assert_eq!(wrong.post(CHAT, &hello()).await.status, 401);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_queue_says_when_to_come_back() {
    let mut options = endless();
    options.engine.max_num_seqs = 1;
    options.engine.max_num_waiting = 1;
    let rig = Rig::start(options).await;
    let client = rig.client();
    let long = json!({"prompt": "a", "max_tokens": 60_000}).to_string();
    let mut held = Vec::new();
    for load in 1..=2 {
        held.push(
            client
                .send("POST", "/v1/completions", long.as_bytes())
                .await,
        );
        eventually("it is in", || rig.front().server_load() == load).await;
        eventually("it runs or waits", || {
            let status = &rig.front().status().engines[0];
            u64::from(status.running + status.waiting) == load && status.running == 1
        })
        .await;
    }
    let refused = client
        .post("/v1/completions", &json!({"prompt": "a"}))
        .await;
    assert_eq!(refused.status, 503, "{}", refused.body);
    assert_eq!(refused.json()["error"]["type"], "Service Unavailable");
    assert!(refused.header("retry-after").is_some());
    assert_eq!(refused.header("x-should-retry"), Some("true"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_without_an_engine_says_so() {
    let rig = Rig::start(RigOptions {
        becomes_ready: false,
        ..RigOptions::default()
    })
    .await;
    let client = rig.client();
    assert_eq!(client.get("/live").await.status, 200);
    assert_eq!(client.get("/health").await.status, 503);
    let ready = client.get("/ready").await;
    assert_eq!((ready.status, &ready.json()["ready"]), (503, &json!(false)));
    let refused = client.post(CHAT, &hello()).await;
    assert_eq!(refused.status, 503);
    assert_eq!(refused.json()["error"]["type"], "ServiceUnavailableError");
    assert!(refused.header("retry-after").is_some());
    assert_eq!(refused.header("x-should-retry"), Some("true"));
    // What needs no engine works.
    assert_eq!(client.get("/v1/models").await.status, 200);
    assert_eq!(
        client
            .post("/tokenize", &json!({"prompt": "a"}))
            .await
            .status,
        200
    );
}
