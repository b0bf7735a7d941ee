//! Why an engine ends other than by being drained, and the status its process ends with.
//!
//! Invariant: a request's own failure is never here; it is an event of its sequence.

use hotspare_batch::ExecutorError;
use hotspare_link::LinkError;
use hotspare_model::ModelError;
use hotspare_model::ops::OpsError;
use hotspare_scheduler::SchedulerError;

use crate::{FaultsError, TokenFault};

/// What ended the engine.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EngineError {
    /// An option has an impossible value.
    #[error("{0}")]
    Options(String),
    /// The fault specification is wrong.
    #[error(transparent)]
    Faults(#[from] FaultsError),
    /// The process was not started by a front.
    #[error(
        "an engine is started by `hotspare serve`: its standard input must be a socket ({reason})"
    )]
    NotASocket {
        /// What the operating system said.
        reason: std::io::Error,
    },
    /// A thread could not be started.
    #[error("cannot start a thread: {0}")]
    Thread(std::io::Error),
    /// The model cannot be loaded.
    #[error("cannot load the model: {0}")]
    Model(#[from] ModelError),
    /// The device has not enough memory.
    #[error(
        "not enough memory: {0}; lower --kv-cache-memory-bytes, --max-num-seqs, \
         --max-num-batched-tokens or --max-model-len"
    )]
    OutOfMemory(OpsError),
    /// A card has not enough memory; what helps is part of the reason.
    #[error("not enough memory: {0}")]
    CardOutOfMemory(OpsError),
    /// The KV cache is too small for one sequence.
    #[error(
        "a KV cache of {available_bytes} bytes does not hold one sequence of {max_model_len} \
         tokens, which takes {needed_bytes} bytes: raise --kv-cache-memory-bytes or lower \
         --max-model-len"
    )]
    KvCacheTooSmall {
        /// What was asked for.
        available_bytes: usize,
        /// What one sequence takes.
        needed_bytes: usize,
        /// Its length.
        max_model_len: usize,
    },
    /// The scheduler refused its limits, or was driven wrongly.
    #[error("scheduler: {0}")]
    Scheduler(#[from] SchedulerError),
    /// The device is lost.
    #[error(transparent)]
    Executor(#[from] ExecutorError),
    /// The front sent what is no message, or what has no place here.
    #[error("the front broke the protocol: {0}")]
    Protocol(String),
    /// The connection to the front failed or ended.
    #[error("the front is gone")]
    FrontLost,
    /// A fault that was asked for.
    #[error("injected fault: {0:?}")]
    Injected(TokenFault),
}

impl EngineError {
    /// What a failure to write means: the front is gone, or the message was impossible.
    pub(crate) fn from_write(error: LinkError) -> Self {
        match error {
            LinkError::Io(_) => Self::FrontLost,
            other => Self::Protocol(other.to_string()),
        }
    }

    /// The status the process ends with.
    pub fn exit_status(&self) -> u8 {
        match self {
            Self::FrontLost => EXIT_FRONT_LOST,
            Self::Executor(ExecutorError::ContextLost(_)) => EXIT_CONTEXT_LOST,
            Self::Executor(_) => EXIT_DEVICE_LOST,
            Self::Protocol(_) => EXIT_PROTOCOL,
            Self::Scheduler(_) => EXIT_INTERNAL,
            Self::Injected(_) => EXIT_INJECTED,
            _ => EXIT_CANNOT_START,
        }
    }
}

/// The engine could not start: options, model, memory.
pub const EXIT_CANNOT_START: u8 = 1;
/// The front is gone.
pub const EXIT_FRONT_LOST: u8 = 3;
/// The device or its thread failed; another engine may work.
pub const EXIT_DEVICE_LOST: u8 = 4;
/// The front sent what is no message.
pub const EXIT_PROTOCOL: u8 = 5;
/// The engine contradicted itself.
pub const EXIT_INTERNAL: u8 = 6;
/// A CUDA error ended the context (an illegal address, an uncorrectable memory error, …): only a
/// new process can use the card again, and the log says which error, kernel and GPU.
pub const EXIT_CONTEXT_LOST: u8 = 7;
/// A fault that `HOTSPARE_FAULTS` asked for.
pub const EXIT_INJECTED: u8 = 86;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lost_context_has_a_status_of_its_own() {
        let status = |error: ExecutorError| EngineError::from(error).exit_status();
        let lost = status(ExecutorError::ContextLost("CUDA_ERROR_ECC".to_owned()));
        assert_eq!(lost, EXIT_CONTEXT_LOST);
        assert_eq!(status(ExecutorError::Disconnected), EXIT_DEVICE_LOST);
        let all = [
            EXIT_CANNOT_START,
            EXIT_FRONT_LOST,
            EXIT_DEVICE_LOST,
            EXIT_PROTOCOL,
            EXIT_INTERNAL,
            EXIT_CONTEXT_LOST,
            EXIT_INJECTED,
        ];
        let distinct: std::collections::BTreeSet<u8> = all.into_iter().collect();
        assert_eq!(distinct.len(), all.len());
    }
}
