//! Whole models on a device, against what others computed of them; the same on a card and on the
//! emulator.
//!
//! Small models in a folder of test data, with golden files beside them; the data is not part of
//! the repository.
//!
//! Invariant: a check fails with what was found and what was expected, and reports how much it
//! compared.

mod golden;
pub(crate) mod harness;
#[cfg(test)]
mod model_checks_test;
pub(crate) mod requests;
mod suite;

pub use golden::{FAMILIES, Report, check_family, check_gguf, check_long_context};
pub use harness::Settings;
pub use requests::{check_lookahead, check_memory, check_refusals, check_sampling, load_blocks};
pub use suite::run_all;

/// A check's failure: what is wrong.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct CheckError(pub String);

impl CheckError {
    fn new(what: impl std::fmt::Display) -> Self {
        Self(what.to_string())
    }
}
