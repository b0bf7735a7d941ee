//! A rendering that runs in another process: what it takes, and what comes of it, as bytes.
//!
//! The template engine bounds instructions and output, not memory: a template can double a string
//! in each turn of a loop. Only an operating system bounds that, and only for a process.
//!
//! Invariant: a job says everything that its text depends on.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::error::TextError;
use crate::strftime::LocalTime;
use crate::template::{ChatInput, ChatTemplate, TemplateLimits};

/// A template of a request's own, and what it is to render.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RenderJob {
    pub(crate) source: String,
    pub(crate) max_fuel: u64,
    pub(crate) max_output_bytes: usize,
    pub(crate) messages: Vec<Value>,
    pub(crate) tools: Option<Vec<Value>>,
    pub(crate) documents: Option<Vec<Value>>,
    pub(crate) add_generation_prompt: bool,
    pub(crate) continue_final_message: bool,
    pub(crate) kwargs: Map<String, Value>,
    pub(crate) unix_secs: i64,
    pub(crate) utc_offset_secs: i32,
    pub(crate) named_tokens: Vec<(String, String)>,
    pub(crate) extra_special_tokens: Vec<String>,
}

impl RenderJob {
    /// Renders it here.
    ///
    /// # Errors
    /// Those of [`ChatTemplate`].
    pub fn run(&self) -> Result<String, TextError> {
        let limits = TemplateLimits {
            max_fuel: self.max_fuel,
            max_output_bytes: self.max_output_bytes,
        };
        let template = ChatTemplate::with_limits(&self.source, limits)?;
        let input = ChatInput {
            messages: &self.messages,
            tools: self.tools.as_deref(),
            documents: self.documents.as_deref(),
            add_generation_prompt: self.add_generation_prompt,
            continue_final_message: self.continue_final_message,
            kwargs: Some(&self.kwargs),
            now: LocalTime {
                unix_secs: self.unix_secs,
                utc_offset_secs: self.utc_offset_secs,
            },
        };
        let named = self.named_tokens.iter();
        let named = named.map(|(name, token)| (name.as_str(), token.as_str()));
        template.render(&input, named, &self.extra_special_tokens)
    }

    /// The job as bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("strings, numbers and JSON values always serialise")
    }

    /// Runs the job that `bytes` hold; the outcome as bytes, `None` where they hold none.
    pub fn run_bytes(bytes: &[u8]) -> Option<Vec<u8>> {
        let job: Self = serde_json::from_slice(bytes).ok()?;
        let outcome = job.run();
        Some(serde_json::to_vec(&outcome).expect("strings and numbers always serialise"))
    }

    /// What [`RenderJob::run_bytes`] said; `None` where it is cut off.
    pub fn outcome(bytes: &[u8]) -> Option<Result<String, TextError>> {
        serde_json::from_slice(bytes).ok()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn job(source: &str) -> RenderJob {
        RenderJob {
            source: source.to_owned(),
            max_fuel: 1_000,
            max_output_bytes: 100,
            messages: vec![json!({"role": "user", "content": "é\u{1}"})],
            tools: None,
            documents: None,
            add_generation_prompt: true,
            continue_final_message: false,
            kwargs: json!({"z": 1.5, "a": [null]}).as_object().cloned().unwrap(),
            unix_secs: 86_400,
            utc_offset_secs: 0,
            named_tokens: vec![("bos_token".to_owned(), "<s>".to_owned())],
            extra_special_tokens: Vec::new(),
        }
    }

    #[test]
    fn a_job_means_the_same_in_another_process() {
        for source in [
            "{{ bos_token }}{{ messages[0].content }}{{ z }}{{ a }}{{ strftime_now('%d') }}",
            "{{ raise_exception('no') }}",
            "{{ 'x' * 101 }}",
            "{% for i in range(100000) %}{% endfor %}",
            "{{ unclosed",
        ] {
            let job = job(source);
            let here = job.run();
            let bytes = RenderJob::run_bytes(&job.to_bytes()).unwrap();
            assert_eq!(RenderJob::outcome(&bytes), Some(here), "{source}");
        }
        let text = job("{{ messages[0].content }}{{ strftime_now('%d') }}").run();
        assert_eq!(text.unwrap(), "é\u{1}02");
    }

    #[test]
    fn what_is_no_job_has_no_outcome() {
        assert_eq!(RenderJob::run_bytes(b"{}"), None);
        assert_eq!(RenderJob::outcome(b"{\"Ok\":\"cut o"), None);
    }
}
