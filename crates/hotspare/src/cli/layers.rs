//! The lowest layer of options, the configuration file, and what it shares with the environment.
//!
//! A value from either is handed to clap as `--name=value`, so it means and is checked the same.
//!
//! Invariant: an error names the file and the key that it is about.

use clap::{Arg, ArgMatches, Args, Command, FromArgMatches};
use toml::Value;

use super::CliError;
use super::args::ServeArgs;
use super::normalize::is_switch;

/// The options of `serve`, as a command of its own.
pub(crate) fn serve_command() -> Command {
    ServeArgs::augment_args(Command::new("serve"))
}

/// The options by their long names, but for clap's own.
pub(super) fn options(command: &Command) -> impl Iterator<Item = (&str, &Arg)> {
    command
        .get_arguments()
        .filter_map(|option| Some((option.get_long()?, option)))
        .filter(|(name, _)| !matches!(*name, "help" | "version"))
}

/// Whether several values may follow.
pub(super) fn is_list(option: &Arg) -> bool {
    let num_values = option.get_num_args();
    num_values.is_some_and(|range| range.max_values() > 1)
}

/// Parses one option's values; the error is one sentence.
pub(super) fn parse_one(name: &str, values: &[String]) -> Result<ServeArgs, String> {
    let args = values.iter().map(|value| format!("--{name}={value}"));
    let args = std::iter::once("serve".to_owned()).chain(args);
    let matches: Result<ArgMatches, clap::Error> = serve_command().try_get_matches_from(args);
    matches
        .and_then(|matches| ServeArgs::from_arg_matches(&matches))
        .map_err(|error| {
            let text = error.to_string();
            let sentence = text.lines().next().unwrap_or_default();
            sentence.trim_start_matches("error: ").to_owned()
        })
}

/// What the file sets; `path` is for messages.
pub(crate) fn from_toml(text: &str, path: &str) -> Result<ServeArgs, CliError> {
    let error = |message: String| CliError::Message(format!("{path}: {message}"));
    let table: toml::Table = text
        .parse()
        .map_err(|e: toml::de::Error| error(e.to_string()))?;
    let command = serve_command();
    let mut merged = ServeArgs::default();
    for (key, value) in &table {
        let name = key.replace('_', "-");
        let option = options(&command).find(|(known, _)| *known == name && name != "config");
        let Some((_, option)) = option else {
            return Err(error(format!("unknown option `{key}`")));
        };
        let values = toml_values(value, option).map_err(|e| error(format!("`{key}` {e}")))?;
        let parsed = parse_one(&name, &values).map_err(|e| error(format!("`{key}`: {e}")))?;
        merged = merged.or(parsed);
    }
    Ok(merged)
}

/// A value of the file as the values of an argument.
fn toml_values(value: &Value, option: &Arg) -> Result<Vec<String>, String> {
    match value {
        Value::Array(_) if !is_list(option) => Err("takes one value, not a list".to_owned()),
        Value::Array(values) => values.iter().map(toml_scalar).collect(),
        Value::Boolean(_) if !is_switch(option) => Err("is not a switch".to_owned()),
        value => Ok(vec![toml_scalar(value)?]),
    }
}

fn toml_scalar(value: &Value) -> Result<String, String> {
    match value {
        Value::String(text) => Ok(text.clone()),
        Value::Integer(number) => Ok(number.to_string()),
        Value::Float(number) => Ok(number.to_string()),
        Value::Boolean(switch) => Ok(switch.to_string()),
        // An option whose value is JSON may be written as a table.
        Value::Table(table) => serde_json::to_string(table).map_err(|e| e.to_string()),
        Value::Datetime(_) => Err("cannot be a date".to_owned()),
        Value::Array(_) => Err("cannot be a list of lists".to_owned()),
    }
}
