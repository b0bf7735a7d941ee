//! Patterns of file names, as in a shell: `*`, `?` and nothing else.
//!
//! `*` also matches `/`, as in Python's `fnmatch`, whose patterns hub users know.
//!
//! Invariant: matching takes time in proportion to the product of the lengths, for any pattern.

/// Whether the whole of `name` matches `pattern`.
pub(crate) fn matches(pattern: &str, name: &str) -> bool {
    let (pattern, name): (Vec<char>, Vec<char>) =
        (pattern.chars().collect(), name.chars().collect());
    let (mut p, mut n) = (0, 0);
    // Where the last star was, and what of the name it has not swallowed yet.
    let mut star: Option<(usize, usize)> = None;
    while n < name.len() {
        match pattern.get(p) {
            Some('*') => {
                star = Some((p, n));
                p += 1;
            }
            Some(&c) if c == '?' || c == name[n] => (p, n) = (p + 1, n + 1),
            _ => match &mut star {
                Some((at, from)) => {
                    *from += 1;
                    (p, n) = (*at + 1, *from);
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|&c| c == '*')
}

#[cfg(test)]
mod tests {
    use super::matches;

    #[test]
    fn patterns_match_as_in_a_shell() {
        for (pattern, name) in [
            ("*.json", "config.json"),
            ("*.json", "onnx/config.json"),
            (
                "model-*-of-*.safetensors",
                "model-00001-of-00002.safetensors",
            ),
            ("?.txt", "a.txt"),
            ("*", ""),
            ("a*b*c", "axxbyybc"),
        ] {
            assert!(matches(pattern, name), "{pattern} {name}");
        }
        for (pattern, name) in [
            ("*.json", "config.jsonl"),
            ("?.txt", ".txt"),
            ("", "a"),
            ("a*b", "a"),
            ("[ab]", "a"),
        ] {
            assert!(!matches(pattern, name), "{pattern} {name}");
        }
        assert!(!matches(&"*a".repeat(50), &"a".repeat(49)));
    }
}
