//! Values as Python's `repr` prints them: vLLM's validation messages hold such, and clients match
//! on them.
//!
//! Invariant: the text is bounded, whatever the value.

use std::fmt::Write as _;

use serde_json::Value;

/// Characters of an input value that a message shows at most.
pub(crate) const MAX_INPUT_CHARS: usize = 200;

/// The first `max_chars` characters of `text`, and `...` where it is longer.
pub(crate) fn clip(text: &str, max_chars: usize) -> String {
    match text.char_indices().nth(max_chars) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.to_owned(),
    }
}

/// `repr(value)`, bounded.
pub(crate) fn repr(value: &Value) -> String {
    let mut out = String::new();
    write_value(value, &mut out);
    clip(&out, MAX_INPUT_CHARS)
}

/// `repr(text)` of a string, not bounded.
pub(crate) fn repr_str(text: &str) -> String {
    let mut out = String::new();
    write_str(text, &mut out);
    out
}

/// `repr(number)` of a float: as Python prints it in `got X.`
pub(crate) fn repr_f64(number: f64) -> String {
    if number.is_nan() {
        "nan".into()
    } else if number.is_infinite() {
        if number > 0.0 { "inf" } else { "-inf" }.into()
    } else if number.fract() == 0.0 && number.abs() < 1e16 {
        format!("{number:.1}")
    } else {
        let text = format!("{number:?}");
        // Rust prints the exponent as `1e20` and `1e-7`, Python as `1e+20` and `1e-07`.
        match text.split_once('e') {
            Some((digits, exponent)) => {
                let (sign, magnitude) = match exponent.strip_prefix('-') {
                    Some(magnitude) => ('-', magnitude),
                    None => ('+', exponent),
                };
                format!("{digits}e{sign}{magnitude:0>2}")
            }
            None => text,
        }
    }
}

fn write_value(value: &Value, out: &mut String) {
    if out.len() > 4 * MAX_INPUT_CHARS {
        return;
    }
    match value {
        Value::Null => out.push_str("None"),
        Value::Bool(true) => out.push_str("True"),
        Value::Bool(false) => out.push_str("False"),
        Value::Number(number) => match number.as_f64() {
            Some(float) if number.is_f64() => out.push_str(&repr_f64(float)),
            _ => {
                let _ = write!(out, "{number}");
            }
        },
        Value::String(text) => write_str(text, out),
        Value::Array(items) => {
            out.push('[');
            for (index, item) in items.iter().enumerate().take(MAX_INPUT_CHARS) {
                if index > 0 {
                    out.push_str(", ");
                }
                write_value(item, out);
            }
            out.push(']');
        }
        Value::Object(map) => {
            out.push('{');
            for (index, (key, item)) in map.iter().enumerate().take(MAX_INPUT_CHARS) {
                if index > 0 {
                    out.push_str(", ");
                }
                write_str(key, out);
                out.push_str(": ");
                write_value(item, out);
            }
            out.push('}');
        }
    }
}

fn write_str(text: &str, out: &mut String) {
    let quote = if text.contains('\'') && !text.contains('"') {
        '"'
    } else {
        '\''
    };
    out.push(quote);
    for c in text.chars().take(4 * MAX_INPUT_CHARS) {
        match c {
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c == quote => {
                out.push('\\');
                out.push(c);
            }
            c if c.is_control() => {
                let _ = write!(out, "\\x{:02x}", c as u32);
            }
            c => out.push(c),
        }
    }
    out.push(quote);
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn prints_like_python() {
        let value = json!({"a": [1, 2.0, null, true], "b": "it's\n", "c": 1e20, "d": 1e-7});
        assert_eq!(
            repr(&value),
            r#"{'a': [1, 2.0, None, True], 'b': "it's\n", 'c': 1e+20, 'd': 1e-07}"#
        );
        assert_eq!(repr_str("a'b\"c"), r#"'a\'b"c'"#);
        assert_eq!(repr_f64(f64::NEG_INFINITY), "-inf");
    }

    #[test]
    fn is_bounded() {
        let deep = Value::Array(vec![Value::String("x".repeat(10_000)); 10_000]);
        assert_eq!(repr(&deep).chars().count(), MAX_INPUT_CHARS + 3);
    }
}
