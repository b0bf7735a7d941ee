//! API keys.
//!
//! Invariant: how long a comparison takes does not depend on where a wrong key differs from a
//! right one.

use std::net::SocketAddr;

use axum::extract::Request;
use axum::http::{HeaderMap, Method, header};
use hotspare_protocol::ApiError;

/// Paths behind the key: vLLM's list.
const GUARDED: [&str; 4] = ["/v1", "/v2", "/inference", "/cohere"];

/// Whether a request may pass.
pub(crate) fn is_allowed(
    keys: &[String],
    method: &Method,
    path: &str,
    headers: &HeaderMap,
) -> bool {
    if keys.is_empty() || *method == Method::OPTIONS {
        return true;
    }
    if !GUARDED.iter().any(|prefix| path.starts_with(prefix)) {
        return true;
    }
    has_key(keys, headers)
}

/// Where a connection comes from, among the extensions of its requests.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PeerAddress(pub(crate) SocketAddr);

/// Headers of what a proxy passes on, or a page of a browser sends: the connection may come from
/// this machine, and the wish does not.
const FROM_ELSEWHERE: [&str; 4] = ["origin", "forwarded", "x-forwarded-for", "x-real-ip"];

/// Why a request may not administer this server; `None` where it may: with the key where there is
/// one, else from this machine.
pub(crate) fn refuse_admin(key: Option<&str>, request: &Request) -> Option<ApiError> {
    let headers = request.headers();
    let refusal = |status, why: &str| {
        let error = ApiError::bad_request(why.to_owned());
        Some(ApiError { status, ..error })
    };
    if let Some(key) = key {
        return match has_key(&[key.to_owned()], headers) {
            true => None,
            false => refusal(
                401,
                "this needs the admin key, as `Authorization: Bearer KEY`",
            ),
        };
    }
    let peer = request.extensions().get::<PeerAddress>();
    let is_near = peer.is_some_and(|peer| peer.0.ip().to_canonical().is_loopback());
    match is_near
        && !FROM_ELSEWHERE
            .iter()
            .any(|name| headers.contains_key(*name))
    {
        true => None,
        false => refusal(
            403,
            "this is for clients on the server's own machine; elsewhere it needs --admin-key",
        ),
    }
}

/// Whether one of the keys is there.
fn has_key(keys: &[String], headers: &HeaderMap) -> bool {
    let Some(given) = headers.get(header::AUTHORIZATION) else {
        return false;
    };
    let Some((scheme, token)) = split_at_space(given.as_bytes()) else {
        return false;
    };
    // Every key is compared, so that the time does not tell which one was right.
    let is_known = keys
        .iter()
        .fold(false, |found, key| found | equal(key.as_bytes(), token));
    scheme.eq_ignore_ascii_case(b"bearer") & is_known
}

fn split_at_space(value: &[u8]) -> Option<(&[u8], &[u8])> {
    let at = value.iter().position(|&byte| byte == b' ')?;
    Some((&value[..at], value[at + 1..].trim_ascii()))
}

/// Compares in a time that depends on the lengths only.
fn equal(key: &[u8], token: &[u8]) -> bool {
    if key.len() != token.len() {
        return false;
    }
    let difference = key.iter().zip(token).fold(0, |difference, (a, b)| {
        std::hint::black_box(difference | (a ^ b))
    });
    difference == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed(path: &str, authorization: Option<&str>) -> bool {
        let mut headers = HeaderMap::new();
        if let Some(value) = authorization {
            headers.insert(header::AUTHORIZATION, value.parse().expect("a header"));
        }
        let keys = ["one".to_owned(), "two".to_owned()];
        is_allowed(&keys, &Method::GET, path, &headers)
    }

    #[test]
    fn guards_v1_only() {
        assert!(allowed("/health", None));
        assert!(allowed("/ha/status", None));
        assert!(!allowed("/v1/models", None));
        assert!(!allowed("/v1beta", None));
    }

    fn admin(key: Option<&str>, peer: Option<&str>, headers: &[(&str, &str)]) -> Option<u16> {
        let mut request = Request::default();
        for (name, value) in headers {
            let name: header::HeaderName = name.parse().expect("a header");
            let value = value.parse().expect("a value");
            request.headers_mut().insert(name, value);
        }
        if let Some(peer) = peer {
            let peer = PeerAddress(peer.parse().expect("an address"));
            request.extensions_mut().insert(peer);
        }
        refuse_admin(key, &request).map(|refusal| refusal.status)
    }

    #[test]
    fn without_a_key_this_machine_may_administer_and_nobody_else() {
        assert_eq!(admin(None, Some("127.0.0.1:9"), &[]), None);
        assert_eq!(admin(None, Some("[::1]:9"), &[]), None);
        assert_eq!(admin(None, Some("[::ffff:127.0.0.1]:9"), &[]), None);
        assert_eq!(admin(None, Some("192.168.1.2:9"), &[]), Some(403));
        assert_eq!(admin(None, None, &[]), Some(403));
        let passed_on = [("x-forwarded-for", "192.168.1.2")];
        assert_eq!(admin(None, Some("127.0.0.1:9"), &passed_on), Some(403));
        let page = [("origin", "https://example.com")];
        assert_eq!(admin(None, Some("127.0.0.1:9"), &page), Some(403));
    }

    #[test]
    fn with_a_key_the_key_is_needed_everywhere_and_is_enough() {
        let right = [("authorization", "Bearer sesame")];
        let wrong = [("authorization", "Bearer sesam")];
        assert_eq!(admin(Some("sesame"), Some("192.168.1.2:9"), &right), None);
        assert_eq!(
            admin(Some("sesame"), Some("127.0.0.1:9"), &wrong),
            Some(401)
        );
        assert_eq!(admin(Some("sesame"), Some("127.0.0.1:9"), &[]), Some(401));
    }

    #[test]
    fn takes_any_of_the_keys() {
        for value in ["Bearer one", "bearer two", "Bearer  two"] {
            assert!(allowed("/v1/models", Some(value)), "{value}");
        }
        for value in [
            "Bearer",
            "Bearer ",
            "one",
            "Basic one",
            "Bearer onE",
            "Bearer one1",
        ] {
            assert!(!allowed("/v1/models", Some(value)), "{value}");
        }
    }

    #[test]
    fn lets_preflight_pass() {
        let keys = ["one".to_owned()];
        assert!(is_allowed(
            &keys,
            &Method::OPTIONS,
            "/v1/models",
            &HeaderMap::new()
        ));
    }
}
