//! What a new request passes before it is given to an engine: refusals and waits that come from
//! requests before it.
//!
//! Invariant: a request that is refused or held here has touched no engine.

use std::sync::Arc;

use hotspare_batch::TokenId;
use hotspare_journal::{JobParams, RequestRecord};

use crate::client::EngineClient;
use crate::convictions::ContentHash;
use crate::replays::HeldTooLong;
use crate::stream::{RetryAfter, Start, StreamContext};
use crate::{Front, GenerateError, Model};

impl Front {
    /// What streams need of this front.
    pub(crate) fn stream_context(&self, model: &Model) -> StreamContext {
        let shared = &self.shared;
        StreamContext {
            slot: Arc::clone(&shared.slot),
            replays: Arc::clone(&shared.replays),
            trails: Arc::clone(&shared.trails),
            metrics: Arc::clone(&model.metrics),
            retry_after: RetryAfter {
                queue_full_s: shared.config.queue_full_retry_after_s,
                not_ready_s: shared.config.not_ready_retry_after_s,
            },
            max_num_replay_attempts: shared.config.max_num_replay_attempts,
            replay_timeout: shared.config.replay_timeout(),
            replay_retry_interval: shared.config.replay_retry_interval(),
            is_paired: shared.pairing.is_some(),
        }
    }

    /// Refuses what ended engines a while ago.
    pub(crate) fn check_convictions(
        &self,
        record: &RequestRecord,
        starts: &[Start],
    ) -> Result<(), GenerateError> {
        let replays = &self.shared.replays;
        if !replays.has_convictions() {
            return Ok(());
        }
        let JobParams { sampling, stop, .. } = record.params();
        let mut last: &[TokenId] = &[];
        for start in starts {
            // Not the record's: what is too long for the journal may be refused as well.
            let prompt = start.request.ids.as_slice();
            let is_checked = prompt == last;
            last = prompt;
            if is_checked {
                continue;
            }
            let content = ContentHash::new(prompt, sampling, stop);
            if let Some(left) = replays.refused_for(content) {
                return Err(GenerateError::Convicted(format!(
                    "the engine ended each time it worked on this request alone; it is refused \
                     for another {} s",
                    left.as_secs().max(1)
                )));
            }
        }
        Ok(())
    }

    /// Waits while suspects are tried.
    pub(crate) async fn wait_turn(&self, target: &EngineClient) -> Result<(), GenerateError> {
        let shared = &self.shared;
        let patience = shared.config.replay_timeout();
        let turn = shared
            .replays
            .wait_turn(&target.hello().model_hash, patience);
        match turn.await {
            Ok(()) => Ok(()),
            Err(HeldTooLong::TooMany { max_num_held }) => Err(GenerateError::QueueFull {
                max_num_waiting: u32::try_from(max_num_held).unwrap_or(u32::MAX),
                retry_after_s: shared.config.queue_full_retry_after_s,
            }),
            Err(HeldTooLong::TimedOut) => Err(GenerateError::NotReady {
                reason: "requests that may have ended the engine are being tried".to_owned(),
                retry_after_s: shared.config.not_ready_retry_after_s,
            }),
        }
    }
}
