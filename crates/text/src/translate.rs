//! Chat template sources, with what only Jinja under Python has put into words minijinja knows.
//!
//! `{% generation %}` marks the assistant's part for training and becomes a plain block. `for` over
//! `none` is an error in Python and an empty loop in minijinja: the sequence goes through a check.
//!
//! Invariant: lines keep their numbers, and a tag that is not fully understood stays as it is.

/// The function that a `for` passes its sequence through.
pub(crate) const ITERATED: &str = "__iterated";

/// Translates a template.
pub(crate) fn translate(source: &str) -> String {
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(start) = rest.find("{%") {
        let (head, tag) = rest.split_at(start);
        out.push_str(head);
        let Some(len) = tag[2..].find("%}").map(|end| end + 4) else {
            rest = tag;
            break;
        };
        let (tag, tail) = tag.split_at(len);
        push_tag(&tag[2..len - 2], tag, &mut out);
        rest = tail;
    }
    out.push_str(rest);
    out
}

fn push_tag(inner: &str, tag: &str, out: &mut String) {
    let body = inner.trim_matches(|c: char| c.is_whitespace() || c == '-' || c == '+');
    match body {
        "generation" => out.push_str(&tag.replace(body, "if true")),
        "endgeneration" => out.push_str(&tag.replace(body, "endif")),
        _ => match sequence_of_for(body) {
            Some((start, end)) => {
                let at = tag.find(body).unwrap_or(0);
                let (before, from) = tag.split_at(at + start);
                let (sequence, after) = from.split_at(end - start);
                let trimmed = sequence.trim_end();
                let space = &sequence[trimmed.len()..];
                out.push_str(&format!("{before}{ITERATED}(({trimmed})){space}{after}"));
            }
            None => out.push_str(tag),
        },
    }
}

/// Where in `for x in SEQUENCE if … recursive` the sequence is.
fn sequence_of_for(body: &str) -> Option<(usize, usize)> {
    let after_for = body.strip_prefix("for")?;
    if !after_for.starts_with(|c: char| c.is_whitespace() || c == '(') {
        return None;
    }
    let mut start = None;
    for (at, word) in top_level_words(body)? {
        match (word, start) {
            ("in", None) => start = Some(at + word.len()),
            ("if" | "recursive", Some(start)) => return trimmed(body, start, at),
            _ => {}
        }
    }
    trimmed(body, start?, body.len())
}

fn trimmed(body: &str, start: usize, end: usize) -> Option<(usize, usize)> {
    let text = &body[start..end];
    let start = start + (text.len() - text.trim_start().len());
    (start < end).then_some((start, end))
}

/// Words outside brackets and strings, with their positions; `None` if those do not match up.
fn top_level_words(text: &str) -> Option<Vec<(usize, &str)>> {
    let mut words = Vec::new();
    let mut depth = 0usize;
    let mut quote: Option<char> = None;
    let mut word_start: Option<usize> = None;
    let mut is_escaped = false;
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
        if c.is_alphanumeric() || c == '_' || c == '.' {
            word_start.get_or_insert(at);
            continue;
        }
        if let Some(start) = word_start.take()
            && depth == 0
        {
            words.push((start, &text[start..at]));
        }
        match c {
            '\'' | '"' => quote = Some(c),
            '(' | '[' | '{' => depth += 1,
            ')' | ']' | '}' => depth = depth.checked_sub(1)?,
            _ => {}
        }
    }
    if let Some(start) = word_start
        && depth == 0
    {
        words.push((start, &text[start..]));
    }
    (depth == 0 && quote.is_none()).then_some(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generation_becomes_a_plain_block() {
        assert_eq!(
            translate("a{%- generation -%}b{% endgeneration %}c"),
            "a{%- if true -%}b{% endif %}c"
        );
    }

    #[test]
    fn the_sequence_of_a_loop_is_checked() {
        for (source, want) in [
            (
                "{% for m in messages %}",
                "{% for m in __iterated((messages)) %}",
            ),
            (
                "{%- for k, v in d.items() -%}",
                "{%- for k, v in __iterated((d.items())) -%}",
            ),
            (
                "{% for m in messages if m.role == 'in' %}",
                "{% for m in __iterated((messages)) if m.role == 'in' %}",
            ),
            (
                "{% for x in [y if z else w] %}",
                "{% for x in __iterated(([y if z else w])) %}",
            ),
            (
                "{% for x in tree recursive %}",
                "{% for x in __iterated((tree)) recursive %}",
            ),
            ("{% for\n x in\n a %}", "{% for\n x in\n __iterated((a)) %}"),
        ] {
            assert_eq!(translate(source), want);
        }
    }

    #[test]
    fn everything_else_stays() {
        for source in [
            "{% format x in y %}",
            "{% for x %}",
            "{% for x in %}",
            "{% for x in (a %}",
            "{%",
            "{%}",
            "{% for x in 'a %}",
            "{% if a in b %}",
            "{{ '{% for' }}",
            "{% for x in a) %}",
            "%}{%%}",
        ] {
            assert_eq!(translate(source), source);
        }
    }
}
