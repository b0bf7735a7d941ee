//! The one integration binary: real `hotspare` processes, real sockets, real signals.
//!
//! Each module is one aspect of what a user sees. Servers run on ports of their own and end with
//! their test.
//!
//! Invariant: no test measures speed; waits are bounded, and long enough for a loaded machine.
#![allow(missing_docs, reason = "a test binary has no public surface")]
#![allow(clippy::unwrap_used, reason = "a failed step ends its test")]

mod api;
mod bad_input;
#[cfg(feature = "cuda")]
mod card;
#[cfg(feature = "cuda")]
mod card_faults;
#[cfg(feature = "cuda")]
mod card_products;
mod chat;
mod cli;
mod clients;
mod completions;
mod demo;
mod device_commands;
mod dummy;
mod engine_process;
mod fault_table;
mod haproxy;
mod hub;
mod in_process;
mod inspect;
mod kv_mirror;
mod models;
mod own_templates;
mod pair;
mod pair_cuts;
mod pair_faults;
mod pair_front;
mod pair_leaks;
mod pair_nodes;
mod pair_reload;
mod pair_tls;
mod quantized;
mod replay;
mod replay_kill;
mod replay_models;
mod replay_plan;
mod sdk_clients;
mod shutdown;
mod streaming;
mod supervision;
mod support;
