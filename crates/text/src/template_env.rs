//! The template environment that transformers gives chat templates, under minijinja.
//!
//! What is set to match it: trimmed blocks, no trailing newline, loop controls, Python's methods,
//! `tojson` as Python's `json.dumps`, `raise_exception`, `int` and `float` that yield 0 for text
//! that is no number, dicts and lists printed as Python prints them, no HTML escapes anywhere.
//!
//! Invariant: nothing in the environment reads a file, a clock or another template.

use std::borrow::Cow;
use std::sync::Arc;

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Rest, Value, ValueKind, ValueOrKwargs};
use minijinja::{AutoEscape, Environment, Error, ErrorKind, Output, State, filters};

use crate::methods::{check_widths, unknown_method};
use crate::translate::ITERATED;
use crate::{pyjson, pyrepr};

/// The source of an error that a template raised itself.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Raised(pub(crate) String);

/// An environment for one chat template.
pub(crate) fn environment(max_fuel: u64) -> Environment<'static> {
    let mut env = Environment::new();
    let syntax = SyntaxConfig::builder()
        .trim_blocks(true)
        .lstrip_blocks(true)
        .keep_trailing_newline(false)
        .build()
        .expect("the default delimiters are valid");
    env.set_syntax(syntax);
    env.set_auto_escape_callback(|_| AutoEscape::None);
    env.set_formatter(format_value);
    env.set_unknown_method_callback(unknown_method);
    env.set_fuel(Some(max_fuel));
    env.add_filter("tojson", pyjson::tojson);
    env.add_filter("string", |value: &Value| pyrepr::to_str(value));
    env.add_filter("int", to_int);
    env.add_filter("float", to_float);
    env.add_test("sequence", |value: &Value| {
        matches!(
            value.kind(),
            ValueKind::Undefined | ValueKind::Seq | ValueKind::String | ValueKind::Map
        )
    });
    // Strings can be iterated in Python, and `none` cannot.
    env.add_test("iterable", |value: &Value| {
        !value.is_none() && (value.kind() == ValueKind::String || value.try_iter().is_ok())
    });
    env.add_filter(
        "format",
        |state: &mut State, format: &Value, args: Rest<ValueOrKwargs>| {
            check_widths(format)?;
            filters::format(state, format, args)
        },
    );
    add_generators(&mut env);
    env.add_function(ITERATED, iterated);
    env.add_function("raise_exception", raise_exception);
    env
}

/// What a `for` passes its sequence through: `none` is no sequence.
fn iterated(value: Value) -> Result<Value, Error> {
    if value.is_none() {
        return Err(Error::new(
            ErrorKind::InvalidOperation,
            "'NoneType' object is not iterable",
        ));
    }
    Ok(value)
}

/// `map`, `select` and their like yield generators in Python: without a length, and always true.
fn add_generators(env: &mut Environment<'static>) {
    type Args = Rest<ValueOrKwargs>;
    type Name<'a> = Option<Cow<'a, str>>;
    env.add_filter("map", |state: &mut State, value: Value, args: Args| {
        filters::map(state, value, args).map(generator)
    });
    env.add_filter(
        "select",
        |state: &mut State, value: Value, test: Name<'_>, args: Args| {
            filters::select(state, value, test, args).map(generator)
        },
    );
    env.add_filter(
        "reject",
        |state: &mut State, value: Value, test: Name<'_>, args: Args| {
            filters::reject(state, value, test, args).map(generator)
        },
    );
    env.add_filter(
        "selectattr",
        |state: &mut State, value: Value, attr: Cow<'_, str>, test: Name<'_>, args: Args| {
            filters::selectattr(state, value, attr, test, args).map(generator)
        },
    );
    env.add_filter(
        "rejectattr",
        |state: &mut State, value: Value, attr: Cow<'_, str>, test: Name<'_>, args: Args| {
            filters::rejectattr(state, value, attr, test, args).map(generator)
        },
    );
}

fn generator(values: Vec<Value>) -> Value {
    let values = Arc::new(values);
    Value::make_iterable(move || {
        let values = Arc::clone(&values);
        let mut next = 0;
        // `from_fn` has no length, not even where nothing comes.
        std::iter::from_fn(move || {
            next += 1;
            values.get(next - 1).cloned()
        })
    })
}

fn format_value(out: &mut Output, _state: &mut State, value: &Value) -> Result<(), Error> {
    if pyrepr::is_special(value) {
        out.write_str(&pyrepr::to_str(value)).map_err(Error::from)
    } else {
        write!(out, "{value}").map_err(Error::from)
    }
}

fn raise_exception(message: &Value) -> Result<Value, Error> {
    let message = pyrepr::to_str(message);
    Err(
        Error::new(ErrorKind::InvalidOperation, "raised by the template")
            .with_source(Raised(message)),
    )
}

/// `int(value)`, or the default (0) for what is no number, as jinja2's filter.
fn to_int(value: &Value, args: Rest<Value>) -> Value {
    let default = || args.first().cloned().unwrap_or_else(|| Value::from(0));
    match value.kind() {
        ValueKind::Bool => Value::from(i64::from(value.is_true())),
        ValueKind::Number if value.is_integer() => value.clone(),
        ValueKind::Number => truncated(f64::try_from(value.clone()).ok()).unwrap_or_else(default),
        ValueKind::String => {
            let text = value.as_str().unwrap_or_default().trim();
            let integer = text.replace('_', "").parse::<i64>().ok().map(Value::from);
            integer
                .or_else(|| truncated(text.parse().ok()))
                .unwrap_or_else(default)
        }
        _ => default(),
    }
}

fn truncated(float: Option<f64>) -> Option<Value> {
    let float = float.filter(|f| f.is_finite() && f.abs() < 9.2e18)?;
    Some(Value::from(float as i64))
}

/// `float(value)`, or the default (0.0) for what is no number, as jinja2's filter.
fn to_float(value: &Value, args: Rest<Value>) -> Value {
    let default = || args.first().cloned().unwrap_or_else(|| Value::from(0.0));
    match value.kind() {
        ValueKind::Bool => Value::from(f64::from(u8::from(value.is_true()))),
        ValueKind::Number => f64::try_from(value.clone()).map_or_else(|_| default(), Value::from),
        ValueKind::String => value
            .as_str()
            .and_then(|text| text.trim().parse::<f64>().ok())
            .map_or_else(default, Value::from),
        _ => default(),
    }
}
