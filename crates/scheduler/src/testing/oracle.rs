//! What a request gives when it runs alone: a loop over ids, without blocks, batches or steps.
//!
//! The fake device draws by the same rules, so whatever a scheduler does around it, each sequence
//! must receive exactly this.
//!
//! Invariant: a drawn token is a function of seed and prefix.

use hotspare_batch::{FinishReason, Generate, RowError, StopParams, TokenId, TokenLogprobs};

/// Ids are drawn below this, so that stop ids and equal prefixes are common.
const VOCAB_SIZE: u64 = 8;
/// Drawn where a stop id is masked.
pub(crate) const UNMASKED: TokenId = 999;

/// Everything a sequence delivers.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Expected {
    pub(crate) tokens: Vec<TokenId>,
    pub(crate) logprobs: Vec<TokenLogprobs>,
    pub(crate) prompt_logprobs: Vec<TokenLogprobs>,
    pub(crate) finish: FinishReason,
}

/// FNV-1a over seed and ids.
fn digest(seed: u64, prefix: &[TokenId]) -> u64 {
    let start = 0xcbf2_9ce4_8422_2325 ^ seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    prefix
        .iter()
        .fold(start, |digest, &id| extend_digest(digest, id))
}

/// The digest of a prefix and `id` after it.
pub(crate) fn extend_digest(digest: u64, id: TokenId) -> u64 {
    (digest ^ u64::from(id))
        .wrapping_mul(0x0100_0000_01b3)
        .rotate_left(23)
}

/// The token after `prefix`.
pub(crate) fn draw(seed: u64, prefix: &[TokenId], stop: &StopParams, num_output: usize) -> TokenId {
    let token = (digest(seed, prefix) % VOCAB_SIZE) as TokenId;
    let is_masked = num_output < stop.min_tokens as usize && stop.is_stop(token);
    if is_masked { UNMASKED } else { token }
}

/// The log-probability of `token` after `prefix`: any number that depends on all of them.
pub(crate) fn logprob(prefix: &[TokenId], token: TokenId) -> TokenLogprobs {
    let logprob = -((digest(u64::from(token), prefix) % 4096) as f32) / 256.0;
    TokenLogprobs {
        token,
        logprob,
        rank: 1,
        top: Vec::new(),
    }
}

/// Tests mark a request to fail when it draws its output token number `top_k - 1`.
pub(crate) fn fails_at(top_k: u32, num_output: usize) -> bool {
    top_k as usize == num_output + 1
}

/// What `request` delivers under a context of `max_model_len`.
pub(crate) fn expect_alone(request: &Generate, max_model_len: usize) -> Expected {
    let num_prompt = request.num_prompt_tokens();
    let (stop, sampling) = (&request.stop, &request.sampling);
    let mut ids = request.ids.clone();
    let (mut tokens, mut logprobs, mut prompt_logprobs) = (Vec::new(), Vec::new(), Vec::new());
    let max_len = (num_prompt + stop.max_tokens as usize).min(max_model_len);
    let mut finish = find_end(&ids, num_prompt, stop, max_len);
    let starts = request.prefill_only || finish.is_none();
    if request.prefill_only {
        finish = Some(FinishReason::Length);
    }
    if starts && sampling.num_prompt_logprobs.is_some() {
        let places = 1..num_prompt;
        prompt_logprobs.extend(places.map(|place| logprob(&ids[..place], ids[place])));
    }
    while finish.is_none() {
        let num_output = ids.len() - num_prompt;
        if fails_at(sampling.top_k, num_output) {
            let position = ids.len() as u32 - 1;
            finish = Some(FinishReason::Failed(RowError::InvalidLogits { position }));
            break;
        }
        let token = draw(sampling.seed, &ids, stop, num_output);
        if sampling.num_logprobs.is_some() {
            logprobs.push(logprob(&ids, token));
        }
        tokens.push(token);
        ids.push(token);
        finish = find_end(&ids, num_prompt, stop, max_len);
    }
    if tokens.is_empty() && finish != Some(FinishReason::Length) {
        prompt_logprobs.clear();
    }
    let finish = finish.expect("the loop ends with a reason");
    Expected {
        tokens,
        logprobs,
        prompt_logprobs,
        finish,
    }
}

/// Whether a sequence of `ids` is over.
fn find_end(
    ids: &[TokenId],
    num_prompt: usize,
    stop: &StopParams,
    max_len: usize,
) -> Option<FinishReason> {
    let num_output = ids.len() - num_prompt;
    let last = *ids.last().expect("requests are not empty");
    let may_stop = num_output > stop.min_tokens as usize;
    if may_stop && !stop.ignore_eos && stop.eos_token_ids.contains(&last) {
        Some(FinishReason::Eos(last))
    } else if may_stop && stop.stop_token_ids.contains(&last) {
        Some(FinishReason::StopToken(last))
    } else {
        (ids.len() >= max_len).then_some(FinishReason::Length)
    }
}
