//! The endpoints beside generation: models, health, version, metrics, tokenize, status, keys.
//!
//! Invariant: what they say is what reference clients of vLLM read.

use hotspare_testkit::{Server, ServerOptions};
use serde_json::json;

use crate::support::{binary, chat, metric, serve_mini, wait_idle, with};

#[test]
fn models_names_the_served_model() {
    let server = serve_mini(&["--served-model-name", "small", "alias"]);
    let client = server.client();
    let models = client.get("/v1/models").json();
    assert_eq!(models["object"], "list");
    let ids: Vec<_> = models["data"]
        .as_array()
        .unwrap()
        .iter()
        .map(|m| m["id"].clone())
        .collect();
    assert_eq!(ids, [json!("small"), json!("alias")]);
    assert_eq!(models["data"][0]["object"], "model");
    assert_eq!(models["data"][0]["max_model_len"], 2048);
    assert_eq!(client.get("/v1/models/small").json()["id"], "small");
    let missing = client.get("/v1/models/absent");
    assert_eq!(missing.status, 404);
    assert_eq!(missing.json()["error"]["type"], "NotFoundError");
    let reply = client.post(
        "/v1/chat/completions",
        &with(chat("Hello"), json!({"model": "alias"})),
    );
    assert_eq!(reply.json()["model"], "small", "{}", reply.text());
}

#[test]
fn health_and_version_answer() {
    let server = serve_mini(&[]);
    let client = server.client();
    for path in ["/health", "/live", "/ready", "/ping"] {
        assert_eq!(client.get(path).status, 200, "{path}");
    }
    assert!(client.get("/version").json()["version"].is_string());
    let missing = client.get("/nothing");
    assert_eq!(
        (missing.status, missing.json()),
        (404, json!({"detail": "Not Found"}))
    );
    let method = client.get("/v1/completions");
    assert_eq!(
        (method.status, method.json()),
        (405, json!({"detail": "Method Not Allowed"}))
    );
}

#[test]
fn status_tells_node_and_engine() {
    let server = serve_mini(&[]);
    let status = server.status();
    assert!(status["node"].is_string());
    assert_eq!(status["role"], "primary-solo");
    let engine = server.main_engine();
    assert_eq!(engine["model"], "spark-mini");
    assert_eq!(engine["state"], "ready");
    assert!(hotspare_testkit::is_running(
        u32::try_from(engine["pid"].as_u64().unwrap()).unwrap()
    ));
    assert_ne!(
        engine["pid"],
        server.pid(),
        "front and engine are separate processes"
    );
    let hash = engine["model_hash"].as_str().unwrap();
    assert!(
        hash.len() >= 32 && hash.chars().all(|c| c.is_ascii_hexdigit()),
        "{hash}"
    );
    let steps = engine["steps"].as_u64().unwrap();
    server.client().post("/v1/chat/completions", &chat("Hello"));
    wait_idle(&server);
    assert!(
        server.main_engine()["steps"].as_u64().unwrap() > steps,
        "steps are progress"
    );
}

#[test]
fn metrics_count_what_was_served() {
    let server = serve_mini(&[]);
    let body = json!({"prompt": "Once upon a time", "max_tokens": 7, "ignore_eos": true});
    let usage = server.client().post("/v1/completions", &body).json()["usage"].clone();
    wait_idle(&server);
    assert_eq!(metric(&server, "vllm:generation_tokens_total"), 7.0);
    assert_eq!(
        metric(&server, "vllm:prompt_tokens_total"),
        usage["prompt_tokens"].as_f64().unwrap()
    );
    assert_eq!(metric(&server, "vllm:request_success_total"), 1.0);
    assert_eq!(metric(&server, "vllm:num_requests_running"), 0.0);
    assert_eq!(metric(&server, "vllm:num_requests_waiting"), 0.0);
    assert_eq!(
        metric(&server, "vllm:time_to_first_token_seconds_count"),
        1.0
    );
    assert_eq!(
        metric(&server, "vllm:inter_token_latency_seconds_count"),
        6.0
    );
    assert_eq!(
        metric(&server, "vllm:e2e_request_latency_seconds_count"),
        1.0
    );
    assert_eq!(metric(&server, "vllm:request_prompt_tokens_count"), 1.0);
    assert_eq!(metric(&server, "vllm:num_preemptions_total"), 0.0);
    assert!(metric(&server, "vllm:prefix_cache_queries_total") > 0.0);
}

#[test]
fn tokenize_and_detokenize_are_inverse() {
    let server = serve_mini(&[]);
    let client = server.client();
    let text = "Grüße, 3 + 4 is 7. 日本語 🦀";
    let tokens = client.post("/tokenize", &json!({"prompt": text})).json();
    assert_eq!(
        tokens["count"].as_u64().unwrap() as usize,
        tokens["tokens"].as_array().unwrap().len()
    );
    assert_eq!(tokens["max_model_len"], 2048);
    let prompt = client
        .post("/detokenize", &json!({"tokens": tokens["tokens"]}))
        .json();
    assert!(
        prompt["prompt"].as_str().unwrap().ends_with(text),
        "{prompt}"
    );
    let rendered = client
        .post(
            "/tokenize",
            &json!({"messages": [{"role": "user", "content": "Hi there"}],
                "return_prompt_text": true}),
        )
        .json();
    let rendered_text = rendered["prompt_text"]
        .as_str()
        .or(rendered["prompt"].as_str())
        .unwrap();
    assert!(
        rendered_text.contains("Hi there") && rendered_text.contains("user"),
        "{rendered}"
    );
}

#[test]
fn a_request_template_needs_trust() {
    let body = json!({
        "messages": [{"role": "user", "content": "Hi"}],
        "chat_template": "[{{ messages[0].content }}|{{ extra }}]",
        "chat_template_kwargs": {"extra": "more"},
        "return_prompt_text": true,
    });
    let refused = serve_mini(&[]).client().post("/tokenize", &body);
    assert_eq!(refused.status, 400);
    assert!(
        refused.text().contains("--trust-request-chat-template"),
        "{}",
        refused.text()
    );
    let server = serve_mini(&["--trust-request-chat-template"]);
    let trusted = server.client().post("/tokenize", &body);
    assert!(trusted.text().contains("[Hi|more]"), "{}", trusted.text());
}

#[test]
fn an_api_key_guards_v1_and_nothing_else() {
    let options = ServerOptions::new("spark-mini", &[]).env("HOTSPARE_API_KEY", "sesame");
    let server = Server::start(binary(), &options);
    let refused = server.client().get("/v1/models");
    assert_eq!(
        (refused.status, refused.json()),
        (401, json!({"error": "Unauthorized"}))
    );
    let wrong = server.client().with_header("authorization", "Bearer sesam");
    assert_eq!(wrong.get("/v1/models").status, 401);
    let right = server
        .client()
        .with_header("authorization", "Bearer sesame");
    assert_eq!(right.get("/v1/models").status, 200);
    assert_eq!(
        right.post("/v1/chat/completions", &chat("Hello")).status,
        200
    );
    for open in ["/health", "/metrics", "/version", "/ready"] {
        assert_eq!(server.client().get(open).status, 200, "{open}");
    }
    assert!(
        server
            .log_lines()
            .iter()
            .all(|line| !line.contains("sesame")),
        "no secret in the log"
    );
}

#[test]
fn responses_name_their_node() {
    let server = serve_mini(&[]);
    let client = server.client().with_header("x-request-id", "my-id-7");
    let reply = client.post("/v1/chat/completions", &chat("Hello"));
    assert_eq!(
        reply.header("x-hotspare-node"),
        server.status()["node"].as_str()
    );
    assert_eq!(reply.header("x-hotspare-epoch"), Some("0"));
}
