//! `/health`, `/live`, `/ready`, `/ping`: what load balancers and orchestrators ask.
//!
//! Invariant: `/health` and `/ready` are 200 exactly while the front hands requests to an engine:
//! one that hangs is not noticed here.

use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use hotspare_front::Readiness;

use crate::app::App;
use crate::reply;

/// Seconds after which a node that is not ready is worth asking again.
const RETRY_AFTER_S: u32 = 1;

/// `/health` and `/ping`: no body, but for the reason where not ready.
pub(crate) async fn health(State(app): State<App>) -> Response {
    let readiness = app.front.readiness();
    match readiness.ready {
        true => StatusCode::OK.into_response(),
        false => readiness_response(&readiness),
    }
}

/// `/live`: this process answers.
pub(crate) async fn live() -> Response {
    StatusCode::OK.into_response()
}

/// `/ready`: with the reason where not.
pub(crate) async fn ready(State(app): State<App>) -> Response {
    readiness_response(&app.front.readiness())
}

fn readiness_response(readiness: &Readiness) -> Response {
    let body = serde_json::json!({"ready": readiness.ready, "reason": readiness.reason});
    let status = match readiness.ready {
        true => StatusCode::OK,
        false => StatusCode::SERVICE_UNAVAILABLE,
    };
    let mut response = reply::json(status, body.to_string());
    if !readiness.ready {
        let seconds = HeaderValue::from(RETRY_AFTER_S);
        response.headers_mut().insert(header::RETRY_AFTER, seconds);
    }
    response
}
