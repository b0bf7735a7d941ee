//! API keys.
//!
//! Invariant: how long a comparison takes does not depend on where a wrong key differs from a
//! right one.

use axum::http::{HeaderMap, Method, header};

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
