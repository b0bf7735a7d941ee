//! Options in the environment: `HOTSPARE_…`, and `VLLM_API_KEY`.
//!
//! A misspelt variable would be an option that silently does nothing, so each that is set and
//! that nobody reads is named in a warning.
//!
//! Invariant: no message has the value of a variable that it does not know: it may be a secret.

use std::collections::BTreeMap;
use std::ffi::OsString;

use hotspare_engine::{FAULTS_VARIABLE, LIFE_VARIABLE};

use super::CliError;
use super::args::ServeArgs;
use super::layers::{is_list, options, parse_one, serve_command};

/// What our variables begin with.
const PREFIX: &str = "HOTSPARE_";

/// Set where the names are vLLM's own: used when ours is not set.
const ALIASES: [(&str, &str); 1] = [("api-key", "VLLM_API_KEY")];

/// What Kubernetes sets for a service named hotspare, beside `HOTSPARE_PORT`.
const OF_KUBERNETES: [&str; 3] = [
    "HOTSPARE_SERVICE_HOST",
    "HOTSPARE_SERVICE_PORT",
    "HOTSPARE_PORT_",
];

/// The variables that may concern this program.
#[derive(Default)]
pub(crate) struct Environment(BTreeMap<String, OsString>);

impl Environment {
    /// Keeps ours of all variables.
    pub(crate) fn new(all: impl IntoIterator<Item = (OsString, OsString)>) -> Self {
        let ours = all.into_iter().filter_map(|(name, value)| {
            let name = name.into_string().ok()?;
            let is_alias = ALIASES.iter().any(|(_, alias)| *alias == name);
            (is_alias || name.starts_with(PREFIX)).then_some((name, value))
        });
        Self(ours.collect())
    }

    /// A variable that is set and not empty.
    fn get(&self, name: &str) -> Result<Option<&str>, CliError> {
        let Some(value) = self.0.get(name).filter(|value| !value.is_empty()) else {
            return Ok(None);
        };
        match value.to_str() {
            Some(text) => Ok(Some(text)),
            None => Err(CliError::Message(format!("{name} is not UTF-8"))),
        }
    }

    /// What it sets.
    pub(super) fn options(&self, warnings: &mut Vec<String>) -> Result<ServeArgs, CliError> {
        let merged = self.options_of("", warnings)?;
        let command = serve_command();
        let mut known = vec![FAULTS_VARIABLE.to_owned(), LIFE_VARIABLE.to_owned()];
        // Of `hotspare reload`.
        known.push("HOTSPARE_URL".to_owned());
        known.extend(options(&command).map(|(name, _)| variable(name)));
        self.warn_of_unknown(&known, warnings);
        Ok(merged)
    }

    /// What it sets of the options whose names begin with `prefix`.
    pub(super) fn options_of(
        &self,
        prefix: &str,
        warnings: &mut Vec<String>,
    ) -> Result<ServeArgs, CliError> {
        let command = serve_command();
        let mut merged = ServeArgs::default();
        for (name, option) in options(&command) {
            if !name.starts_with(prefix) {
                continue;
            }
            let ours = variable(name);
            let alias = ALIASES.iter().find(|(of, _)| *of == name);
            let (variable, value) = match (self.get(&ours)?, alias) {
                (None, Some((_, alias))) => ((*alias).to_owned(), self.get(alias)?),
                (value, _) => (ours, value),
            };
            let Some(value) = value else {
                continue;
            };
            if name == "port" && value.starts_with("tcp://") {
                warnings.push(format!(
                    "{variable} was set by Kubernetes for a service named hotspare; ignored."
                ));
                continue;
            }
            let values: Vec<String> = match is_list(option) {
                true => value
                    .split(',')
                    .map(|part| part.trim().to_owned())
                    .collect(),
                false => vec![value.to_owned()],
            };
            let parsed = parse_one(name, &values)
                .map_err(|error| CliError::Message(format!("{variable}: {error}")))?;
            merged = merged.or(parsed);
        }
        Ok(merged)
    }

    fn warn_of_unknown(&self, known: &[String], warnings: &mut Vec<String>) {
        let is_of_kubernetes =
            |name: &str| OF_KUBERNETES.iter().any(|prefix| name.starts_with(prefix));
        for name in self.0.keys() {
            let is_ours = name.starts_with(PREFIX);
            if is_ours && !known.contains(name) && !is_of_kubernetes(name) {
                warnings.push(format!(
                    "{name} is set in the environment and is no option of this build; ignored."
                ));
            }
        }
    }
}

/// The variable of an option.
fn variable(name: &str) -> String {
    format!("{PREFIX}{}", name.replace('-', "_").to_uppercase())
}
