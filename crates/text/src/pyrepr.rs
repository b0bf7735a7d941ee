//! Values as Python's `str` and `repr` print them, for templates that print a dict or list
//! directly.
//!
//! Invariant: depth is bounded; what lies deeper is printed as `...`.

use std::fmt::Write as _;

use minijinja::value::{Value, ValueKind};

const MAX_DEPTH: usize = 256;

/// `str(value)`: strings bare, everything else as `repr`.
pub(crate) fn to_str(value: &Value) -> String {
    let mut out = String::new();
    match value.as_str() {
        Some(text) => out.push_str(text),
        None if value.is_undefined() => {}
        None => write_repr(value, 0, &mut out),
    }
    out
}

/// Whether `repr` differs from how the template engine prints the value.
pub(crate) fn is_special(value: &Value) -> bool {
    match value.kind() {
        ValueKind::Seq | ValueKind::Map | ValueKind::Iterable => true,
        ValueKind::Number => !value.is_integer(),
        _ => false,
    }
}

fn write_repr(value: &Value, depth: usize, out: &mut String) {
    if depth > MAX_DEPTH {
        out.push_str("...");
        return;
    }
    match value.kind() {
        ValueKind::String => write_quoted(value.as_str().unwrap_or_default(), out),
        ValueKind::Number if !value.is_integer() => match f64::try_from(value.clone()) {
            Ok(float) => write_float(float, out),
            Err(_) => {
                let _ = write!(out, "{value}");
            }
        },
        ValueKind::Map => {
            out.push('{');
            for (index, key) in value.try_iter().into_iter().flatten().enumerate() {
                if index > 0 {
                    out.push_str(", ");
                }
                write_repr(&key, depth + 1, out);
                out.push_str(": ");
                write_repr(&value.get_item(&key).unwrap_or_default(), depth + 1, out);
            }
            out.push('}');
        }
        ValueKind::Seq | ValueKind::Iterable => {
            let (open, close) = if value.is_tuple() {
                ('(', ')')
            } else {
                ('[', ']')
            };
            out.push(open);
            let mut num_items = 0;
            for item in value.try_iter().into_iter().flatten() {
                if num_items > 0 {
                    out.push_str(", ");
                }
                num_items += 1;
                write_repr(&item, depth + 1, out);
            }
            if value.is_tuple() && num_items == 1 {
                out.push(',');
            }
            out.push(close);
        }
        ValueKind::Undefined => out.push_str("Undefined"),
        _ => {
            let _ = write!(out, "{value}");
        }
    }
}

/// `repr(float)`.
pub(crate) fn write_float(float: f64, out: &mut String) {
    if float.is_nan() {
        out.push_str("nan");
    } else if float.is_infinite() {
        out.push_str(if float > 0.0 { "inf" } else { "-inf" });
    } else {
        let text = format!("{float:e}");
        let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
        let exponent: i32 = exponent.parse().unwrap_or(0);
        // Python switches to an exponent below 1e-4 and from 1e16.
        if float != 0.0 && !(-4..16).contains(&exponent) {
            let sign = if exponent < 0 { '-' } else { '+' };
            let _ = write!(out, "{digits}e{sign}{:02}", exponent.abs());
        } else {
            let plain = format!("{float}");
            out.push_str(&plain);
            if !plain.contains('.') {
                out.push_str(".0");
            }
        }
    }
}

fn write_quoted(text: &str, out: &mut String) {
    let quote = if text.contains('\'') && !text.contains('"') {
        '"'
    } else {
        '\''
    };
    out.push(quote);
    for c in text.chars() {
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
        let value =
            json!({"a": [1, 2.0, null, true], "b": "it's\n", "c": "x'\"", "d": 1e-5, "e": {}});
        assert_eq!(
            to_str(&crate::pyjson::to_jinja(&value)),
            r#"{'a': [1, 2.0, None, True], 'b': "it's\n", 'c': 'x\'"', 'd': 1e-05, 'e': {}}"#
        );
        assert_eq!(to_str(&Value::from("it's")), "it's");
        assert_eq!(to_str(&Value::from(0.0001)), "0.0001");
        assert_eq!(to_str(&Value::from(1.5e300)), "1.5e+300");
    }
}
