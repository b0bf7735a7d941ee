//! The fields that chat and completion requests share: how tokens are drawn and when they end.
//!
//! Parsing reads types; [`SamplingFields::check`] checks values with vLLM's messages; the rest
//! turns them into what the engine takes.
//!
//! Invariant: after `check`, the engine's parameters made from these are in range.

use indexmap::IndexMap;
use serde_json::Value;

use crate::ApiError;
use crate::fields::{Fields, to_number};
use crate::limits::RequestLimits;
use crate::pyrepr::repr_f64;
use crate::validation::{Loc, parameter_error, value_error};

/// `logit_bias` values are clamped to this, either sign.
const MAX_LOGIT_BIAS: f64 = 100.0;

/// What a number above zero is that the engine's arithmetic would take for zero.
const TOO_SMALL: &str = "is too small for a 32-bit float";

/// Which end of a prompt that is too long is dropped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TruncationSide {
    /// The beginning; the last tokens are kept.
    #[default]
    Left,
    /// The end.
    Right,
}

/// Sampling and stopping as the request says it; `None` is the default of the server.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SamplingFields {
    /// Number of choices a prompt, from 1.
    pub n: u32,
    /// The same as the request says it, for the refusal.
    asked_n: i64,
    /// Key of the random numbers; the server draws one where there is none.
    pub seed: Option<i64>,
    /// In [0, 2].
    pub temperature: Option<f64>,
    /// In (0, 1].
    pub top_p: Option<f64>,
    /// -1 and 0 keep all.
    pub top_k: Option<i64>,
    /// In [0, 1].
    pub min_p: Option<f64>,
    /// Above 0.
    pub repetition_penalty: Option<f64>,
    /// In [-2, 2].
    pub frequency_penalty: f64,
    /// In [-2, 2].
    pub presence_penalty: f64,
    /// Checked and clamped by `check`.
    pub logit_bias: Option<IndexMap<String, f64>>,
    /// Only these can be drawn.
    pub allowed_token_ids: Option<Vec<i64>>,
    /// Output tokens at most.
    pub max_tokens: Option<i64>,
    /// Output tokens at least.
    pub min_tokens: i64,
    /// Stop strings.
    pub stop: Vec<String>,
    /// Stop ids. Ids outside the vocabulary can never be drawn; they are dropped.
    pub stop_token_ids: Vec<i64>,
    /// End-of-sequence ids are ordinary tokens.
    pub ignore_eos: bool,
    /// Whether the text includes the stop string that ended it.
    pub include_stop_str_in_output: bool,
    /// Whether special tokens leave no text.
    pub skip_special_tokens: bool,
    /// Lower is served first.
    pub priority: i32,
    /// Keeps this request's prefix cache apart from others'.
    pub cache_salt: Option<String>,
    /// Prompt tokens at most; -1 is as many as fit.
    pub truncate_prompt_tokens: Option<i64>,
    /// Which end is dropped.
    pub truncation_side: TruncationSide,
    /// Alternatives a prompt token; -1 is all.
    pub prompt_logprobs: Option<i64>,
}

impl SamplingFields {
    /// Takes the fields from a body.
    pub(crate) fn take(fields: &mut Fields<'_>) -> Self {
        let asked_n = fields.integer("n").unwrap_or(1);
        Self {
            // Whatever does not fit is out of range, and `check` says so.
            n: u32::try_from(asked_n).unwrap_or(0),
            asked_n,
            seed: fields.integer("seed").filter(|&seed| seed != -1),
            temperature: fields.number("temperature"),
            top_p: fields.number("top_p"),
            top_k: fields.integer("top_k"),
            min_p: fields.number("min_p"),
            repetition_penalty: fields.number("repetition_penalty"),
            frequency_penalty: fields.number("frequency_penalty").unwrap_or(0.0),
            presence_penalty: fields.number("presence_penalty").unwrap_or(0.0),
            logit_bias: take_logit_bias(fields),
            allowed_token_ids: fields.integers("allowed_token_ids"),
            max_tokens: fields.integer("max_tokens"),
            min_tokens: fields.integer("min_tokens").unwrap_or(0),
            stop: take_stop(fields),
            stop_token_ids: fields.integers("stop_token_ids").unwrap_or_default(),
            ignore_eos: fields.boolean("ignore_eos").unwrap_or(false),
            include_stop_str_in_output: fields
                .boolean("include_stop_str_in_output")
                .unwrap_or(false),
            skip_special_tokens: fields.boolean("skip_special_tokens").unwrap_or(true),
            priority: fields
                .integer("priority")
                .unwrap_or(0)
                .clamp(i32::MIN.into(), i32::MAX.into()) as i32,
            cache_salt: fields.string("cache_salt"),
            truncate_prompt_tokens: fields.integer_at_least("truncate_prompt_tokens", -1),
            truncation_side: match fields.one_of("truncation_side", &["left", "right"]) {
                Some("right") => TruncationSide::Right,
                _ => TruncationSide::Left,
            },
            prompt_logprobs: fields.integer("prompt_logprobs"),
        }
    }

    /// Checks every value that does not depend on the prompt.
    ///
    /// # Errors
    /// 400 with vLLM's message for the first one that is out of range.
    pub(crate) fn check(&self, limits: &RequestLimits) -> Result<(), ApiError> {
        let n = self.asked_n;
        if !(1..=i64::from(limits.max_n)).contains(&n) {
            let message = match n {
                ..1 => format!("n must be at least 1, got {n}."),
                _ => format!("n must be at most {}, got {n}.", limits.max_n),
            };
            return Err(parameter_error("n", &message, Some(&n.to_string())));
        }
        self.check_penalties()?;
        self.check_filters()?;
        self.check_lengths(limits)?;
        self.check_stop(limits)?;
        self.check_tokens(limits)?;
        check_cache_salt(self.cache_salt.as_deref())?;
        check_num_logprobs("prompt_logprobs", self.prompt_logprobs, limits)
    }

    fn check_penalties(&self) -> Result<(), ApiError> {
        for (name, value) in [
            ("presence_penalty", self.presence_penalty),
            ("frequency_penalty", self.frequency_penalty),
        ] {
            if !(-2.0..=2.0).contains(&value) {
                let message = format!("{name} must be in [-2, 2], got {}.", repr_f64(value));
                return Err(value_error(name, message));
            }
        }
        if let Some(value) = self.repetition_penalty {
            let shown = repr_f64(value);
            if !value.is_finite() {
                let message = format!("repetition_penalty must be a finite number, got {shown}.");
                return Err(value_error("repetition_penalty", message));
            }
            // The engine computes in f32, where a tiny penalty would become zero.
            let range = match value as f32 {
                _ if value <= 0.0 => "must be greater than zero",
                0.0 => TOO_SMALL,
                f32::INFINITY => "is too large for a 32-bit float",
                _ => return Ok(()),
            };
            let message = format!("repetition_penalty {range}, got {shown}.");
            return Err(value_error("repetition_penalty", message));
        }
        Ok(())
    }

    fn check_filters(&self) -> Result<(), ApiError> {
        if let Some(value) = self.temperature {
            let range = match value {
                value if !value.is_finite() => Some("a finite number"),
                value if value < 0.0 => Some("non-negative"),
                value if value > 2.0 => Some("in [0, 2]"),
                _ => None,
            };
            if let Some(range) = range {
                let shown = repr_f64(value);
                let message = format!("temperature must be {range}, got {shown}.");
                return Err(parameter_error("temperature", &message, Some(&shown)));
            }
        }
        if let Some(value) = self.top_p
            && !(value as f32 > 0.0 && value <= 1.0)
        {
            let shown = repr_f64(value);
            let range = match value > 0.0 && value <= 1.0 {
                true => TOO_SMALL,
                false => "must be in (0, 1]",
            };
            let message = format!("top_p {range}, got {shown}.");
            return Err(parameter_error("top_p", &message, Some(&shown)));
        }
        if let Some(value) = self.top_k
            && value < -1
        {
            let message = format!("top_k must be 0 (disable), or at least 1, got {value}.");
            return Err(value_error("top_k", message));
        }
        if let Some(value) = self.min_p
            && !(0.0..=1.0).contains(&value)
        {
            let message = format!("min_p must be in [0, 1], got {}.", repr_f64(value));
            return Err(value_error("min_p", message));
        }
        Ok(())
    }

    fn check_lengths(&self, limits: &RequestLimits) -> Result<(), ApiError> {
        if let Some(max) = self.max_tokens {
            if max < 1 {
                let message = format!("max_tokens must be at least 1, got {max}.");
                return Err(parameter_error(
                    "max_tokens",
                    &message,
                    Some(&max.to_string()),
                ));
            }
            if max > i64::from(limits.max_model_len) {
                let message = format!(
                    "max_tokens={max} cannot be greater than max_model_len={}. Please request \
                     fewer output tokens.",
                    limits.max_model_len
                );
                return Err(parameter_error(
                    "max_tokens",
                    &message,
                    Some(&max.to_string()),
                ));
            }
        }
        if self.min_tokens < 0 {
            let message = format!(
                "min_tokens must be greater than or equal to 0, got {}.",
                self.min_tokens
            );
            return Err(value_error("min_tokens", message));
        }
        if let Some(max) = self.truncate_prompt_tokens
            && max > i64::from(limits.max_model_len)
        {
            let message = format!(
                "truncate_prompt_tokens value ({max}) is greater than max_model_len ({}). Please \
                 request a smaller truncation size.",
                limits.max_model_len
            );
            return Err(value_error("truncate_prompt_tokens", message));
        }
        Ok(())
    }

    fn check_stop(&self, limits: &RequestLimits) -> Result<(), ApiError> {
        if self.stop.len() > limits.max_num_stop_strings {
            let message = format!(
                "stop must hold at most {} strings, got {}.",
                limits.max_num_stop_strings,
                self.stop.len()
            );
            return Err(value_error("stop", message));
        }
        if self.stop.iter().any(String::is_empty) {
            let message = "stop cannot contain an empty string.".into();
            return Err(value_error("stop", message));
        }
        if !self.stop.is_empty() && !limits.has_tokenizer {
            let message = "stop strings need a tokenizer, and this server runs without one \
                           (--skip-tokenizer-init). Use stop_token_ids.";
            return Err(value_error("stop", message.into()));
        }
        Ok(())
    }

    fn check_tokens(&self, limits: &RequestLimits) -> Result<(), ApiError> {
        let lens = [
            ("stop_token_ids", self.stop_token_ids.len()),
            (
                "logit_bias",
                self.logit_bias.as_ref().map_or(0, IndexMap::len),
            ),
        ];
        for (name, len) in lens {
            if len > limits.max_num_token_params {
                let message = format!(
                    "{name} must hold at most {} entries, got {len}.",
                    limits.max_num_token_params
                );
                return Err(value_error(name, message));
            }
        }
        self.logit_bias(limits)?;
        match &self.allowed_token_ids {
            Some(ids) if ids.is_empty() => Err(value_error(
                "allowed_token_ids",
                "allowed_token_ids is not None and empty!".into(),
            )),
            Some(ids)
                if ids
                    .iter()
                    .any(|&id| id < 0 || id >= i64::from(limits.vocab_size)) =>
            {
                let message = "allowed_token_ids contains out-of-vocab token id!".into();
                Err(value_error("allowed_token_ids", message))
            }
            _ => Ok(()),
        }
    }

    /// The bias a token, clamped; in the order of ids.
    pub(crate) fn logit_bias(&self, limits: &RequestLimits) -> Result<Vec<(u32, f32)>, ApiError> {
        let Some(bias) = &self.logit_bias else {
            return Ok(Vec::new());
        };
        let mut by_id = std::collections::BTreeMap::new();
        for (key, &value) in bias {
            let id: i64 = key.trim().parse().map_err(|_| {
                let message = format!(
                    "Found token_id `{}` in logit_bias but token_id must be an integer or string \
                     representing an integer",
                    crate::pyrepr::clip(key, 100)
                );
                value_error("logit_bias", message)
            })?;
            let id = u32::try_from(id)
                .ok()
                .filter(|&id| id < limits.vocab_size)
                .ok_or_else(|| {
                    let message = format!(
                        "token_id(s) [{id}] in logit_bias contain out-of-vocab token ids. \
                         Vocabulary size: {}",
                        limits.vocab_size
                    );
                    parameter_error("logit_bias", &message, Some(&format!("[{id}]")))
                })?;
            if value.is_nan() {
                let message = format!("logit_bias of token {id} must be a number, got nan.");
                return Err(value_error("logit_bias", message));
            }
            by_id.insert(id, value.clamp(-MAX_LOGIT_BIAS, MAX_LOGIT_BIAS) as f32);
        }
        Ok(by_id.into_iter().collect())
    }
}

/// Checks a number of log-probabilities asked for.
pub(crate) fn check_num_logprobs(
    name: &str,
    num: Option<i64>,
    limits: &RequestLimits,
) -> Result<(), ApiError> {
    let Some(num) = num else { return Ok(()) };
    if num < -1 {
        let message = format!("{name} must be non-negative or -1, got {num}.");
        return Err(parameter_error(name, &message, Some(&num.to_string())));
    }
    let kind = match name {
        "prompt_logprobs" => "prompt",
        _ => "sample",
    };
    let allowed = limits.num_logprobs_allowed();
    let asked = resolve_num_logprobs(num, limits);
    if asked > allowed {
        let message = format!(
            "Requested {kind} logprobs of {num}, which is greater than max allowed: {allowed}"
        );
        return Err(parameter_error(name, &message, Some(&num.to_string())));
    }
    Ok(())
}

/// -1 is the whole vocabulary.
pub(crate) fn resolve_num_logprobs(num: i64, limits: &RequestLimits) -> u32 {
    match num {
        -1 => limits.vocab_size,
        num => u32::try_from(num).unwrap_or(u32::MAX),
    }
}

fn check_cache_salt(salt: Option<&str>) -> Result<(), ApiError> {
    let message = match salt {
        Some("") => "Parameter 'cache_salt' must be a non-empty string if provided.",
        Some(salt) if salt.chars().count() > 128 => {
            "Parameter 'cache_salt' must be at most 128 characters long."
        }
        Some(salt) if salt.contains(['@', '/', '\\', '\0']) => {
            "Parameter 'cache_salt' must not contain '@', '/', '\\' or NUL."
        }
        _ => return Ok(()),
    };
    Err(value_error("cache_salt", message.into()))
}

fn take_stop(fields: &mut Fields<'_>) -> Vec<String> {
    match fields.value("stop") {
        None => Vec::new(),
        Some(Value::String(text)) => vec![text],
        Some(Value::Array(items)) => {
            let mut stop = Vec::with_capacity(items.len());
            for (index, item) in items.into_iter().enumerate() {
                match item {
                    Value::String(text) => stop.push(text),
                    other => fields.expected_string(&Loc::field("stop").at(index), &other),
                }
            }
            stop
        }
        Some(other) => {
            fields.expected_string(&Loc::field("stop"), &other);
            Vec::new()
        }
    }
}

fn take_logit_bias(fields: &mut Fields<'_>) -> Option<IndexMap<String, f64>> {
    let map = fields.object("logit_bias")?;
    let mut bias = IndexMap::with_capacity(map.len());
    for (key, value) in map {
        let loc = Loc::field("logit_bias").at(key.as_str());
        if let Some(number) = to_number(&value, &loc, &mut fields.validation) {
            bias.insert(key, number);
        }
    }
    Some(bias)
}
