//! Who may parse, render and tokenize on a thread that blocks, and who has to wait.
//!
//! Long work would hold up short work in one queue, so each kind has a queue and threads of its
//! own: short requests for an answer, long ones, and questions about tokens.
//!
//! Invariant: bodies that wait or are worked on hold no more than the budget of bytes.

use std::sync::Arc;

use hotspare_protocol::ApiError;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::HttpConfig;

/// When to try again where too much waits, seconds.
const RETRY_AFTER_S: u32 = 1;

/// What a body asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TextUse {
    /// An answer of the model.
    Generate,
    /// Tokens or text, which need no engine and, by default, no key.
    Tokenize,
}

/// The queues.
pub(crate) struct TextLanes {
    short: Arc<Semaphore>,
    long: Arc<Semaphore>,
    tokenize: Arc<Semaphore>,
    /// Bytes of bodies that may still come in.
    budget: Arc<Semaphore>,
    max_short_body_bytes: usize,
}

/// A thread's turn; to be held to the end of the work.
pub(crate) struct TextPermit {
    _turn: OwnedSemaphorePermit,
    _bytes: OwnedSemaphorePermit,
}

impl TextLanes {
    pub(crate) fn new(config: &HttpConfig) -> Self {
        let semaphore = |num: usize| Arc::new(Semaphore::new(num.max(1)));
        // No body is larger than the budget, whatever the settings say.
        let budget = config.max_text_queue_bytes.max(config.max_body_bytes);
        Self {
            short: semaphore(config.max_num_text_threads),
            long: semaphore(config.max_num_long_text_threads),
            tokenize: semaphore(config.max_num_tokenize_threads),
            budget: semaphore(budget.min(Semaphore::MAX_PERMITS)),
            max_short_body_bytes: config.max_short_body_bytes,
        }
    }

    /// Waits for a turn.
    ///
    /// # Errors
    /// 503 where the bodies that wait already use up the budget.
    pub(crate) async fn enter(
        &self,
        text_use: TextUse,
        body_len: usize,
    ) -> Result<TextPermit, ApiError> {
        let overloaded = || {
            let message = "too many long requests are waiting to be tokenized";
            ApiError::not_ready(message, RETRY_AFTER_S)
        };
        let num_bytes = u32::try_from(body_len).map_err(|_| overloaded())?;
        let bytes = Arc::clone(&self.budget)
            .try_acquire_many_owned(num_bytes)
            .map_err(|_| overloaded())?;
        let lane = match text_use {
            TextUse::Tokenize => &self.tokenize,
            TextUse::Generate if body_len > self.max_short_body_bytes => &self.long,
            TextUse::Generate => &self.short,
        };
        let turn = Arc::clone(lane)
            .acquire_owned()
            .await
            .expect("the semaphore is never closed");
        Ok(TextPermit {
            _turn: turn,
            _bytes: bytes,
        })
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    const LONG: usize = 3_900_000;
    const SHORT: usize = 20_000;

    fn lanes() -> TextLanes {
        TextLanes::new(&HttpConfig::default())
    }

    /// A turn that is there at once.
    fn now(lanes: &TextLanes, text_use: TextUse, len: usize) -> Option<TextPermit> {
        lanes.enter(text_use, len).now_or_never()?.ok()
    }

    #[tokio::test]
    async fn long_work_does_not_hold_up_short_requests() {
        let lanes = lanes();
        let mut held = Vec::new();
        for text_use in [TextUse::Tokenize, TextUse::Generate] {
            while let Some(permit) = now(&lanes, text_use, LONG) {
                held.push(permit);
            }
        }
        assert_eq!(held.len(), 2, "one long text of each kind at a time");
        let mut short = Vec::new();
        while let Some(permit) = now(&lanes, TextUse::Generate, SHORT) {
            short.push(permit);
        }
        assert_eq!(short.len(), HttpConfig::default().max_num_text_threads);
        assert!(now(&lanes, TextUse::Tokenize, SHORT).is_none());
        drop(held);
        assert!(now(&lanes, TextUse::Tokenize, SHORT).is_some());
    }

    #[tokio::test]
    async fn what_waits_is_bounded_in_bytes() {
        let lanes = lanes();
        let max = HttpConfig::default().max_text_queue_bytes;
        let mut waiting = Vec::new();
        let refused = loop {
            let mut turn = Box::pin(lanes.enter(TextUse::Tokenize, LONG));
            match futures::poll!(&mut turn) {
                std::task::Poll::Ready(Err(error)) => break error,
                std::task::Poll::Ready(Ok(permit)) => waiting.push(async { permit }.boxed()),
                std::task::Poll::Pending => {
                    waiting.push(async { turn.await.expect("a turn") }.boxed());
                }
            }
            assert!(waiting.len() * LONG <= max);
        };
        assert_eq!((refused.status, waiting.len()), (503, max / LONG));
        // Who leaves the queue gives its bytes back.
        waiting.pop();
        let mut turn = Box::pin(lanes.enter(TextUse::Tokenize, LONG));
        assert!(futures::poll!(&mut turn).is_pending());
    }
}
