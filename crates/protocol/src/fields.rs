//! The body's fields, taken one by one with a type each, errors collected.
//!
//! Types are read as pydantic's lax mode reads them, as far as it is unambiguous: `"0.5"` is a
//! float, `2.0` an int, `"true"` a bool. Unlike pydantic, a bool is never a number.
//!
//! Invariant: a field is taken once; what is left at the end is unknown to the API and reported as
//! such.

use serde_json::Value;
use serde_json::value::RawValue;

use crate::ApiError;
use crate::json::{RawFields, parse_value};
use crate::validation::{Loc, Validation, single};

/// An error that is among the collected ones.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Noted;

/// The fields of one body that were not taken yet, and the errors of those that were.
#[derive(Debug)]
pub(crate) struct Fields<'a> {
    raw: RawFields<'a>,
    pub(crate) validation: Validation,
}

impl<'a> Fields<'a> {
    /// Splits a body.
    ///
    /// # Errors
    /// 400 where it is empty, not JSON, or not an object.
    pub(crate) fn parse(body: &'a [u8]) -> Result<Self, ApiError> {
        // Python's `json` passes over a byte order mark, which some editors and shells write.
        let body = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body);
        if body.iter().all(u8::is_ascii_whitespace) {
            let loc = Loc::default();
            return Err(single("missing", &loc, "Field required", &Value::Null));
        }
        let text = std::str::from_utf8(body)
            .map_err(|error| invalid_json(error.valid_up_to(), "the body is not UTF-8"))?;
        let first = text.trim_start().bytes().next();
        if first != Some(b'{') && serde_json::from_str::<&RawValue>(text).is_ok() {
            let msg = "Input should be a valid dictionary or object to extract fields from";
            let input = parse_value(text).unwrap_or(Value::Null);
            let loc = Loc::default();
            return Err(single("model_attributes_type", &loc, msg, &input));
        }
        match serde_json::from_str(text) {
            Ok(raw) => Ok(Self {
                raw,
                validation: Validation::default(),
            }),
            Err(error) => Err(invalid_json(offset(text, &error), &describe(&error))),
        }
    }

    /// The text of a field, `None` where it is absent or null.
    pub(crate) fn raw(&mut self, name: &str) -> Option<&'a str> {
        let text = self.raw.0.shift_remove(name)?.get();
        (text != "null").then_some(text)
    }

    /// Whether a field is there, null included. Does not take it.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.raw.0.contains_key(name)
    }

    /// Any value; `None` where the field is absent, null, or noted as broken.
    pub(crate) fn value(&mut self, name: &str) -> Option<Value> {
        let value = self.value_or_null(name).ok()?;
        (!value.is_null()).then_some(value)
    }

    /// Any value, null where the field is absent.
    ///
    /// # Errors
    /// The text is no value, which has been noted.
    pub(crate) fn value_or_null(&mut self, name: &str) -> Result<Value, Noted> {
        let Some(text) = self.raw(name) else {
            return Ok(Value::Null);
        };
        parse_value(text).map_err(|error| {
            let msg = format!("JSON decode error: {}", describe(&error));
            let loc = Loc::field(name);
            self.validation
                .push("json_invalid", &loc, &msg, &Value::Null);
            Noted
        })
    }

    /// Notes that a required field is missing.
    pub(crate) fn missing(&mut self, name: &str) {
        let keys = self.raw.0.keys().take(8);
        let input = keys.map(|key| (key.clone(), Value::from("..."))).collect();
        let loc = Loc::field(name);
        self.validation
            .push("missing", &loc, "Field required", &Value::Object(input));
    }

    /// A boolean.
    pub(crate) fn boolean(&mut self, name: &str) -> Option<bool> {
        let value = self.value(name)?;
        let parsed = to_bool(&value);
        if parsed.is_none() {
            let msg = "Input should be a valid boolean, unable to interpret input";
            let loc = Loc::field(name);
            self.validation.push("bool_parsing", &loc, msg, &value);
        }
        parsed
    }

    /// An integer.
    pub(crate) fn integer(&mut self, name: &str) -> Option<i64> {
        let value = self.value(name)?;
        to_integer(&value, &Loc::field(name), &mut self.validation)
    }

    /// An integer of at least `min`.
    pub(crate) fn integer_at_least(&mut self, name: &str, min: i64) -> Option<i64> {
        let number = self.integer(name)?;
        if number < min {
            let msg = format!("Input should be greater than or equal to {min}");
            let loc = Loc::field(name);
            self.validation
                .push("greater_than_equal", &loc, &msg, &Value::from(number));
            return None;
        }
        Some(number)
    }

    /// A float; it may be NaN or infinite where it came as a string.
    pub(crate) fn number(&mut self, name: &str) -> Option<f64> {
        let value = self.value(name)?;
        to_number(&value, &Loc::field(name), &mut self.validation)
    }

    /// A string.
    pub(crate) fn string(&mut self, name: &str) -> Option<String> {
        match self.value(name)? {
            Value::String(text) => Some(text),
            other => {
                self.expected_string(&Loc::field(name), &other);
                None
            }
        }
    }

    /// One of some strings.
    pub(crate) fn one_of(&mut self, name: &str, allowed: &[&'static str]) -> Option<&'static str> {
        let value = self.value(name)?;
        let found = allowed.iter().find(|&&item| value == item).copied();
        if found.is_none() {
            let quoted: Vec<String> = allowed.iter().map(|item| format!("'{item}'")).collect();
            let msg = format!("Input should be {}", quoted.join(" or "));
            let loc = Loc::field(name);
            self.validation.push("literal_error", &loc, &msg, &value);
        }
        found
    }

    /// An array.
    pub(crate) fn array(&mut self, name: &str) -> Option<Vec<Value>> {
        match self.value(name)? {
            Value::Array(items) => Some(items),
            other => {
                let msg = "Input should be a valid list";
                let loc = Loc::field(name);
                self.validation.push("list_type", &loc, msg, &other);
                None
            }
        }
    }

    /// An object.
    pub(crate) fn object(&mut self, name: &str) -> Option<serde_json::Map<String, Value>> {
        match self.value(name)? {
            Value::Object(map) => Some(map),
            other => {
                let msg = "Input should be a valid dictionary";
                let loc = Loc::field(name);
                self.validation.push("dict_type", &loc, msg, &other);
                None
            }
        }
    }

    /// An array of integers.
    pub(crate) fn integers(&mut self, name: &str) -> Option<Vec<i64>> {
        let text = self.raw(name)?;
        self.integer_list(name, text)
    }

    /// An array of integers in `text`, the value of field `name`. Long lists take no tree.
    pub(crate) fn integer_list(&mut self, name: &str, text: &str) -> Option<Vec<i64>> {
        if let Ok(numbers) = serde_json::from_str(text) {
            return Some(numbers);
        }
        let loc = Loc::field(name);
        match parse_value(text) {
            Ok(Value::Array(items)) => {
                let numbers = items
                    .iter()
                    .enumerate()
                    .map(|(index, item)| to_integer(item, &loc.at(index), &mut self.validation));
                // Every item is looked at, so that every error is counted.
                let numbers: Vec<Option<i64>> = numbers.collect();
                numbers.into_iter().collect()
            }
            Ok(other) => {
                let msg = "Input should be a valid list";
                self.validation.push("list_type", &loc, msg, &other);
                None
            }
            Err(error) => {
                let msg = format!("JSON decode error: {}", describe(&error));
                self.validation
                    .push("json_invalid", &loc, &msg, &Value::Null);
                None
            }
        }
    }

    /// Notes that a string was expected at `loc`.
    pub(crate) fn expected_string(&mut self, loc: &Loc, input: &Value) {
        let msg = "Input should be a valid string";
        self.validation.push("string_type", loc, msg, input);
    }

    /// Takes fields that have no effect here.
    pub(crate) fn ignore(&mut self, names: &[&str]) {
        for name in names {
            self.raw.0.shift_remove(*name);
        }
    }

    /// Ends the parse early where something is wrong already.
    pub(crate) fn check(&mut self) -> Result<(), ApiError> {
        std::mem::take(&mut self.validation).finish()
    }

    /// Ends the parse: the names of fields nobody took, or the errors.
    pub(crate) fn finish(self) -> Result<Vec<String>, ApiError> {
        self.validation.finish()?;
        Ok(self.raw.0.into_keys().collect())
    }
}

fn to_bool(value: &Value) -> Option<bool> {
    match value {
        Value::Bool(value) => Some(*value),
        Value::Number(number) => match number.as_f64() {
            Some(0.0) => Some(false),
            Some(1.0) => Some(true),
            _ => None,
        },
        Value::String(text) => match text.to_ascii_lowercase().as_str() {
            "1" | "true" | "t" | "yes" | "y" | "on" => Some(true),
            "0" | "false" | "f" | "no" | "n" | "off" => Some(false),
            _ => None,
        },
        _ => None,
    }
}

/// Reads an integer, or notes why it is none.
pub(crate) fn to_integer(value: &Value, loc: &Loc, validation: &mut Validation) -> Option<i64> {
    let (kind, msg) = match value {
        Value::Number(number) => match (number.as_i64(), number.as_f64()) {
            (Some(number), _) => return Some(number),
            (None, Some(float)) if float.fract() != 0.0 => (
                "int_from_float",
                "Input should be a valid integer, got a number with a fractional part",
            ),
            // 2^53: above it a float does not say which integer was meant.
            (None, Some(float)) if number.is_f64() && float.abs() <= 9_007_199_254_740_992.0 => {
                return Some(float as i64);
            }
            _ => (
                "int_parsing_size",
                "Unable to parse input string as an integer, exceeded maximum size",
            ),
        },
        Value::String(text) => match text.trim().parse() {
            Ok(number) => return Some(number),
            Err(_) => (
                "int_parsing",
                "Input should be a valid integer, unable to parse string as an integer",
            ),
        },
        _ => ("int_type", "Input should be a valid integer"),
    };
    validation.push(kind, loc, msg, value);
    None
}

/// Reads a float, or notes why it is none.
pub(crate) fn to_number(value: &Value, loc: &Loc, validation: &mut Validation) -> Option<f64> {
    let (kind, msg) = match value {
        Value::Number(number) if number.as_f64().is_some() => return number.as_f64(),
        Value::String(text) => match text.trim().parse() {
            Ok(number) => return Some(number),
            Err(_) => (
                "float_parsing",
                "Input should be a valid number, unable to parse string as a number",
            ),
        },
        _ => ("float_type", "Input should be a valid number"),
    };
    validation.push(kind, loc, msg, value);
    None
}

fn invalid_json(offset: usize, msg: &str) -> ApiError {
    let msg = format!("JSON decode error: {msg}");
    let loc = Loc::default().at(offset);
    single("json_invalid", &loc, &msg, &Value::Null)
}

/// What is wrong, without serde_json's line and column.
fn describe(error: &serde_json::Error) -> String {
    let text = error.to_string();
    match text.rfind(" at line ") {
        Some(end) => text[..end].to_owned(),
        None => text,
    }
}

/// The byte offset of serde_json's line and column.
fn offset(text: &str, error: &serde_json::Error) -> usize {
    let line_start = match error.line() {
        0 | 1 => 0,
        line => text
            .bytes()
            .enumerate()
            .filter(|(_, byte)| *byte == b'\n')
            .nth(line - 2)
            .map_or(0, |(index, _)| index + 1),
    };
    (line_start + error.column().saturating_sub(1)).min(text.len())
}
