//! Copies of an engine's full KV blocks in memory that outlives it.
//!
//! The front owns an anonymous file for each of its engines. The engine that serves writes each
//! block there once it is full; when the engine is lost, the next one finds the blocks of the
//! streams that it takes over there, and computes again only what no block was full of. What is
//! read was checked: a record has checksums, so one that was cut by the end of its writer is no
//! record.
//!
//! Invariant: a block that comes in holds exactly the prefix that it is found by, computed by an
//! engine of the same model and the same numerics.

mod keeper;
mod layout;
mod source;
mod writer;

pub(crate) use keeper::KvKeeper;
pub(crate) use layout::Identity;
