//! What state the supervision of an engine is in.
//!
//! Invariant: `Ready` is the only state in which requests are taken; `Stopped` is final.

use std::time::Duration;

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EngineState {
    /// The process was started; nothing was heard of it yet.
    Starting,
    /// It loads its model.
    Loading {
        /// What is being done.
        stage: String,
        /// Done so far.
        done: u64,
        /// In all; 0 where unknown.
        total: u64,
    },
    /// It serves.
    Ready,
    /// It failed and is started again after a while.
    Backoff {
        /// Why it failed.
        reason: String,
        /// The wait.
        restart_in: Duration,
    },
    /// It takes nothing new, finishes what runs, and ends.
    Draining,
    /// It ended as it was asked to.
    Stopped,
    /// It failed for good, or so often in a row that the node does not count as ready.
    Failed {
        /// Why.
        reason: String,
    },
}

impl EngineState {
    /// The name in `/ha/status` and in metrics.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Loading { .. } => "loading",
            Self::Ready => "ready",
            Self::Backoff { .. } => "backoff",
            Self::Draining => "draining",
            Self::Stopped => "stopped",
            Self::Failed { .. } => "failed",
        }
    }

    /// Why requests are not taken, as a clause for clients; `None` when they are.
    pub fn not_ready_reason(&self) -> Option<&'static str> {
        match self {
            Self::Ready => None,
            Self::Starting => Some("the engine is starting"),
            Self::Loading { .. } => Some("the model is loading"),
            Self::Backoff { .. } => Some("the engine failed and is about to be started again"),
            Self::Draining => Some("the server is draining"),
            Self::Stopped => Some("the engine was stopped"),
            Self::Failed { .. } => Some("the engine failed"),
        }
    }
}
