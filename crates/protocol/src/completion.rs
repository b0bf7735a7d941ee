//! `POST /v1/completions`: the request.
//!
//! Invariant: a parsed request has at least one prompt, and is in range but for what depends on
//! the length of a prompt.

use serde_json::Value;

use crate::fields::Fields;
use crate::limits::RequestLimits;
use crate::sampling::{SamplingFields, check_num_logprobs, resolve_num_logprobs};
use crate::validation::{Loc, parameter_error, value_error};
use crate::{ApiError, OutputFields, StreamOptions, unsupported};

/// vLLM's default of `max_tokens` for completions.
const DEFAULT_MAX_TOKENS: i64 = 16;

/// One prompt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Prompt {
    /// To be tokenized.
    Text(String),
    /// Tokenized by the client; inside the vocabulary.
    Ids(Vec<u32>),
}

/// A completion request.
#[derive(Clone, Debug, PartialEq)]
pub struct CompletionRequest {
    /// `None`: the served model.
    pub model: Option<String>,
    /// At least one, in the order of the answer's choices.
    pub prompts: Vec<Prompt>,
    /// How tokens are drawn; `max_tokens` is always set.
    pub sampling: SamplingFields,
    /// Report the log-probability of each token, and of this many alternatives.
    pub num_logprobs: Option<u32>,
    /// Put the prompt before the answer.
    pub echo: bool,
    /// `max_tokens` was 0: the prompt is all there is to show. The engine still draws one token,
    /// which is not shown.
    pub echo_only: bool,
    /// How the answer is sent.
    pub stream: StreamOptions,
    /// Let the tokenizer add its special tokens to text prompts.
    pub add_special_tokens: bool,
    /// What else the answer shows.
    pub output: OutputFields,
    /// Fields that nobody knows, for the log.
    pub unknown_fields: Vec<String>,
}

impl CompletionRequest {
    /// Parses and checks a body.
    ///
    /// # Errors
    /// 400 or 501, in vLLM's shapes.
    pub fn parse(body: &[u8], limits: &RequestLimits) -> Result<Self, ApiError> {
        let mut fields = Fields::parse(body)?;
        unsupported::take(&mut fields)?;
        if fields.value("suffix").is_some() {
            let message = "suffix is not currently supported".into();
            return Err(value_error("suffix", message));
        }
        let model = fields.string("model");
        let stream = StreamOptions::take(&mut fields)?;
        let prompts = take_prompts(&mut fields, limits)?;
        let mut sampling = SamplingFields::take(&mut fields);
        let logprobs = fields.integer("logprobs");
        let echo = fields.boolean("echo").unwrap_or(false);
        let add_special_tokens = fields.boolean("add_special_tokens").unwrap_or(true);
        let output = OutputFields::take(&mut fields);
        let unknown_fields = fields.finish()?;

        let echo_only = echo && sampling.max_tokens == Some(0);
        sampling.max_tokens = match sampling.max_tokens {
            Some(0) if echo => Some(1),
            Some(max) => Some(max),
            // The context may be shorter than the default.
            None => Some(DEFAULT_MAX_TOKENS.min(limits.max_model_len.into())),
        };
        if let Some(num) = logprobs
            && num < 0
        {
            let message = "`logprobs` must be a positive value.";
            return Err(parameter_error("logprobs", message, Some(&num.to_string())));
        }
        check_num_logprobs("logprobs", logprobs, limits)?;
        output.check(&sampling, stream, limits)?;
        sampling.check(limits)?;
        limits.check_num_choices(prompts.len(), sampling.n)?;
        if echo && !limits.has_tokenizer {
            let message = "echo needs a tokenizer, and this server runs without one \
                           (--skip-tokenizer-init)."
                .into();
            return Err(value_error("echo", message));
        }
        Ok(Self {
            model,
            prompts,
            sampling,
            num_logprobs: logprobs.map(|num| resolve_num_logprobs(num, limits)),
            echo,
            echo_only,
            stream,
            add_special_tokens,
            output,
            unknown_fields,
        })
    }

    /// Alternatives a prompt token that the engine has to report.
    pub fn num_prompt_logprobs(&self, limits: &RequestLimits) -> Option<u32> {
        let asked = self.sampling.num_prompt_logprobs(limits);
        let echoed = self.num_logprobs.filter(|_| self.echo);
        asked.max(echoed)
    }
}

/// Takes `prompt`: a text, texts, ids, or lists of ids.
fn take_prompts(fields: &mut Fields<'_>, limits: &RequestLimits) -> Result<Vec<Prompt>, ApiError> {
    let empty = || {
        let message = "Either prompt or prompt_embeds must be provided and non-empty.".into();
        value_error("prompt", message)
    };
    let text = fields.raw("prompt").ok_or_else(empty)?;
    let inner = text.strip_prefix('[').map(str::trim_start);
    let prompts = match inner.and_then(|inner| inner.bytes().next()) {
        Some(b']') => return Err(empty()),
        Some(b'[') => take_id_lists(fields, text, limits)?,
        Some(b'"') => take_texts(fields, text, limits)?,
        Some(_) => {
            let ids = fields.integer_list("prompt", text).unwrap_or_default();
            fields.check()?;
            vec![Prompt::Ids(limits.check_token_ids(&ids, "prompt")?)]
        }
        None => match crate::json::parse_value(text) {
            Ok(Value::String(text)) if text.is_empty() => return Err(empty()),
            Ok(Value::String(text)) => vec![Prompt::Text(text)],
            Ok(other) => {
                fields.expected_string(&Loc::field("prompt"), &other);
                Vec::new()
            }
            Err(error) => return Err(bad_prompt(&error)),
        },
    };
    for prompt in &prompts {
        match prompt {
            Prompt::Text(_) if !limits.has_tokenizer => {
                let message = "This server runs without a tokenizer (--skip-tokenizer-init): \
                               prompt must be token ids.";
                return Err(value_error("prompt", message.into()));
            }
            Prompt::Ids(ids) if ids.is_empty() => limits.check_prompt_len(0)?,
            _ => {}
        }
    }
    Ok(prompts)
}

fn take_id_lists(
    fields: &mut Fields<'_>,
    text: &str,
    limits: &RequestLimits,
) -> Result<Vec<Prompt>, ApiError> {
    if let Ok(lists) = serde_json::from_str::<Vec<Vec<i64>>>(text) {
        limits.check_num_choices(lists.len(), 1)?;
        return lists
            .iter()
            .map(|ids| Ok(Prompt::Ids(limits.check_token_ids(ids, "prompt")?)))
            .collect();
    }
    // Something in it is not an integer: find out what.
    let items: Vec<&serde_json::value::RawValue> =
        serde_json::from_str(text).map_err(|error| bad_prompt(&error))?;
    limits.check_num_choices(items.len(), 1)?;
    let mut prompts = Vec::new();
    for item in items {
        let ids = fields.integer_list("prompt", item.get());
        let ids = limits.check_token_ids(&ids.unwrap_or_default(), "prompt")?;
        prompts.push(Prompt::Ids(ids));
    }
    fields.check()?;
    Ok(prompts)
}

fn take_texts(
    fields: &mut Fields<'_>,
    text: &str,
    limits: &RequestLimits,
) -> Result<Vec<Prompt>, ApiError> {
    let items: Vec<&serde_json::value::RawValue> =
        serde_json::from_str(text).map_err(|error| bad_prompt(&error))?;
    limits.check_num_choices(items.len(), 1)?;
    let mut prompts = Vec::with_capacity(items.len());
    for (index, item) in items.into_iter().enumerate() {
        match crate::json::parse_value(item.get()) {
            Ok(Value::String(text)) => prompts.push(Prompt::Text(text)),
            Ok(other) => fields.expected_string(&Loc::field("prompt").at(index), &other),
            Err(error) => return Err(bad_prompt(&error)),
        }
    }
    Ok(prompts)
}

fn bad_prompt(error: &serde_json::Error) -> ApiError {
    let msg = format!("JSON decode error: {error}");
    crate::validation::single("json_invalid", &Loc::field("prompt"), &msg, &Value::Null)
}
