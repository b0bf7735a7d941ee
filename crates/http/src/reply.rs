//! Responses: JSON bodies and errors in their shapes.
//!
//! Invariant: every error this crate makes has one of the shapes vLLM's clients know.

use axum::body::Body;
use axum::http::{HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use hotspare_front::GenerateError;
use hotspare_protocol::ApiError;
use tokio_util::sync::CancellationToken;

/// Seconds after which another server may have taken over, or this one has started again.
const RETRY_AFTER_CLOSING_S: u32 = 2;

/// A body of JSON.
pub(crate) fn json(status: StatusCode, body: impl Into<Body>) -> Response {
    let mut response = Response::new(body.into());
    *response.status_mut() = status;
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    response
}

/// An error's response; what may be tried again says when.
pub(crate) fn error(error: &ApiError) -> Response {
    let status = StatusCode::from_u16(error.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = json(status, error.to_json());
    if let Some(seconds) = error.retry_after_s {
        let headers = response.headers_mut();
        headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        let ms = HeaderValue::from(u64::from(seconds) * 1000);
        headers.insert("retry-after-ms", ms);
        headers.insert("x-should-retry", HeaderValue::from_static("true"));
    }
    response
}

/// A route's outcome as a response; 503 where the server closes first.
pub(crate) async fn respond(
    closing: CancellationToken,
    answer: impl Future<Output = Result<Response, ApiError>>,
) -> Response {
    let result = tokio::select! {
        result = answer => result,
        () = closing.cancelled() => Err(closed()),
    };
    result.unwrap_or_else(|failure| error(&failure))
}

/// What an answer that is not complete when the server ends is to the client.
pub(crate) fn closed() -> ApiError {
    ApiError::not_ready("it is shutting down", RETRY_AFTER_CLOSING_S)
}

/// FastAPI's shape for errors outside of any route.
fn detail(status: StatusCode, text: &str) -> Response {
    json(status, format!("{{\"detail\":\"{text}\"}}"))
}

/// 404 where no route is; 307 to the route that is there without the slash at the end, as FastAPI.
pub(crate) async fn not_found(uri: Uri) -> Response {
    let without_slash = uri.path().strip_suffix('/');
    let Some(path) = without_slash.filter(|path| crate::router::PATHS.contains(path)) else {
        return detail(StatusCode::NOT_FOUND, "Not Found");
    };
    let query = uri
        .query()
        .map_or(String::new(), |query| format!("?{query}"));
    let mut response = StatusCode::TEMPORARY_REDIRECT.into_response();
    if let Ok(location) = HeaderValue::from_str(&format!("{path}{query}")) {
        response.headers_mut().insert(header::LOCATION, location);
    }
    response
}

/// 405 where a route is, but not for this method.
pub(crate) async fn method_not_allowed() -> Response {
    detail(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed")
}

/// 401; a string where other errors have an object, as vLLM.
pub(crate) fn unauthorized() -> Response {
    let body = r#"{"error":"Unauthorized"}"#;
    json(StatusCode::UNAUTHORIZED, body).into_response()
}

/// A front's error as the API shows it.
pub(crate) fn generate_error(error: GenerateError) -> ApiError {
    match error {
        GenerateError::QueueFull { retry_after_s, .. } => ApiError::queue_full(retry_after_s),
        GenerateError::NotReady {
            reason,
            retry_after_s,
        } => ApiError::not_ready(&reason, retry_after_s),
        GenerateError::Impossible(message) => ApiError::bad_request(message),
        GenerateError::EngineFailed(message) => ApiError::internal(message),
        GenerateError::Convicted(message) => ApiError::unprocessable(message),
    }
}
