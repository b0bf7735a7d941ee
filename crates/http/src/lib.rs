//! HTTP: vLLM's and OpenAI's routes over a [`hotspare_front::Front`], and the server that runs
//! them.
//!
//! A request is read here byte by byte, parsed by `protocol`, made a prompt by `text`, and given
//! to the front; the answer is collected, or streamed event by event as the front yields tokens.
//!
//! Invariant: whatever a client sends or stops sending, the answer is one of the documented
//! shapes, the memory for it is bounded, and dropping the connection drops the generation.
#![forbid(unsafe_code)]

mod agent;
mod app;
mod auth;
mod body;
mod body_budget;
mod collect;
mod config;
mod headers;
mod job;
mod own_template;
mod peer;
mod pieces;
mod plan;
mod reply;
mod router;
mod routes;
mod server;
mod sse;
mod tally;
mod text_lanes;
mod texts;
mod timeout_io;
mod unknown_fields;
mod view;

pub use agent::serve_agent;
pub use config::HttpConfig;
pub use server::{HttpError, serve};
