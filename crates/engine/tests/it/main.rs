//! The engine over its socket, on threads of this process.
//!
//! Everything goes through `spawn_in_process` and the link's frames, as a front would do it; the
//! scripted backend says what the tokens must be.
#![allow(clippy::unwrap_used, reason = "a failed step ends its test")]

mod faults;
mod front;
mod invariance;
mod kv_mirror;
mod load;
mod model;
mod models;
mod protocol;
mod requests;
mod streams;
