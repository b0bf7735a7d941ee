//! The HTTP server over a real front and an engine that follows a script, on real sockets.
#![allow(clippy::unwrap_used)]

mod answers;
mod client;
mod draining;
mod large_answers;
mod leaving;
mod lifecycle;
mod own_templates;
mod refusals;
mod rig;
mod streams;
