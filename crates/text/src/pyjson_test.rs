//! `json.dumps`, as CPython 3.11 prints the same values.

use serde_json::json;

use super::*;

fn style(ensure_ascii: bool, indent: Option<usize>, sort_keys: bool) -> JsonStyle {
    let item_separator = if indent.is_some() { "," } else { ", " };
    JsonStyle {
        ensure_ascii,
        indent: indent.map(|n| " ".repeat(n)),
        item_separator: item_separator.into(),
        sort_keys,
        ..JsonStyle::default()
    }
}

fn dump(value: serde_json::Value, style: &JsonStyle) -> String {
    dumps(&to_jinja(&value), style).unwrap()
}

#[test]
fn separators_and_escapes() {
    let value = json!({"b": [1, 2.5, null, true], "a<b>": "é\"\\\n\u{7f}\u{1}/'"});
    assert_eq!(
        dump(value, &JsonStyle::default()),
        "{\"b\": [1, 2.5, null, true], \"a<b>\": \"é\\\"\\\\\\n\u{7f}\\u0001/'\"}"
    );
}

#[test]
fn ascii_only() {
    let value = json!("é 東 😀 \u{7f}");
    assert_eq!(
        dump(value, &style(true, None, false)),
        r#""\u00e9 \u6771 \ud83d\ude00 \u007f""#
    );
}

#[test]
fn indented_and_sorted() {
    let value = json!({"b": {"c": [], "d": {}}, "a": [1, [2]]});
    assert_eq!(
        dump(value, &style(false, Some(2), true)),
        "{\n  \"a\": [\n    1,\n    [\n      2\n    ]\n  ],\n  \
         \"b\": {\n    \"c\": [],\n    \"d\": {}\n  }\n}"
    );
}

#[test]
fn floats() {
    let value = json!([1.0, 1e20, 1e-7, 0.1, 1e16, 123_456_789_012_345_680.0, -0.0]);
    assert_eq!(
        dump(value, &JsonStyle::default()),
        "[1.0, 1e+20, 1e-07, 0.1, 1e+16, 1.2345678901234568e+17, -0.0]"
    );
}

#[test]
fn deep_values_are_refused() {
    let mut value = Value::from(1);
    for _ in 0..=MAX_DEPTH {
        value = Value::from(vec![value]);
    }
    assert!(dumps(&value, &JsonStyle::default()).is_err());
}
