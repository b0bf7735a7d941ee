//! `hotspare reload`: asks a running server to serve another model, or its own one afresh.
//!
//! Invariant: status 0 once the new model serves; otherwise the server's reason, and its old model
//! is served.

use std::process::ExitCode;
use std::time::Duration;

use serde_json::{Value, json};

use crate::cli::ReloadArgs;
use crate::{fail, print_result};

/// Asks, waits, and says what came of it.
pub(crate) fn run(args: &ReloadArgs) -> ExitCode {
    match reload(args) {
        Ok(model) => print_result(&format!("{model} is served")),
        Err(message) => {
            // A refusal is no mistake in the arguments.
            fail(&message);
            ExitCode::FAILURE
        }
    }
}

fn reload(args: &ReloadArgs) -> Result<String, String> {
    let url = format!("{}/ha/reload", args.server.url.trim_end_matches('/'));
    let config = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .timeout_global(Some(Duration::from_secs(args.timeout)))
        .build();
    let agent: ureq::Agent = config.into();
    let mut request = agent.post(&url).header("content-type", "application/json");
    if let Some(key) = &args.server.admin_key {
        request = request.header("authorization", format!("Bearer {}", key.reveal()));
    }
    let body = match &args.model {
        Some(model) => json!({"model": model}),
        None => json!({}),
    };
    let unreachable = |error: ureq::Error| format!("{url}: {error}");
    let mut response = request.send(body.to_string()).map_err(unreachable)?;
    let status = response.status().as_u16();
    let text = response.body_mut().read_to_string().map_err(unreachable)?;
    let answer: Value = serde_json::from_str(&text).unwrap_or_default();
    match (status, answer["model"].as_str()) {
        (200, Some(model)) => Ok(model.to_owned()),
        _ => {
            let why = answer["error"]["message"].as_str();
            Err(format!("{url}: {status}: {}", why.unwrap_or(text.trim())))
        }
    }
}
