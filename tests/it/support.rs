//! What the modules share: the binary under test, servers with usual options, request bodies.
//!
//! Invariant: the binary is the one that cargo built for this run.

use std::path::Path;
use std::time::Duration;

use hotspare_testkit::{Server, ServerOptions};
use serde_json::{Value, json};

/// Long enough for anything on a loaded machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// The binary under test.
pub(crate) fn binary() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_hotspare"))
}

/// A ready server of `model`.
pub(crate) fn serve(model: &str, args: &[&str]) -> Server {
    Server::start(binary(), &ServerOptions::new(model, args))
}

/// A ready server of the small embedded model.
pub(crate) fn serve_mini(args: &[&str]) -> Server {
    serve("spark-mini", args)
}

/// A chat request of one user message.
pub(crate) fn chat(content: &str) -> Value {
    json!({"messages": [{"role": "user", "content": content}], "temperature": 0, "max_tokens": 24})
}

/// `body` with the fields of `more` set.
pub(crate) fn with(mut body: Value, more: Value) -> Value {
    if let (Some(body), Value::Object(more)) = (body.as_object_mut(), more) {
        body.extend(more);
    }
    body
}

/// The text of a streamed chat answer's choice.
pub(crate) fn streamed_text(events: &[Value], index: u64) -> String {
    events
        .iter()
        .flat_map(|event| event["choices"].as_array().cloned().unwrap_or_default())
        .filter(|choice| choice["index"] == index)
        .filter_map(|choice| {
            let delta = choice["delta"]["content"]
                .as_str()
                .or(choice["text"].as_str())?;
            Some(delta.to_owned())
        })
        .collect()
}

/// Waits until the main engine has said, after its last step, that it runs nothing, waits for
/// nothing and holds no block.
pub(crate) fn wait_idle(server: &Server) {
    hotspare_testkit::wait_until("the engine is idle", PATIENCE, || {
        let engine = server.main_engine();
        // Its own count of steps comes with its other counts; the front's is ahead of it while a
        // report is due.
        let is_told = metric(server, NUM_STEPS) >= engine["steps"].as_f64().unwrap();
        let is_idle = engine["running"] == 0 && engine["waiting"] == 0;
        is_told && is_idle && metric(server, USED_BLOCKS) == 0.0
    });
}

/// Steps that the engine has reported.
const NUM_STEPS: &str = "hotspare:engine_steps_total";

/// Share of KV blocks that live sequences hold.
pub(crate) const USED_BLOCKS: &str = "vllm:kv_cache_usage_perc";

/// Sum of a metric's samples over all labels.
pub(crate) fn metric(server: &Server, name: &str) -> f64 {
    let text = server.client().get("/metrics").text();
    let samples: Vec<f64> = text
        .lines()
        .filter(|line| {
            line.strip_prefix(name)
                .is_some_and(|rest| rest.starts_with(['{', ' ']))
        })
        .filter_map(|line| line.rsplit(' ').next()?.parse().ok())
        .collect();
    assert!(!samples.is_empty(), "{name} is exposed");
    samples.iter().sum()
}
