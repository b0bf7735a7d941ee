//! Chat templates that requests bring, on a server that trusts them: they may not hold up others.

use serde_json::{Value, json};

use crate::rig::{Rig, RigOptions};

fn trusting() -> RigOptions {
    let mut options = RigOptions::default();
    options.http.trust_request_chat_template = true;
    options
}

fn with_template(template: &str) -> Value {
    json!({"messages": [{"role": "user", "content": "a"}], "chat_template": template,
        "max_tokens": 1, "return_prompt_text": true})
}

const LOOP: &str = "{% for i in range(90000) %}{% for j in range(90000) %}{% set x = i %}\
    {% endfor %}{% endfor %}";

#[tokio::test(flavor = "multi_thread")]
async fn what_they_print_and_run_is_bounded() {
    let mut options = trusting();
    options.http.max_request_template_output_bytes = 1_000;
    options.http.max_request_template_fuel = 10_000;
    let rig = Rig::start(options).await;
    for path in ["/tokenize", "/v1/chat/completions"] {
        for (template, limit) in [
            ("{{ 'x' * 1001 }}", "1000 bytes of output"),
            (LOOP, "10000 instructions"),
        ] {
            let refused = rig.client().post(path, &with_template(template)).await;
            assert_eq!(refused.status, 400, "{}", refused.body);
            assert!(refused.body.contains(limit), "{}", refused.body);
        }
    }
    let fits = with_template("{{ 'x' * 200 }}");
    let answer = rig.client().post("/tokenize", &fits).await.json();
    assert_eq!(answer["prompt_text"], "x".repeat(200));
}

/// The server and this test share one thread: what runs on it keeps both waiting.
#[tokio::test(flavor = "current_thread")]
async fn they_do_not_run_where_connections_are_served() {
    let mut options = trusting();
    options.http.max_request_template_fuel = 20_000_000;
    let rig = Rig::start(options).await;
    for path in ["/tokenize", "/v1/chat/completions"] {
        let body = with_template(LOOP).to_string();
        let long = rig.client().send("POST", path, body.as_bytes()).await;
        // Enough turns for the request to be read, were it only for that.
        for _ in 0..3 {
            assert_eq!(rig.client().get("/live").await.status, 200);
        }
        let mut byte = [0];
        let answered = long.try_read(&mut byte);
        let error = answered.expect_err("the template still runs");
        assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock, "{path}");
        long.readable().await.unwrap();
        assert_eq!(long.try_read(&mut byte).unwrap(), 1);
    }
}
