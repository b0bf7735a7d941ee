//! `/version`, `/metrics`, `/load`, `/ha/status`: what the server says about itself.
//!
//! Invariant: read from the state it describes at the moment it is asked for.

use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};

use crate::app::App;
use crate::reply;

/// `/version`.
pub(crate) async fn version() -> Response {
    let version = env!("CARGO_PKG_VERSION");
    let body = serde_json::json!({"version": version});
    reply::json(StatusCode::OK, body.to_string())
}

/// `/metrics`.
pub(crate) async fn metrics(State(app): State<App>) -> Response {
    let mut response = app.front.metrics_text().into_response();
    let content_type = HeaderValue::from_static(app.front.metrics_content_type());
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, content_type);
    response
}

/// `/load`.
pub(crate) async fn load(State(app): State<App>) -> Response {
    let body = serde_json::json!({"server_load": app.front.server_load()});
    reply::json(StatusCode::OK, body.to_string())
}

/// `/ha/status`.
pub(crate) async fn ha(State(app): State<App>) -> Response {
    match serde_json::to_vec(&app.front.status()) {
        Ok(body) => reply::json(StatusCode::OK, body),
        Err(error) => {
            tracing::error!(%error, "the status cannot be serialised");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}
