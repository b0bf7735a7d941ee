//! `stream` and `stream_options`: whether an answer is streamed and where usage goes in it.
//!
//! Invariant: options without a stream are refused, as vLLM does.

use serde_json::Value;

use crate::ApiError;
use crate::fields::Fields;
use crate::validation::parameter_error;

/// How an answer is sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StreamOptions {
    /// As events, one a token, instead of one body.
    pub stream: bool,
    /// A last chunk with the usage.
    pub include_usage: bool,
    /// Usage so far in every chunk; only together with `include_usage`.
    pub continuous_usage_stats: bool,
}

impl StreamOptions {
    /// Takes both fields.
    ///
    /// # Errors
    /// 400 for options without a stream.
    pub(crate) fn take(fields: &mut Fields<'_>) -> Result<Self, ApiError> {
        let stream = fields.boolean("stream").unwrap_or(false);
        let Some(options) = fields.object("stream_options") else {
            return Ok(Self {
                stream,
                ..Self::default()
            });
        };
        if !stream {
            let message = "Stream options can only be defined when `stream=True`.";
            return Err(parameter_error("stream_options", message, None));
        }
        let flag = |name: &str| options.get(name) == Some(&Value::Bool(true));
        let include_usage = flag("include_usage");
        Ok(Self {
            stream,
            include_usage,
            continuous_usage_stats: include_usage && flag("continuous_usage_stats"),
        })
    }
}
