//! Support for tests over real processes and sockets: start a server, talk to it, read its streams.
//!
//! Everything here blocks and panics on failure: a test is a linear story, and a failed step ends
//! it with a message. All waits are bounded.
//!
//! Invariant: a process that a test starts ends with the test, by its own pid, whatever happens.
#![forbid(unsafe_code)]
#![allow(clippy::print_stderr, reason = "tests speak on stderr")]

mod assets;
mod client;
pub mod gguf;
mod hub_server;
mod relay;
mod requests;
mod server;
mod sse;
mod wait;

pub use assets::shared_asset;
pub use client::{Client, Reply};
pub use hub_server::{HubFault, HubRequest, HubServer};
pub use relay::Relay;
pub use requests::{NUM_TOKENS, Probe, RequestRow, masked, requests, unstreamed};
pub use server::{Server, ServerOptions, is_running, send_signal};
pub use sse::{Event, SseStream};
pub use wait::wait_until;
