//! JSON as Python's `json.dumps` writes it, for the `tojson` filter of chat templates.
//!
//! Models were trained on prompts that Python rendered: `{"a": 1}` with spaces, no HTML escapes,
//! floats as `1e+20`. A prompt that differs in one space is another prompt.
//!
//! Invariant: depth is bounded, and values that Python refuses (undefined, generators) are refused.

use std::fmt::Write as _;

use minijinja::value::{Kwargs, Value, ValueKind};
use minijinja::{Error, ErrorKind};
use serde_json::Value as Json;

use crate::pyrepr::write_float;

/// Containers nested deeper than this are refused; JSON from a request cannot nest that deep.
const MAX_DEPTH: usize = 256;

/// The keyword arguments of `json.dumps` that templates use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct JsonStyle {
    ensure_ascii: bool,
    indent: Option<String>,
    item_separator: String,
    key_separator: String,
    sort_keys: bool,
}

impl Default for JsonStyle {
    fn default() -> Self {
        Self {
            ensure_ascii: false,
            indent: None,
            item_separator: ", ".into(),
            key_separator: ": ".into(),
            sort_keys: false,
        }
    }
}

impl JsonStyle {
    /// From the arguments of transformers' filter:
    /// `tojson(ensure_ascii=False, indent=None, separators=None, sort_keys=False)`.
    fn from_args(positional: &[Value], kwargs: &Kwargs) -> Result<Self, Error> {
        let argument = |index: usize, name: &str| -> Result<Value, Error> {
            match positional.get(index) {
                Some(value) => Ok(value.clone()),
                None => Ok(kwargs.get::<Option<Value>>(name)?.unwrap_or_default()),
            }
        };
        let mut style = Self {
            ensure_ascii: argument(0, "ensure_ascii")?.is_true(),
            indent: indent_of(&argument(1, "indent")?)?,
            sort_keys: argument(3, "sort_keys")?.is_true(),
            ..Self::default()
        };
        if style.indent.is_some() {
            style.item_separator = ",".into();
        }
        let separators = argument(2, "separators")?;
        if !separators.is_undefined() && !separators.is_none() {
            let parts: Vec<Value> = separators.try_iter()?.collect();
            let [item, key] = parts.as_slice() else {
                return Err(invalid("separators must be a pair"));
            };
            style.item_separator = item.to_string();
            style.key_separator = key.to_string();
        }
        kwargs.assert_all_used()?;
        Ok(style)
    }
}

fn indent_of(value: &Value) -> Result<Option<String>, Error> {
    if value.is_undefined() || value.is_none() {
        return Ok(None);
    }
    if let Some(text) = value.as_str() {
        return Ok(Some(text.to_owned()));
    }
    let width = match value.kind() {
        ValueKind::Bool => usize::from(value.is_true()),
        _ => usize::try_from(value.clone())?,
    };
    if width > 64 {
        return Err(invalid("indent must be at most 64"));
    }
    Ok(Some(" ".repeat(width)))
}

/// The `tojson` filter.
pub(crate) fn tojson(
    value: &Value,
    positional: minijinja::value::Rest<Value>,
    kwargs: Kwargs,
) -> Result<Value, Error> {
    let style = JsonStyle::from_args(&positional, &kwargs)?;
    dumps(value, &style).map(Value::from)
}

/// `json.dumps(value, …)`.
pub(crate) fn dumps(value: &Value, style: &JsonStyle) -> Result<String, Error> {
    let mut writer = Writer {
        style,
        out: String::new(),
    };
    writer.value(value, 0)?;
    Ok(writer.out)
}

/// A JSON value as templates see it. Depth is bounded by the JSON parser.
pub(crate) fn to_jinja(json: &Json) -> Value {
    match json {
        Json::Null => Value::from(()),
        Json::Bool(flag) => Value::from(*flag),
        Json::Number(number) => match (number.as_i64(), number.as_u64()) {
            (Some(integer), _) => Value::from(integer),
            (_, Some(integer)) => Value::from(integer),
            _ => Value::from(number.as_f64().unwrap_or(f64::NAN)),
        },
        Json::String(text) => Value::from(text.as_str()),
        Json::Array(items) => list_to_jinja(items),
        Json::Object(map) => {
            Value::from_pairs(map.iter().map(|(key, item)| (key.as_str(), to_jinja(item))))
        }
    }
}

/// A list of JSON values as templates see it.
pub(crate) fn list_to_jinja(items: &[Json]) -> Value {
    Value::from(items.iter().map(to_jinja).collect::<Vec<Value>>())
}

fn invalid(message: impl Into<std::borrow::Cow<'static, str>>) -> Error {
    Error::new(ErrorKind::InvalidOperation, message)
}

struct Writer<'a> {
    style: &'a JsonStyle,
    out: String,
}

impl Writer<'_> {
    fn value(&mut self, value: &Value, depth: usize) -> Result<(), Error> {
        if depth > MAX_DEPTH {
            return Err(invalid("the value is nested too deeply for tojson"));
        }
        match value.kind() {
            ValueKind::None => self.out.push_str("null"),
            ValueKind::Bool => self
                .out
                .push_str(if value.is_true() { "true" } else { "false" }),
            ValueKind::Number => self.number(value),
            ValueKind::String => self.string(value.as_str().unwrap_or_default()),
            ValueKind::Seq => self.items(value, depth)?,
            ValueKind::Map => self.map(value, depth)?,
            // Slices and sums of lists are lists in Python; only real generators have no length.
            ValueKind::Iterable if value.len().is_some() => self.items(value, depth)?,
            ValueKind::Iterable => {
                return Err(invalid("Object of type generator is not JSON serializable"));
            }
            ValueKind::Undefined => {
                return Err(invalid("Object of type Undefined is not JSON serializable"));
            }
            kind => {
                return Err(invalid(format!(
                    "Object of type {kind} is not JSON serializable"
                )));
            }
        }
        Ok(())
    }

    fn number(&mut self, value: &Value) {
        match f64::try_from(value.clone()) {
            Ok(float) if !value.is_integer() => {
                if float.is_nan() {
                    self.out.push_str("NaN");
                } else if float.is_infinite() {
                    self.out
                        .push_str(if float > 0.0 { "Infinity" } else { "-Infinity" });
                } else {
                    write_float(float, &mut self.out);
                }
            }
            _ => {
                let _ = write!(self.out, "{value}");
            }
        }
    }

    fn items(&mut self, value: &Value, depth: usize) -> Result<(), Error> {
        self.out.push('[');
        let mut is_empty = true;
        for item in value.try_iter()? {
            self.before_item(is_empty, depth);
            is_empty = false;
            self.value(&item, depth + 1)?;
        }
        self.close(']', is_empty, depth);
        Ok(())
    }

    fn map(&mut self, value: &Value, depth: usize) -> Result<(), Error> {
        let mut pairs = Vec::new();
        for key in value.try_iter()? {
            let item = value.get_item(&key)?;
            pairs.push((self.key(&key)?, item));
        }
        if self.style.sort_keys {
            pairs.sort_by(|a, b| a.0.cmp(&b.0));
        }
        self.out.push('{');
        let is_empty = pairs.is_empty();
        for (index, (key, item)) in pairs.iter().enumerate() {
            self.before_item(index == 0, depth);
            self.string(key);
            self.out.push_str(&self.style.key_separator);
            self.value(item, depth + 1)?;
        }
        self.close('}', is_empty, depth);
        Ok(())
    }

    /// Keys that are not strings become strings, as in Python.
    fn key(&self, key: &Value) -> Result<String, Error> {
        match key.kind() {
            ValueKind::String => Ok(key.as_str().unwrap_or_default().to_owned()),
            ValueKind::None | ValueKind::Bool | ValueKind::Number => dumps(key, self.style),
            kind => Err(invalid(format!(
                "keys must be strings or numbers, not {kind}"
            ))),
        }
    }

    fn before_item(&mut self, is_first: bool, depth: usize) {
        if !is_first {
            self.out.push_str(&self.style.item_separator);
        }
        self.newline(depth + 1);
    }

    fn close(&mut self, bracket: char, is_empty: bool, depth: usize) {
        if !is_empty {
            self.newline(depth);
        }
        self.out.push(bracket);
    }

    fn newline(&mut self, depth: usize) {
        if let Some(indent) = &self.style.indent {
            self.out.push('\n');
            for _ in 0..depth {
                self.out.push_str(indent);
            }
        }
    }

    fn string(&mut self, text: &str) {
        self.out.push('"');
        for c in text.chars() {
            match c {
                '"' => self.out.push_str("\\\""),
                '\\' => self.out.push_str("\\\\"),
                '\n' => self.out.push_str("\\n"),
                '\r' => self.out.push_str("\\r"),
                '\t' => self.out.push_str("\\t"),
                '\u{8}' => self.out.push_str("\\b"),
                '\u{c}' => self.out.push_str("\\f"),
                c if (c as u32) < 0x20
                    || (self.style.ensure_ascii && !(' '..='~').contains(&c)) =>
                {
                    for unit in c.encode_utf16(&mut [0; 2]) {
                        let _ = write!(self.out, "\\u{unit:04x}");
                    }
                }
                c => self.out.push(c),
            }
        }
        self.out.push('"');
    }
}

#[cfg(test)]
#[path = "pyjson_test.rs"]
mod pyjson_test;
