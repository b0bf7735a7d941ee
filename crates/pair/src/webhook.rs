//! A hook that is a web address: the event as JSON, by POST.
//!
//! `https` works where the binary is built with TLS for its hub client, which `hotspare` is.
//!
//! Invariant: redirects are not followed, and an answer's body is not read.

use std::time::Duration;

use crate::hooks::HookEvent;

pub(crate) async fn post(url: &str, event: &HookEvent, timeout_ms: u64) -> Result<(), String> {
    let text = |error: reqwest::Error| error.without_url().to_string();
    let client = reqwest::Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .timeout(Duration::from_millis(timeout_ms))
        .build()
        .map_err(text)?;
    let body = serde_json::to_vec(event).map_err(|error| error.to_string())?;
    let answer = client
        .post(url)
        .header("content-type", "application/json")
        .body(body)
        .send()
        .await
        .map_err(text)?;
    let status = answer.status();
    if status.is_success() {
        Ok(())
    } else {
        Err(format!("it answered {status}"))
    }
}
