//! Type errors of a request's fields, reported all at once in the shape of vLLM's (pydantic's)
//! messages.
//!
//! Invariant: a report shows at most [`MAX_REPORTED`] errors and [`crate::pyrepr::MAX_INPUT_CHARS`]
//! characters of each input, however many there are.

use serde_json::Value;

use crate::ApiError;
use crate::pyrepr::{clip, repr, repr_str};

/// Errors that a report shows at most.
const MAX_REPORTED: usize = 10;

/// One step of the way to a value inside the body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// A key of an object.
    Key(String),
    /// An index of an array, or an offset in bytes where the body is not JSON.
    Index(usize),
}

impl From<&str> for Step {
    fn from(key: &str) -> Self {
        Self::Key(key.to_owned())
    }
}

impl From<usize> for Step {
    fn from(index: usize) -> Self {
        Self::Index(index)
    }
}

/// Where a value is: its steps after `body`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Loc(Vec<Step>);

impl Loc {
    /// A field of the body.
    pub(crate) fn field(name: &str) -> Self {
        Self(vec![name.into()])
    }

    /// One step further in.
    pub(crate) fn at(&self, step: impl Into<Step>) -> Self {
        let mut steps = self.0.clone();
        steps.push(step.into());
        Self(steps)
    }

    fn tuple(&self) -> String {
        let mut out = String::from("('body',");
        for (index, step) in self.0.iter().enumerate() {
            out.push_str(if index == 0 { " " } else { ", " });
            match step {
                Step::Key(key) => out.push_str(&repr_str(&clip(key, 100))),
                Step::Index(index) => out.push_str(&index.to_string()),
            }
        }
        out.push(')');
        out
    }

    fn dotted(&self) -> String {
        let mut out = String::from("body");
        for step in &self.0 {
            out.push('.');
            match step {
                Step::Key(key) => out.push_str(&clip(key, 100)),
                Step::Index(index) => out.push_str(&index.to_string()),
            }
        }
        out
    }
}

/// The errors found so far in one body.
#[derive(Debug, Default)]
pub(crate) struct Validation {
    shown: Vec<String>,
    first: Option<Loc>,
    count: usize,
}

impl Validation {
    /// Notes an error. `kind` is pydantic's name of it.
    pub(crate) fn push(&mut self, kind: &str, loc: &Loc, msg: &str, input: &Value) {
        self.count += 1;
        if self.first.is_none() {
            self.first = Some(loc.clone());
        }
        if self.shown.len() < MAX_REPORTED {
            self.shown.push(format!(
                "{{'type': '{kind}', 'loc': {}, 'msg': {}, 'input': {}}}",
                loc.tuple(),
                repr_str(msg),
                repr(input)
            ));
        }
    }

    /// The report, where there is something to report.
    pub(crate) fn into_error(self) -> Option<ApiError> {
        let first = self.first?;
        let message = format!(
            "{} validation error(s):\n  {}",
            self.count,
            self.shown.join("\n  ")
        );
        Some(ApiError::new(400, "Bad Request", message).with_param(first.dotted()))
    }

    /// Ends a parse: `Ok` where nothing was noted.
    pub(crate) fn finish(self) -> Result<(), ApiError> {
        self.into_error().map_or(Ok(()), Err)
    }
}

/// A report of one error.
pub(crate) fn single(kind: &str, loc: &Loc, msg: &str, input: &Value) -> ApiError {
    let mut validation = Validation::default();
    validation.push(kind, loc, msg, input);
    validation
        .into_error()
        .expect("one error was noted just now")
}

/// A value that is out of range: message and param, as vLLM's `ValueError` gives them.
pub(crate) fn value_error(param: &str, message: String) -> ApiError {
    ApiError::bad_request(message).with_param(param)
}

/// The same with vLLM's suffix ` (parameter=x, value=y)`.
pub(crate) fn parameter_error(param: &str, message: &str, value: Option<&str>) -> ApiError {
    let value = value.map(|v| format!(", value={v}")).unwrap_or_default();
    value_error(param, format!("{message} (parameter={param}{value})"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn reports_in_pydantic_shape() {
        let error = single(
            "missing",
            &Loc::field("messages"),
            "Field required",
            &json!({"a": 1}),
        );
        assert_eq!(
            error.message,
            "1 validation error(s):\n  {'type': 'missing', 'loc': ('body', 'messages'), \
             'msg': 'Field required', 'input': {'a': 1}}"
        );
        assert_eq!(error.param.as_deref(), Some("body.messages"));
        assert_eq!((error.status, &*error.error_type), (400, "Bad Request"));
    }

    #[test]
    fn counts_all_and_shows_ten() {
        let mut validation = Validation::default();
        for index in 0..1000 {
            let loc = Loc::field("stop").at(index);
            validation.push("string_type", &loc, "no", &json!("x".repeat(10_000)));
        }
        let message = validation.into_error().unwrap().message;
        assert!(message.starts_with("1000 validation error(s):\n"));
        assert_eq!(message.lines().count(), 11);
        assert!(message.len() < 4000);
    }
}
