//! Waiting for a whole answer, for requests that are not streamed.
//!
//! Invariant: either every choice has ended with a reason, or the client gets an error.

use futures::StreamExt as _;
use hotspare_batch::TokenLogprobs;
use hotspare_front::{ChoiceDelta, ChoiceFinish, GenerationStream};
use hotspare_protocol::{ApiError, FinishReason};

use crate::body_budget::BodyShare;
use crate::reply;
use crate::tally::Tally;

/// Bytes of an answer that count against no budget: those of nearly all answers.
const FREE_BYTES: usize = 256 << 10;

/// One choice as it ended.
#[derive(Clone, Debug, Default)]
pub(crate) struct Collected {
    pub(crate) text: String,
    pub(crate) token_ids: Vec<u32>,
    pub(crate) logprobs: Vec<TokenLogprobs>,
    pub(crate) prompt_logprobs: Vec<TokenLogprobs>,
    finish: Option<ChoiceFinish>,
}

impl Collected {
    /// Why it ended.
    pub(crate) fn finish(&self) -> ChoiceFinish {
        self.finish.clone().unwrap_or(ChoiceFinish {
            reason: FinishReason::Abort,
            stop_reason: None,
        })
    }
}

/// What a stream that ended without a word is to the client.
pub(crate) fn cut_short() -> ApiError {
    ApiError::internal("The server ended the generation before it was complete.")
}

/// Bytes that a delta takes in memory until the answer is complete.
fn size(delta: &ChoiceDelta) -> usize {
    let of = |logprobs: &[TokenLogprobs]| -> usize {
        let num_top: usize = logprobs.iter().map(|logprobs| logprobs.top.len()).sum();
        size_of_val(logprobs) + num_top * size_of::<(u32, f32)>()
    };
    let logprobs = of(&delta.logprobs) + of(&delta.prompt_logprobs);
    delta.text.len() + size_of_val(&*delta.token_ids) + logprobs
}

/// What an answer that is too long to be kept is to the client.
fn too_long(max_bytes: usize) -> ApiError {
    let message = format!(
        "The answer takes more than {max_bytes} bytes before it is complete. Stream it \
         (`stream`: true), or ask for fewer choices, tokens or log-probabilities."
    );
    ApiError::bad_request(message)
}

/// Reads a stream to its end. What is kept counts against the request's share of memory.
///
/// # Errors
/// The stream's own, or that it ended too early; 400 where the answer is too long to be kept, 503
/// where others leave no room for it.
pub(crate) async fn collect(
    mut stream: GenerationStream,
    tally: &mut Tally,
    share: &mut BodyShare,
    max_bytes: usize,
) -> Result<Vec<Collected>, ApiError> {
    let mut num_bytes = 0usize;
    let mut choices = vec![Collected::default(); tally.num_choices()];
    while let Some(delta) = stream.next().await {
        let delta = delta.map_err(reply::generate_error)?;
        tally.count(&delta);
        let num_new = size(&delta);
        num_bytes = num_bytes.saturating_add(num_new);
        if num_bytes > max_bytes {
            return Err(too_long(max_bytes));
        }
        if num_bytes > FREE_BYTES {
            share.grow(num_new)?;
        }
        let Some(choice) = choices.get_mut(delta.index as usize) else {
            continue;
        };
        choice.text.push_str(&delta.text);
        choice.token_ids.extend(delta.token_ids);
        choice.logprobs.extend(delta.logprobs);
        choice.prompt_logprobs.extend(delta.prompt_logprobs);
        if let Some(finish) = delta.finish {
            choice.finish = Some(finish);
        }
    }
    match choices.iter().all(|choice| choice.finish.is_some()) {
        true => Ok(choices),
        false => Err(cut_short()),
    }
}
