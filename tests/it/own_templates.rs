//! Chat templates that requests bring, on a server that trusts its clients with them.
//!
//! Invariant: what one of them takes is bounded by the operating system, and costs nobody else.

use serde_json::json;

use crate::support::{chat, serve_mini};

/// Doubles a string in each turn, up to a petabyte.
const DOUBLING: &str = "{% set ns = namespace(s='x' * 1000) %}{% for i in range(40) %}\
    {% set ns.s = ns.s ~ ns.s %}{% endfor %}{{ ns.s | length }}";

/// Few instructions, each of which takes long.
const SLOW: &str = "{% set s = 'x' * 5000000 %}{% for i in range(100000) %}\
    {% set t = s | replace('x', 'y') %}{% endfor %}";

#[test]
fn memory_and_time_are_bounded_by_the_operating_system() {
    let server = serve_mini(&[
        "--trust-request-chat-template",
        "--max-request-template-memory-bytes",
        "64M",
        "--request-template-timeout-s",
        "1",
    ]);
    let client = server.client();
    let ask = |template: &str| {
        let body = json!({"messages": [{"role": "user", "content": "Grüße \u{1}"}],
            "chat_template": template, "return_prompt_text": true});
        client.post("/tokenize", &body)
    };
    for template in [DOUBLING, SLOW] {
        let refused = ask(template);
        assert_eq!(refused.status, 400, "{}", refused.text());
        let limit = "67108864 bytes of memory or 1 s";
        assert!(refused.text().contains(limit), "{}", refused.text());
    }
    let fits = ask("<{{ bos_token is string }} {{ messages[0].content }}>");
    assert_eq!(fits.json()["prompt_text"], "<True Grüße \u{1}>");
    let raised = ask("{{ raise_exception('not like this') }}");
    assert_eq!(raised.status, 400);
    assert!(raised.text().contains("not like this"), "{}", raised.text());
    let reply = client.post("/v1/chat/completions", &chat("Hello"));
    assert_eq!(reply.status, 200);
}
