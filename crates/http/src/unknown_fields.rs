//! Fields that no request has: each is logged once, so that a misspelt name is found and a busy
//! client does not fill the log.
//!
//! Invariant: at most `max_num_names` names are kept, of at most [`MAX_NAME_CHARS`] characters.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

/// Characters of a name that are kept and logged.
const MAX_NAME_CHARS: usize = 64;

/// The names that were logged.
#[derive(Debug)]
pub(crate) struct UnknownFields {
    seen: Mutex<BTreeSet<String>>,
    max_num_names: usize,
}

impl UnknownFields {
    pub(crate) fn new(max_num_names: usize) -> Self {
        Self {
            seen: Mutex::default(),
            max_num_names,
        }
    }

    /// Says which fields of a request had no effect, where it has not been said before.
    pub(crate) fn log(&self, names: &[String]) {
        if names.is_empty() {
            return;
        }
        tracing::debug!(?names, "ignored unknown fields of a request");
        for name in self.new_ones(names) {
            // vLLM had these once and ignores them now: who sends them expects constrained output.
            match name.starts_with("guided_") {
                true => tracing::warn!(?name, "ignored a field that is no longer part of the API"),
                false => tracing::info!(?name, "ignored an unknown field; said once for each name"),
            }
        }
    }

    /// The names that are new, while there is room to remember them.
    fn new_ones(&self, names: &[String]) -> Vec<String> {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let mut new = Vec::new();
        for name in names {
            if seen.len() >= self.max_num_names {
                break;
            }
            let name: String = name.chars().take(MAX_NAME_CHARS).collect();
            if seen.insert(name.clone()) {
                new.push(name);
            }
        }
        new
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_new_once_and_few_are_kept() {
        let fields = UnknownFields::new(3);
        let new = |names: &[&str]| {
            let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
            fields.new_ones(&names)
        };
        assert_eq!(new(&["temprature", "foo"]), ["temprature", "foo"]);
        assert_eq!(new(&["foo", "temprature"]), [""; 0]);
        let long = "x".repeat(10_000);
        assert_eq!(new(&[&long]), ["x".repeat(MAX_NAME_CHARS)]);
        assert_eq!(new(&["one too many"]), [""; 0]);
    }
}
