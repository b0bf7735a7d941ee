//! Waiting for a whole answer, for requests that are not streamed.
//!
//! Invariant: either every choice has ended with a reason, or the client gets an error.

use futures::StreamExt as _;
use hotspare_batch::TokenLogprobs;
use hotspare_front::{ChoiceFinish, GenerationStream};
use hotspare_protocol::{ApiError, FinishReason};

use crate::reply;
use crate::tally::Tally;

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

/// Reads a stream to its end.
///
/// # Errors
/// The stream's own, or that it ended too early.
pub(crate) async fn collect(
    mut stream: GenerationStream,
    tally: &mut Tally,
) -> Result<Vec<Collected>, ApiError> {
    let mut choices = vec![Collected::default(); tally.num_choices()];
    while let Some(delta) = stream.next().await {
        let delta = delta.map_err(reply::generate_error)?;
        tally.count(&delta);
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
