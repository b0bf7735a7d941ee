//! What may come in at all, decided when it comes.
//!
//! A sequence is let in only if it could run to its longest possible end alone, with every block to
//! itself. So the first running sequence can always go on once the others are preempted, and every
//! admitted one finishes.
//!
//! Invariant: a refusal is immediate and final; nothing of a refused request is kept.

use hotspare_batch::{
    DrawnTokens, FinishReason, Generate, RejectReason, SequenceEvent, TOKEN_FROM_DEVICE,
};

use crate::scheduler::Scheduler;
use crate::sequence::find_stop;

impl Scheduler {
    /// The number of ids at which the sequence of `request` ends.
    ///
    /// # Errors
    /// [`RejectReason::Draining`], or [`RejectReason::Impossible`] with a reason for a human.
    pub(crate) fn check_request(&self, request: &Generate) -> Result<usize, RejectReason> {
        if self.is_draining {
            return Err(RejectReason::Draining);
        }
        let impossible = |why: String| Err(RejectReason::Impossible(why));
        let num_ids = request.ids.len();
        let num_prompt_tokens = request.num_prompt_tokens();
        let max_model_len = self.config.max_model_len;
        if num_prompt_tokens == 0 {
            return impossible("it has no prompt ids".to_owned());
        }
        if num_ids > max_model_len {
            return impossible(format!(
                "{num_ids} ids exceed the context of {max_model_len}"
            ));
        }
        if num_ids == max_model_len && request.num_delivered == 0 && !request.prefill_only {
            return impossible(format!(
                "{num_ids} prompt ids leave no room for output in a context of {max_model_len}"
            ));
        }
        if request.ids.contains(&TOKEN_FROM_DEVICE) {
            return impossible(format!("id {TOKEN_FROM_DEVICE} is reserved"));
        }
        if self.by_id.contains_key(&request.request_id) {
            return impossible(format!(
                "sequence {} is running already",
                request.request_id.0
            ));
        }
        let max_tokens = request.stop.max_tokens as usize;
        let max_len = num_prompt_tokens
            .saturating_add(max_tokens)
            .min(max_model_len);
        // The last id drawn is never computed.
        let max_computed = if request.prefill_only {
            num_ids
        } else {
            max_len - 1
        };
        let num_blocks = self.config.blocks_for(max_computed);
        if num_blocks > self.config.num_blocks {
            return impossible(format!(
                "its {max_computed} tokens can need {num_blocks} KV blocks of {}, and there are {}",
                self.config.block_size, self.config.num_blocks
            ));
        }
        Ok(max_len)
    }

    /// Why a sequence is over before it starts: an earlier attempt delivered all there is.
    pub(crate) fn find_early_finish(
        &self,
        request: &Generate,
        max_len: usize,
    ) -> Option<FinishReason> {
        if request.prefill_only {
            return None;
        }
        let num_before = (request.num_delivered as usize).checked_sub(1);
        let stop = num_before
            .zip(request.ids.last())
            .and_then(|(num_before, &last)| find_stop(&request.stop, last, num_before));
        stop.or_else(|| (request.ids.len() >= max_len).then_some(FinishReason::Length))
    }

    /// The only event of a sequence that is over before it starts.
    pub(crate) fn report_early_finish(&mut self, request: &Generate, finish: FinishReason) {
        self.events.push(SequenceEvent {
            request_id: request.request_id,
            attempt: request.attempt,
            first_index: request.num_delivered,
            token_ids: DrawnTokens::new(),
            logprobs: Vec::new(),
            prompt: Some(Box::default()),
            finish: Some(finish),
        });
    }
}
