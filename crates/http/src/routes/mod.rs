//! The routes, one file for each family.
//!
//! Invariant: a handler only translates; what it decides, it decides through `protocol` and the
//! front.

pub(crate) mod chat;
mod chat_events;
mod completion_echo;
mod completion_events;
pub(crate) mod completions;
pub(crate) mod ha;
pub(crate) mod health;
pub(crate) mod models;
pub(crate) mod reload;
pub(crate) mod status;
pub(crate) mod tokenize;
