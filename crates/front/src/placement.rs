//! Where a sequence runs now.
//!
//! A stream and the task that continues one of its sequences elsewhere share it, so that whichever
//! comes last, a stream's end cancels the sequence on the target that has it.
//!
//! Invariant: once it is closed nothing is submitted any more.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hotspare_batch::{Generate, RequestId};

use crate::target::{Feed, SubmitError, Target};

enum State {
    Nowhere,
    On {
        target: Arc<dyn Target>,
        is_exact: bool,
    },
    Closed,
}

/// See the module.
pub(crate) struct Placement {
    state: Mutex<State>,
}

impl Placement {
    pub(crate) fn new() -> Self {
        Self {
            state: Mutex::new(State::Nowhere),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts an attempt on `target`, unless the stream has ended. `is_exact` where the target
    /// computes the bits that the one before it would have.
    pub(crate) fn submit(
        &self,
        target: Arc<dyn Target>,
        is_exact: bool,
        request: Generate,
        feed: Feed,
    ) -> Result<(), SubmitError> {
        let mut state = self.state();
        if matches!(*state, State::Closed) {
            return Ok(());
        }
        target.submit(request, feed)?;
        *state = State::On { target, is_exact };
        Ok(())
    }

    /// Whether the present attempt continues bit for bit.
    pub(crate) fn is_exact(&self) -> bool {
        match *self.state() {
            State::On { is_exact, .. } => is_exact,
            State::Nowhere | State::Closed => true,
        }
    }

    /// The target of the present attempt.
    pub(crate) fn target(&self) -> Option<Arc<dyn Target>> {
        match &*self.state() {
            State::On { target, .. } => Some(Arc::clone(target)),
            State::Nowhere | State::Closed => None,
        }
    }

    /// The attempt is over.
    pub(crate) fn clear(&self) {
        let mut state = self.state();
        if matches!(*state, State::On { .. }) {
            *state = State::Nowhere;
        }
    }

    /// The stream has no more use for the sequence: what runs is cancelled.
    pub(crate) fn close(&self, request_id: RequestId) {
        let state = std::mem::replace(&mut *self.state(), State::Closed);
        if let State::On { target, .. } = state {
            target.cancel(request_id);
        }
    }
}
