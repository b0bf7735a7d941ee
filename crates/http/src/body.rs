//! Reading a request's body: bounded in bytes, in the bytes of all bodies, and in time.
//!
//! Invariant: at most `max_body_bytes` are kept, and no more than the budget of all has room for.
//! Where more come, the rest is read and dropped, up to another bound, because a client that is
//! still sending does not read an answer.

use std::error::Error;
use std::io;

use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderMap, header};
use bytes::{Bytes, BytesMut};
use hotspare_protocol::ApiError;
use http_body_util::BodyExt as _;

use crate::HttpConfig;
use crate::app::App;
use crate::body_budget::BodyShare;

/// A body and what it holds of the budget, which is to be held until the answer has ended.
pub(crate) struct RequestBody {
    pub(crate) bytes: Bytes,
    pub(crate) share: BodyShare,
}

/// Reads the body of a request that has to be JSON.
///
/// # Errors
/// 400 for another content type, 408 where it takes too long, 413 where it is too long, 503 where
/// other bodies have used up the memory for bodies.
pub(crate) async fn read_json(request: Request, app: &App) -> Result<RequestBody, ApiError> {
    let config = &app.config;
    let (parts, body) = request.into_parts();
    let is_too_long = declared_len(&parts.headers).is_some_and(|len| len > config.max_body_bytes);
    if is_too_long && parts.headers.contains_key(header::EXPECT) {
        // The client waits for a word before it sends.
        return Err(ApiError::body_too_large(config.max_body_bytes));
    }
    let read = read(body, is_too_long, config, app.bodies.share());
    let body = tokio::time::timeout(config.body_timeout(), read)
        .await
        .map_err(|_| {
            let message = format!(
                "The request body did not arrive within {} ms.",
                config.body_timeout_ms
            );
            ApiError::new(408, "RequestTimeoutError", message)
        })??;
    check_content_type(&parts.headers)?;
    Ok(body)
}

fn declared_len(headers: &HeaderMap) -> Option<usize> {
    headers
        .get(header::CONTENT_LENGTH)?
        .to_str()
        .ok()?
        .parse()
        .ok()
}

async fn read(
    mut body: Body,
    is_too_long: bool,
    config: &HttpConfig,
    mut share: BodyShare,
) -> Result<RequestBody, ApiError> {
    let mut kept = BytesMut::new();
    let mut num_bytes = 0usize;
    let too_long = || ApiError::body_too_large(config.max_body_bytes);
    let mut refusal = is_too_long.then(too_long);
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| ApiError::bad_request(broken(&error)))?;
        let Ok(data) = frame.into_data() else {
            continue;
        };
        num_bytes = num_bytes.saturating_add(data.len());
        if refusal.is_none() {
            refusal = match num_bytes > config.max_body_bytes {
                true => Some(too_long()),
                false => share.grow(data.len()).err(),
            };
        }
        if refusal.is_none() {
            kept.extend_from_slice(&data);
            continue;
        }
        kept = BytesMut::new();
        share.release();
        if num_bytes > config.max_discarded_body_bytes {
            break;
        }
    }
    match refusal {
        Some(refusal) => Err(refusal),
        None => Ok(RequestBody {
            bytes: kept.freeze(),
            share,
        }),
    }
}

/// What a body that cannot be read to its end is to the client.
fn broken(error: &(dyn Error + 'static)) -> &'static str {
    let mut cause = Some(error);
    while let Some(current) = cause {
        if let Some(io) = current.downcast_ref::<io::Error>() {
            return match io.kind() {
                io::ErrorKind::UnexpectedEof => "The request body ended before it was complete.",
                io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData => {
                    "The chunked encoding of the request body is malformed."
                }
                _ => "The connection failed before the request body was complete.",
            };
        }
        cause = current.source();
    }
    "The request body cannot be read."
}

/// Refuses what does not claim to be JSON: a page in a browser can send other types to any address
/// without asking, JSON it cannot.
fn check_content_type(headers: &HeaderMap) -> Result<(), ApiError> {
    let Some(value) = headers.get(header::CONTENT_TYPE) else {
        return Ok(());
    };
    let essence = value.to_str().unwrap_or_default();
    let essence = essence.split(';').next().unwrap_or_default().trim();
    let lower = essence.to_ascii_lowercase();
    if lower == "application/json" || lower.starts_with("application/") && lower.ends_with("+json")
    {
        return Ok(());
    }
    let message = "1 validation error(s):\n  {'type': 'content_type', 'loc': ('body',), \
                   'msg': 'The request needs the header Content-Type: application/json'}";
    Err(ApiError::new(400, "Bad Request", message).with_param("body"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::body_budget::BodyBudget;

    #[test]
    fn json_content_types_pass() {
        let check = |value: Option<&str>| {
            let mut headers = HeaderMap::new();
            if let Some(value) = value {
                headers.insert(header::CONTENT_TYPE, value.parse().expect("a header"));
            }
            check_content_type(&headers).is_ok()
        };
        assert!(check(None));
        assert!(check(Some("application/json")));
        assert!(check(Some("Application/JSON; charset=utf-8")));
        assert!(check(Some("application/vnd.api+json")));
        for value in [
            "text/plain",
            "application/x-www-form-urlencoded",
            "",
            "image/svg+json",
        ] {
            assert!(!check(Some(value)), "{value}");
        }
    }

    #[tokio::test]
    async fn keeps_no_more_than_its_bound() {
        let config = HttpConfig {
            max_body_bytes: 4,
            max_discarded_body_bytes: 8,
            ..HttpConfig::default()
        };
        let budget = BodyBudget::new(&config);
        let kept = read(Body::from("abcd"), false, &config, budget.share()).await;
        let kept = kept.expect("it fits");
        assert_eq!(kept.bytes, "abcd");
        for text in ["abcde", "abcdefghijklmn"] {
            let read = read(Body::from(text), false, &config, budget.share()).await;
            assert_eq!(read.err().expect("it does not fit").status, 413);
        }
    }

    #[tokio::test]
    async fn a_body_without_room_is_dropped_and_gives_back_what_it_took() {
        let config = HttpConfig {
            max_body_bytes: 4,
            max_total_body_bytes: 4,
            max_inline_body_bytes: 0,
            ..HttpConfig::default()
        };
        let budget = BodyBudget::new(&config);
        let held = read(Body::from("abc"), false, &config, budget.share()).await;
        let chunks = ["a", "b", "c"].map(|text| Ok::<_, std::io::Error>(Bytes::from(text)));
        let body = Body::from_stream(futures::stream::iter(chunks));
        let refused = read(body, false, &config, budget.share()).await;
        assert_eq!(refused.err().expect("room for one byte").status, 503);
        budget.share().grow(1).expect("it was given back");
        drop(held);
        budget.share().grow(4).expect("all is free");
    }
}
