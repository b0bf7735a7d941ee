//! The model hub: finds a repository's files in the shared cache, or fetches them into it.
//!
//! The cache has the layout that Python's `huggingface_hub` uses, so that both find each other's
//! files: `models--ORG--NAME/{blobs,refs,snapshots}`. Downloads resume, are verified against the
//! hub's own hashes, and appear under their names only when whole and on disk.
//!
//! Written over the `hf-hub` crate, which speaks the API and brings the bytes. Added here is what
//! it (1.0.0) does not do: it starts a cut download anew, checks no hash, bounds no call in time,
//! and shows signed addresses in its errors. So a file's place in the cache is filled here.
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
mod failure;
mod fetch;
mod glob;
mod reference;
mod select;
mod url;

pub use config::{HubConfig, Token};
pub use error::HubError;
pub use fetch::{Fetched, HubProgress, Wanted, fetch};
pub use reference::ModelRef;
