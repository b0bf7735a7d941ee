//! A budget of bytes for the bodies of all requests that are not answered yet.
//!
//! A bound for one body times a bound on connections is no bound worth having: 4,096 connections
//! of 4 MiB are 16 GiB. What is made of a body (trees, texts, token ids, their copies for the
//! engine) is in proportion to it, so its share is held until the answer has ended.
//!
//! Invariant: the shares that are held sum to the budget at most; the first few KiB of each body
//! are free, so that short requests never meet a budget that long ones have used up.

use std::sync::Arc;

use hotspare_protocol::ApiError;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::HttpConfig;

/// When to try again, seconds.
const RETRY_AFTER_S: u32 = 1;

/// The budget.
pub(crate) struct BodyBudget {
    bytes: Arc<Semaphore>,
    num_free_bytes: usize,
}

/// What one body holds of it; given back on drop.
pub(crate) struct BodyShare {
    budget: Arc<Semaphore>,
    /// Bytes that may still come before any are taken.
    num_free_bytes: usize,
    taken: Option<OwnedSemaphorePermit>,
}

impl BodyBudget {
    pub(crate) fn new(config: &HttpConfig) -> Self {
        // One body always fits, whatever the settings say.
        let total = config.max_total_body_bytes.max(config.max_body_bytes);
        Self {
            bytes: Arc::new(Semaphore::new(total.min(Semaphore::MAX_PERMITS))),
            num_free_bytes: config.max_inline_body_bytes,
        }
    }

    /// The share of a body of which nothing has come.
    pub(crate) fn share(&self) -> BodyShare {
        BodyShare {
            budget: Arc::clone(&self.bytes),
            num_free_bytes: self.num_free_bytes,
            taken: None,
        }
    }
}

impl BodyShare {
    /// Takes room for further bytes.
    ///
    /// # Errors
    /// 503 where there is none.
    pub(crate) fn grow(&mut self, num_bytes: usize) -> Result<(), ApiError> {
        let num_free = num_bytes.min(self.num_free_bytes);
        self.num_free_bytes -= num_free;
        let overloaded = || {
            let message = "the requests that it works on hold too much memory";
            ApiError::not_ready(message, RETRY_AFTER_S)
        };
        let num_bytes = u32::try_from(num_bytes - num_free).map_err(|_| overloaded())?;
        if num_bytes == 0 {
            return Ok(());
        }
        let more = Arc::clone(&self.budget)
            .try_acquire_many_owned(num_bytes)
            .map_err(|_| overloaded())?;
        match &mut self.taken {
            Some(taken) => taken.merge(more),
            None => self.taken = Some(more),
        }
        Ok(())
    }

    /// Gives back what was taken: nothing of the body is kept.
    pub(crate) fn release(&mut self) {
        self.taken = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_sum_to_the_budget_and_come_back() {
        let budget = BodyBudget::new(&HttpConfig {
            max_body_bytes: 100,
            max_total_body_bytes: 150,
            max_inline_body_bytes: 10,
            ..HttpConfig::default()
        });
        let mut first = budget.share();
        first.grow(60).expect("50 of 150");
        first.grow(50).expect("100 of 150");
        let mut second = budget.share();
        second.grow(60).expect("all");
        let refused = second.grow(1).expect_err("nothing is left");
        assert_eq!((refused.status, refused.retry_after_s), (503, Some(1)));
        let mut short = budget.share();
        short.grow(4).expect("free");
        short.grow(6).expect("free");
        short.grow(1).expect_err("no longer free");
        drop(first);
        short.grow(100).expect("room again");
    }

    #[test]
    fn one_body_always_fits() {
        let budget = BodyBudget::new(&HttpConfig {
            max_body_bytes: 100,
            max_total_body_bytes: 1,
            max_inline_body_bytes: 0,
            ..HttpConfig::default()
        });
        let mut share = budget.share();
        share.grow(100).expect("as long as a body may be");
        share.grow(1).expect_err("longer");
    }
}
