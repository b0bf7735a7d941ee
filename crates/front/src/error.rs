//! Why a front cannot start, or has given up.
//!
//! Invariant: each message is a whole sentence for the operator: it names the thing that is wrong.

use hotspare_link::ProtocolRange;

/// A failure of the server as a whole; a request's own failure is a [`crate::GenerateError`].
#[derive(Debug, thiserror::Error)]
pub enum FrontError {
    /// The model's files cannot be found, read or understood.
    #[error("cannot load the model {model:?}: {reason}")]
    Model {
        /// As it was named on the command line.
        model: String,
        /// What is wrong.
        reason: String,
    },
    /// An option does not fit the model.
    #[error("{0}")]
    Option(String),
    /// The engine process could not be started.
    #[error("the engine process cannot be started: {0}")]
    Launch(#[source] std::io::Error),
    /// The engine said that it cannot serve.
    #[error("the engine cannot start: {0}")]
    EngineRefused(String),
    /// The engine ended before it was ready.
    #[error("the engine ended before it was ready ({0}); its log above says why")]
    EngineEndedEarly(String),
    /// The engine did not become ready in time.
    #[error("the engine was not ready after {0} s")]
    EngineStartTimeout(u64),
    /// Front and engine are of builds that do not understand each other.
    #[error("front and engine have no protocol version in common: {front:?} and {engine:?}")]
    Protocol {
        /// What this front speaks.
        front: ProtocolRange,
        /// What the engine speaks.
        engine: ProtocolRange,
    },
    /// The engine serves something other than what this front announces.
    #[error("the engine does not fit: {0}")]
    EngineMismatch(String),
    /// Another model is being loaded.
    #[error("a reload is under way; try again when it is done")]
    ReloadBusy,
    /// The server ends.
    #[error("the server is ending")]
    Stopping,
    /// The supervision itself failed.
    #[error("the engine's supervision failed: {0}")]
    Supervisor(String),
}
