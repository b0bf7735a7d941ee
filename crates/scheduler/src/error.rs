//! What can go wrong between the scheduler and whoever drives it.
//!
//! Invariant: none of these is a request's fault. A request is refused with a `RejectReason` or
//! ends with a `FinishReason`; these mean that the engine is put together wrongly.

use hotspare_batch::{SlotId, StepId};

/// Misuse of the scheduler. After a failed `commit` nothing has changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SchedulerError {
    /// A limit is zero or too large.
    #[error("{name} = {value} is out of range")]
    InvalidConfig {
        /// The limit.
        name: &'static str,
        /// Its value.
        value: usize,
    },
    /// An output came although no batch is in flight.
    #[error("output of step {step}, but no batch is in flight")]
    NothingInFlight {
        /// The output's step.
        step: StepId,
    },
    /// Outputs are committed in the order of their batches.
    #[error("output of step {step}, but step {expected} is the oldest in flight")]
    WrongStep {
        /// The output's step.
        step: StepId,
        /// The step it should have been.
        expected: StepId,
    },
    /// An output has one entry for each row.
    #[error("step {step} has {expected} rows, its output has {num_rows}")]
    WrongRowCount {
        /// The step.
        step: StepId,
        /// Entries of the output.
        num_rows: usize,
        /// Rows of the batch.
        expected: usize,
    },
    /// Entries of an output are in the order of the rows.
    #[error("row {row} of step {step} is of slot {expected}, its output of slot {slot}")]
    WrongSlot {
        /// The step.
        step: StepId,
        /// Index of the row.
        row: usize,
        /// The output's slot.
        slot: SlotId,
        /// The row's slot.
        expected: SlotId,
    },
}
