//! Python methods in chat templates that the template engine's own compatibility layer lacks.
//!
//! Invariant: a method that Python's sandbox refuses (one that changes its object) is refused here
//! too.

use minijinja::value::{Value, ValueKind, from_args};
use minijinja::{Error, ErrorKind, State};
use minijinja_contrib::pycompat;

/// Digits of a width in a format string.
const MAX_WIDTH_DIGITS: usize = 4;

/// Called for a method that the value itself does not have.
pub(crate) fn unknown_method(
    state: &mut State,
    value: &Value,
    method: &str,
    args: &[Value],
) -> Result<Value, Error> {
    match (value.kind(), method) {
        (ValueKind::String, "format") => {
            check_widths(value)?;
            pycompat::unknown_method_callback(state, value, method, args)
        }
        (ValueKind::String, _) => {
            match string_method(value.as_str().unwrap_or_default(), method, args) {
                Some(result) => result,
                None => pycompat::unknown_method_callback(state, value, method, args),
            }
        }
        _ => pycompat::unknown_method_callback(state, value, method, args),
    }
}

/// Refuses a format string whose width or precision asks for an absurd amount of padding.
pub(crate) fn check_widths(format: &Value) -> Result<(), Error> {
    let mut digits = 0;
    for c in format.as_str().unwrap_or_default().chars() {
        digits = if c.is_ascii_digit() { digits + 1 } else { 0 };
        if digits > MAX_WIDTH_DIGITS {
            let message = "a number in a format string has too many digits";
            return Err(Error::new(ErrorKind::InvalidOperation, message));
        }
    }
    Ok(())
}

fn string_method(text: &str, method: &str, args: &[Value]) -> Option<Result<Value, Error>> {
    Some(match method {
        "removeprefix" => one_str(args).map(|p| text.strip_prefix(p).unwrap_or(text).into()),
        "removesuffix" => one_str(args).map(|s| text.strip_suffix(s).unwrap_or(text).into()),
        "partition" => one_str(args).map(|sep| {
            let (head, tail) = text.split_once(sep).unwrap_or((text, ""));
            let sep = if text.contains(sep) { sep } else { "" };
            [head, sep, tail].into_iter().map(Value::from).collect()
        }),
        "index" => one_str(args).and_then(|needle| match text.find(needle) {
            Some(at) => Ok(text[..at].chars().count().into()),
            None => Err(Error::new(
                ErrorKind::InvalidOperation,
                "substring not found",
            )),
        }),
        "zfill" => width(args).map(|width| {
            let (sign, digits) = match text.strip_prefix(['-', '+']) {
                Some(digits) => text.split_at(text.len() - digits.len()),
                None => ("", text),
            };
            let fill = width.saturating_sub(text.chars().count());
            format!("{sign}{}{digits}", "0".repeat(fill)).into()
        }),
        _ => return None,
    })
}

fn one_str(args: &[Value]) -> Result<&str, Error> {
    from_args::<(&str,)>(args).map(|(text,)| text)
}

fn width(args: &[Value]) -> Result<usize, Error> {
    let (width,): (usize,) = from_args(args)?;
    if width > 1_000 {
        return Err(Error::new(
            ErrorKind::InvalidOperation,
            "zfill is limited to 1000 characters",
        ));
    }
    Ok(width)
}
