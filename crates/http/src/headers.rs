//! What happens to every request: the key is checked, and the answer says which node gave it.
//!
//! Invariant: every response to a request that could be read carries the node's name and epoch, and
//! the request's own id comes back. What is not HTTP never gets here: hyper answers it alone.

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use axum::middleware::Next;
use axum::response::Response;
use hotspare_protocol::{ApiError, MAX_REQUEST_ID_CHARS};

use crate::app::App;
use crate::{auth, reply};

const NODE: HeaderName = HeaderName::from_static("x-hotspare-node");
const EPOCH: HeaderName = HeaderName::from_static("x-hotspare-epoch");
const DEGRADED: HeaderName = HeaderName::from_static("x-hotspare-degraded");
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

const PRIORITY: HeaderName = HeaderName::from_static("x-vllm-priority");

/// The client's name for a request, where it is usable.
pub(crate) fn request_id(headers: &HeaderMap) -> Option<&HeaderValue> {
    headers
        .get(REQUEST_ID)
        .filter(|value| (1..=MAX_REQUEST_ID_CHARS).contains(&value.len()))
        .filter(|value| value.to_str().is_ok())
}

/// The same as text.
pub(crate) fn request_name(headers: &HeaderMap) -> Option<String> {
    Some(request_id(headers)?.to_str().ok()?.to_owned())
}

/// The priority that a gateway gave the request; it goes before the body's own.
///
/// # Errors
/// 400 where it is not a number.
pub(crate) fn priority(headers: &HeaderMap) -> Result<Option<i32>, ApiError> {
    let Some(value) = headers.get(PRIORITY) else {
        return Ok(None);
    };
    let number = value
        .to_str()
        .ok()
        .and_then(|text| text.trim().parse().ok());
    let refusal = || ApiError::bad_request("X-Vllm-Priority must be a whole number of 32 bits");
    number.map(Some).ok_or_else(refusal)
}

/// Checks the key, inside of CORS, so that a page may read the refusal.
pub(crate) async fn guard(State(app): State<App>, request: Request, next: Next) -> Response {
    let (keys, path) = (&app.config.api_keys, request.uri().path());
    match auth::is_allowed(keys, request.method(), path, request.headers()) {
        true => next.run(request).await,
        false => reply::unauthorized(),
    }
}

/// Names the node, outside of all that answers.
pub(crate) async fn name(State(app): State<App>, request: Request, next: Next) -> Response {
    let request_id = request_id(request.headers()).cloned();
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let mut response = next.run(request).await;
    tracing::debug!(%method, path, status = response.status().as_u16(), "answered");
    let headers = response.headers_mut();
    if let Ok(node) = HeaderValue::from_str(app.front.node()) {
        headers.insert(NODE, node);
    }
    // 0 without a peer.
    headers.insert(EPOCH, HeaderValue::from(app.front.epoch()));
    if app.front.degraded().is_some()
        && let Ok(model) = HeaderValue::from_str(app.front.model().served.name())
    {
        // The model that answers in place of the pair's.
        headers.insert(DEGRADED, model);
    }
    if app.front.is_draining() {
        // The client's next request belongs to another server.
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    if let Some(id) = request_id {
        headers.insert(REQUEST_ID, id);
    }
    response
}
