//! A checked request becomes a job for the front.
//!
//! Invariant: each prompt has been measured, and each of them fits the context with one token to
//! spare.

use std::sync::Arc;

use hotspare_batch::{SamplingParams, StopParams};
use hotspare_front::GenerationJob;
use hotspare_protocol::{ApiError, SamplingFields};

use crate::app::App;

/// How many log-probabilities the engine has to report.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct NumLogprobs {
    pub(crate) output: Option<u32>,
    pub(crate) prompt: Option<u32>,
}

/// Makes the job. `default_max_tokens` is for a request that names no limit.
///
/// # Errors
/// 400 where a prompt does not fit, or values do not fit a prompt.
pub(crate) fn make(
    app: &App,
    sampling: &SamplingFields,
    prompts: Vec<Vec<u32>>,
    logprobs: NumLogprobs,
    default_max_tokens: Option<u32>,
) -> Result<GenerationJob, ApiError> {
    let (defaults, limits) = (app.view.defaults(), &app.view.limits);
    // The front clamps `max_tokens` for each prompt; the shortest prompt has the most room.
    let mut stop: Option<StopParams> = None;
    for prompt in &prompts {
        limits.check_prompt_len(prompt.len())?;
        let own = sampling.stop_params(defaults, limits, default_max_tokens, prompt.len())?;
        if stop
            .as_ref()
            .is_none_or(|stop| stop.max_tokens < own.max_tokens)
        {
            stop = Some(own);
        }
    }
    let stop = stop.unwrap_or_default();
    let params = sampling.sampling_params(defaults, limits, logprobs.output, logprobs.prompt)?;
    check_something_is_left(&params, &stop)?;
    Ok(GenerationJob {
        prompts,
        n: sampling.n,
        sampling: params,
        seed: sampling.seed_key(),
        stop,
        stop_strings: sampling.stop.clone(),
        include_stop_str_in_output: sampling.include_stop_str_in_output,
        skip_special_tokens: sampling.skip_special_tokens,
        priority: sampling.priority,
        deadline_ms: None,
        cache_salt: sampling.cache_salt.clone(),
        detokenize: app.view.text().is_some(),
        model: Some(Arc::clone(&app.view.model)),
    })
}

/// While `min_tokens` is not reached, nothing that ends a sequence can be drawn: something else has
/// to be allowed.
fn check_something_is_left(params: &SamplingParams, stop: &StopParams) -> Result<(), ApiError> {
    let allowed = &params.allowed_token_ids;
    let ends = |id| stop.eos_token_ids.contains(id) || stop.stop_token_ids.contains(id);
    if stop.min_tokens == 0 || allowed.is_empty() || !allowed.iter().all(ends) {
        return Ok(());
    }
    let message = format!(
        "min_tokens is {}, and allowed_token_ids has only ids that end the output, so that no \
         token could be drawn",
        stop.min_tokens
    );
    Err(ApiError::bad_request(message).with_param("allowed_token_ids"))
}
