//! Reading a request's body: bounded in bytes and in time.
//!
//! Invariant: at most `max_body_bytes` are kept. Where more come, the rest is read and dropped, up
//! to another bound, because a client that is still sending does not read an answer.

use std::error::Error;
use std::io;

use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderMap, header};
use bytes::{Bytes, BytesMut};
use hotspare_protocol::ApiError;
use http_body_util::BodyExt as _;

use crate::HttpConfig;

/// Reads the body of a request that has to be JSON.
///
/// # Errors
/// 400 for another content type, 408 where it takes too long, 413 where it is too long.
pub(crate) async fn read_json(request: Request, config: &HttpConfig) -> Result<Bytes, ApiError> {
    let (parts, body) = request.into_parts();
    let is_too_long = declared_len(&parts.headers).is_some_and(|len| len > config.max_body_bytes);
    if is_too_long && parts.headers.contains_key(header::EXPECT) {
        // The client waits for a word before it sends.
        return Err(ApiError::body_too_large(config.max_body_bytes));
    }
    let read = read(body, is_too_long, config);
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

async fn read(mut body: Body, is_too_long: bool, config: &HttpConfig) -> Result<Bytes, ApiError> {
    let mut kept = BytesMut::new();
    let mut num_bytes = 0usize;
    let mut is_too_long = is_too_long;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| ApiError::bad_request(broken(&error)))?;
        let Ok(data) = frame.into_data() else {
            continue;
        };
        num_bytes = num_bytes.saturating_add(data.len());
        is_too_long |= num_bytes > config.max_body_bytes;
        if is_too_long {
            kept = BytesMut::new();
            if num_bytes > config.max_discarded_body_bytes {
                break;
            }
        } else {
            kept.extend_from_slice(&data);
        }
    }
    match is_too_long {
        true => Err(ApiError::body_too_large(config.max_body_bytes)),
        false => Ok(kept.freeze()),
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
        let kept = read(Body::from("abcd"), false, &config).await;
        assert_eq!(kept.expect("it fits"), "abcd");
        for text in ["abcde", "abcdefghijklmn"] {
            let error = read(Body::from(text), false, &config).await;
            assert_eq!(error.expect_err("it does not fit").status, 413);
        }
    }
}
