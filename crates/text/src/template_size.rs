//! How large a chat template may be.
//!
//! The template engine walks an expression by recursion, one level per operator, so a long enough
//! chain of them would overflow the stack before any limit on running time applies. Real templates
//! have at most some sixty tokens in a tag.
//!
//! Invariant: what passes here compiles within the 2 MiB stack of a worker thread.

/// Bytes of a template; the largest real ones have some tens of thousands.
const MAX_SOURCE_BYTES: usize = 1 << 20;
/// Names, numbers and operators of one tag, strings not counted.
const MAX_TAG_TOKENS: usize = 1_000;
/// `elif` tags of one template, each of which nests in the one before.
const MAX_NUM_ELIFS: usize = 500;

/// Why the template is refused, if it is.
pub(crate) fn refusal(source: &str) -> Option<String> {
    if source.len() > MAX_SOURCE_BYTES {
        return Some(format!("it is longer than {MAX_SOURCE_BYTES} bytes"));
    }
    if source.matches("elif").count() > MAX_NUM_ELIFS {
        return Some(format!("it has more than {MAX_NUM_ELIFS} elif tags"));
    }
    let mut rest = source;
    while let Some(start) = rest.find('{') {
        rest = &rest[start + 1..];
        let close = match rest.chars().next() {
            Some('{') => "}}",
            Some('%') => "%}",
            Some('#') => {
                rest = &rest[rest.find("#}").unwrap_or(rest.len())..];
                continue;
            }
            _ => continue,
        };
        let (num_tokens, len) = count_tokens(&rest[1..], close);
        if num_tokens > MAX_TAG_TOKENS {
            return Some(format!("a tag has more than {MAX_TAG_TOKENS} tokens"));
        }
        rest = &rest[1 + len..];
    }
    None
}

/// Tokens of a tag outside strings, and the bytes up to its end.
fn count_tokens(text: &str, close: &str) -> (usize, usize) {
    let mut num_tokens = 0;
    let mut quote: Option<char> = None;
    let mut is_escaped = false;
    let mut is_in_word = false;
    for (at, c) in text.char_indices() {
        if let Some(open) = quote {
            if is_escaped {
                is_escaped = false;
            } else if c == '\\' {
                is_escaped = true;
            } else if c == open {
                quote = None;
            }
            continue;
        }
        if text[at..].starts_with(close) {
            return (num_tokens, at);
        }
        let is_word = c.is_alphanumeric() || c == '_';
        let goes_on = c.is_whitespace() || (is_word && is_in_word);
        if !goes_on {
            num_tokens += 1;
        }
        is_in_word = is_word;
        if c == '\'' || c == '"' {
            quote = Some(c);
        }
    }
    (num_tokens, text.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_chains_are_refused() {
        for chain in ["-", "not ", "x+", "x|string|", ".a", "[0]", "x~"] {
            let tag = format!("{{{{ {}1 }}}}", chain.repeat(2_000));
            assert_eq!(refusal(&tag).unwrap(), "a tag has more than 1000 tokens");
            let tag = format!("{{# {{{{ #}}{{% set a = '\\'{}' %}}", chain.repeat(2_000));
            assert_eq!(refusal(&tag), None);
        }
        let elifs = format!("{{% if x %}}{}{{% endif %}}", "{% elif x %}".repeat(501));
        assert!(refusal(&elifs).unwrap().contains("elif"));
        assert!(refusal(&" ".repeat(MAX_SOURCE_BYTES + 1)).is_some());
    }

    #[test]
    fn ordinary_text_is_not_counted() {
        let text = "a - b + c ".repeat(2_000);
        assert_eq!(
            refusal(&format!("{{{{ x }}}}{text}{{% if a %}}{text}{{% endif %}}")),
            None
        );
        assert_eq!(refusal("{{ '}}' }} {{"), None);
        assert_eq!(refusal("{"), None);
    }
}
