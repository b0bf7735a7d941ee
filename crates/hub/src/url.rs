//! The little that is needed of addresses: escaping, joining, comparing origins.
//!
//! Invariant: what is shown to people never holds a query, where signed addresses have their
//! secrets.

/// `text` with everything escaped that is not plain in a path; `keeps_slash` keeps its steps.
pub(crate) fn escape(text: &str, keeps_slash: bool) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        let is_plain = byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
        if is_plain || (keeps_slash && byte == b'/') {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

/// Scheme, host and port of an address.
pub(crate) fn origin(url: &str) -> &str {
    let start = url.find("://").map_or(0, |at| at + 3);
    let end = url[start..].find(['/', '?', '#']);
    end.map_or(url, |end| &url[..start + end])
}

/// Where a redirect from `url` to `location` leads; `None` where it leads out of HTTP, or from
/// HTTPS to plain HTTP.
pub(crate) fn join(url: &str, location: &str) -> Option<String> {
    let joined = if location.starts_with("http://") || location.starts_with("https://") {
        location.to_owned()
    } else if location.starts_with("//") {
        format!("{}:{location}", url.split("://").next()?)
    } else if location.starts_with('/') {
        format!("{}{location}", origin(url))
    } else {
        return None;
    };
    let is_downgrade = url.starts_with("https://") && !joined.starts_with("https://");
    (!is_downgrade).then_some(joined)
}

/// An address to show.
pub(crate) fn without_query(url: &str) -> &str {
    url.split(['?', '#']).next().unwrap_or(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_taken_apart() {
        assert_eq!(escape("a b/c#1?ü.json", true), "a%20b/c%231%3F%C3%BC.json");
        assert_eq!(escape("refs/pr/1", false), "refs%2Fpr%2F1");
        assert_eq!(origin("https://h:1/a/b"), "https://h:1");
        assert_eq!(origin("http://h?x"), "http://h");
        let from = "https://h/a";
        assert_eq!(join(from, "/b?c").as_deref(), Some("https://h/b?c"));
        assert_eq!(join(from, "https://i/b").as_deref(), Some("https://i/b"));
        assert_eq!(join(from, "//i/b").as_deref(), Some("https://i/b"));
        assert_eq!(join(from, "http://h/b"), None, "never down to plain HTTP");
        assert_eq!(join(from, "file:///etc/passwd"), None);
        assert_eq!(without_query("https://h/a?sig=1"), "https://h/a");
    }
}
