//! `POST /ha/reload`: another model, or the same one afresh, without losing a stream.
//!
//! Invariant: the answer is 200 once the new model serves; with any other status the old one does.

use std::time::Duration;

use axum::body::to_bytes;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use hotspare_front::FrontError;
use hotspare_protocol::ApiError;
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::app::App;
use crate::{auth, reply};

/// Bytes of a body: a name.
const MAX_BODY_BYTES: usize = 64 << 10;

/// The route.
pub(crate) async fn create(State(app): State<App>, request: Request) -> Response {
    if let Some(refusal) = auth::refuse_admin(app.config.admin_key.as_deref(), &request) {
        return reply::error(&refusal);
    }
    let patience = app.config.body_timeout();
    let model = match model_of(request, patience).await {
        Ok(model) => model,
        Err(error) => return reply::error(&error),
    };
    // On a task of its own: a reload goes on when who asked for it leaves.
    let front = app.front.clone();
    let reload = tokio::spawn(async move { front.reload(model).await });
    match reload.await {
        Ok(Ok(model)) => {
            let body = json!({"model": model, "status": "reloaded"});
            reply::json(StatusCode::OK, body.to_string())
        }
        Ok(Err(error)) => reply::error(&api_error(&error)),
        Err(panic) => {
            tracing::error!(%panic, "a reload failed");
            reply::error(&ApiError::internal("The reload failed."))
        }
    }
}

/// The body's `model`; none in an empty body.
async fn model_of(request: Request, patience: Duration) -> Result<Option<String>, ApiError> {
    let bad = |why: &str| Err(ApiError::bad_request(why.to_owned()));
    let body = match timeout(patience, to_bytes(request.into_body(), MAX_BODY_BYTES)).await {
        Ok(Ok(body)) => body,
        Ok(Err(_)) => return bad("the body is too long, or was cut"),
        Err(_) => return bad("the body took too long"),
    };
    if body.trim_ascii().is_empty() {
        return Ok(None);
    }
    let body: Value = match serde_json::from_slice(&body) {
        Ok(body) => body,
        Err(error) => return bad(&format!("the body is not JSON: {error}")),
    };
    match body.get("model") {
        _ if !body.is_object() => bad("the body must be an object, such as {\"model\": \"spark\"}"),
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(model)) if !model.is_empty() => Ok(Some(model.clone())),
        Some(_) => bad("model must be a name"),
    }
}

fn api_error(error: &FrontError) -> ApiError {
    const CONFLICT: u16 = 409;
    const RETRY_AFTER_S: u32 = 2;
    match error {
        FrontError::Stopping => ApiError::not_ready("it is shutting down", RETRY_AFTER_S),
        FrontError::ReloadBusy => ApiError {
            status: CONFLICT,
            ..ApiError::bad_request(error.to_string())
        },
        error => ApiError::bad_request(format!("{error}; the old model is served")),
    }
}
