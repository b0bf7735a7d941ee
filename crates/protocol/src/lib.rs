//! The OpenAI API as vLLM speaks it: requests, value checks, error bodies, answers, streamed chunks.
//!
//! Bytes in, typed requests with values in range or an [`ApiError`] out; typed answers in, bytes out. The
//! crate is pure: time, ids and limits are arguments.
//!
//! Invariant: a request that parses never holds a value the engine would have to refuse, and no input
//! panics. Nothing that would change the answer is ignored: what is not there yet is a 501.
#![forbid(unsafe_code)]

mod defaults;
mod error;
mod finish;
mod pyrepr;

pub use defaults::GenerationDefaults;
pub use error::ApiError;
pub use finish::{FinishReason, StopReason};
