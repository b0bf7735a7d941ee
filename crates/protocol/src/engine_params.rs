//! A checked request and the server's defaults become what the engine takes.
//!
//! Invariant: each value is in the range `hotspare_batch` asks for; ids are inside the vocabulary.

use hotspare_batch::{SamplingParams, StopParams};

use crate::limits::RequestLimits;
use crate::sampling::{SamplingFields, TruncationSide, resolve_num_logprobs};
use crate::validation::value_error;
use crate::{ApiError, GenerationDefaults};

/// Temperatures below this are greedy.
const GREEDY_BELOW: f64 = 1e-5;

/// Other temperatures are at least this: smaller ones overflow when logits are divided by them.
const MIN_TEMPERATURE: f64 = 0.01;

impl SamplingFields {
    /// How tokens are drawn. `choice` is left at 0; the caller numbers the choices.
    ///
    /// # Errors
    /// 400 where `n` choices of a greedy request would all be the same.
    pub fn sampling_params(
        &self,
        defaults: &GenerationDefaults,
        limits: &RequestLimits,
        num_logprobs: Option<u32>,
        num_prompt_logprobs: Option<u32>,
    ) -> Result<SamplingParams, ApiError> {
        let mut temperature = self.temperature.unwrap_or(defaults.temperature.into());
        let greedy = temperature < GREEDY_BELOW;
        if greedy && self.n > 1 {
            let message = format!("n must be 1 when using greedy sampling, got {}.", self.n);
            return Err(value_error("n", message));
        }
        temperature = match greedy {
            true => 0.0,
            false => temperature.max(MIN_TEMPERATURE),
        };
        let filters = match greedy {
            true => (0, 1.0, 0.0),
            false => (
                self.top_k.map_or(defaults.top_k, |k| {
                    u32::try_from(k.max(0)).unwrap_or(limits.vocab_size)
                }),
                self.top_p.map_or(defaults.top_p, |p| p as f32),
                self.min_p.map_or(defaults.min_p, |p| p as f32),
            ),
        };
        let (top_k, top_p, min_p) = filters;
        let mut allowed_token_ids = match &self.allowed_token_ids {
            Some(ids) => limits.check_token_ids(ids, "allowed_token_ids")?,
            None => Vec::new(),
        };
        allowed_token_ids.sort_unstable();
        allowed_token_ids.dedup();
        Ok(SamplingParams {
            temperature: temperature as f32,
            // As many as there are is all of them.
            top_k: if top_k >= limits.vocab_size { 0 } else { top_k },
            top_p,
            min_p,
            repetition_penalty: self
                .repetition_penalty
                .map_or(defaults.repetition_penalty, |p| p as f32),
            frequency_penalty: self.frequency_penalty as f32,
            presence_penalty: self.presence_penalty as f32,
            logit_bias: self.logit_bias(limits)?,
            allowed_token_ids,
            seed: self.seed_key().unwrap_or(0),
            choice: 0,
            num_logprobs,
            num_prompt_logprobs,
        })
    }

    /// The generator's key, where the request has a seed.
    pub fn seed_key(&self) -> Option<u64> {
        self.seed.map(i64::cast_unsigned)
    }

    /// Alternatives a prompt token that were asked for.
    pub fn num_prompt_logprobs(&self, limits: &RequestLimits) -> Option<u32> {
        self.prompt_logprobs
            .map(|num| resolve_num_logprobs(num, limits))
    }

    /// When a choice ends, for a prompt of `num_prompt_tokens`, which `check_prompt_len` has
    /// passed. `default_max_tokens` is what a request without a limit gets; `None` is all that
    /// fits.
    ///
    /// # Errors
    /// 400 where `min_tokens` is above the limit.
    pub fn stop_params(
        &self,
        defaults: &GenerationDefaults,
        limits: &RequestLimits,
        default_max_tokens: Option<u32>,
        num_prompt_tokens: usize,
    ) -> Result<StopParams, ApiError> {
        let left = (limits.max_model_len as usize).saturating_sub(num_prompt_tokens);
        let asked = self
            .max_tokens
            .map(|max| u32::try_from(max).unwrap_or(u32::MAX))
            .or(default_max_tokens);
        let max_tokens = [asked, defaults.max_tokens_limit]
            .into_iter()
            .flatten()
            .fold(u32::try_from(left).unwrap_or(u32::MAX), u32::min);
        if self.min_tokens > i64::from(max_tokens) {
            let message = format!(
                "min_tokens must be less than or equal to max_tokens={max_tokens}, got {}.",
                self.min_tokens
            );
            return Err(value_error("min_tokens", message));
        }
        let mut stop_token_ids: Vec<u32> = self
            .stop_token_ids
            .iter()
            .filter_map(|&id| u32::try_from(id).ok())
            .filter(|&id| id < limits.vocab_size)
            .collect();
        stop_token_ids.sort_unstable();
        stop_token_ids.dedup();
        Ok(StopParams {
            max_tokens,
            min_tokens: u32::try_from(self.min_tokens).unwrap_or(0),
            eos_token_ids: defaults.eos_token_ids.clone(),
            stop_token_ids,
            ignore_eos: self.ignore_eos,
        })
    }

    /// Cuts a prompt to `truncate_prompt_tokens`; -1 leaves room for `max_tokens`, or for one
    /// token.
    pub fn truncate_prompt(&self, ids: &mut Vec<u32>, limits: &RequestLimits) {
        let max_model_len = i64::from(limits.max_model_len);
        let keep = match self.truncate_prompt_tokens {
            None => return,
            Some(-1) => (max_model_len - self.max_tokens.unwrap_or(1)).max(1),
            Some(keep) => keep,
        };
        let keep = usize::try_from(keep).unwrap_or(0);
        let excess = ids.len().saturating_sub(keep);
        match self.truncation_side {
            TruncationSide::Left => drop(ids.drain(..excess)),
            TruncationSide::Right => ids.truncate(keep),
        }
    }
}
