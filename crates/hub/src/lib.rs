//! The model hub: finds a repository's files in the shared cache, or fetches them into it.
//!
//! The cache has the layout that Python's `huggingface_hub` uses, so that both find each other's
//! files: `models--ORG--NAME/{blobs,refs,snapshots}`. Downloads resume, are verified against the
//! hub's own hashes, and appear under their names only when whole and on disk.
//!
//! Written over a small HTTP client and not over the `hf-hub` crate: that one (1.0.0) starts a cut
//! download anew, checks no hash, cannot bound the time of its metadata requests, and needs two
//! hundred further crates.
//!
//! Invariant: whatever happens, no file of a snapshot is incomplete; and the token goes to the
//! configured endpoint only, and to no log.
#![forbid(unsafe_code)]

mod api;
mod cache;
mod client;
mod config;
mod digest;
mod download;
mod error;
mod fetch;
mod glob;
mod reference;
mod select;
mod url;

pub use config::{HubConfig, Token};
pub use error::HubError;
pub use fetch::{Fetched, HubProgress, Wanted, fetch};
pub use reference::ModelRef;
