//! Downloads from a hub on loopback, with everything that can go wrong on the way.
//!
//! Invariant: after each failure the cache holds no file that would load, and the next try goes on
//! from what is there.
#![allow(missing_docs, reason = "a test binary has no public surface")]
#![allow(clippy::unwrap_used, reason = "a failed step ends its test")]

mod downloads;
mod repositories;
mod rig;
