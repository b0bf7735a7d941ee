//! Support for this crate's tests: a naive backend, test data, and small models made on the spot.
//!
//! Invariant: a suite whose data is missing says so loudly, and fails where `CI` is set.

mod gguf_writer;
mod naive_math;
mod naive_ops;
mod tiny_model;

use std::path::PathBuf;

pub(crate) use gguf_writer::GgufWriter;
pub(crate) use naive_ops::NaiveOps;
pub(crate) use tiny_model::TinyModel;

/// The families of which the test data has a tiny model, `tiny/NAME`.
pub(crate) const TINY_FAMILIES: [&str; 10] = [
    "llama",
    "llama3-rope",
    "mistral",
    "mixtral",
    "qwen2",
    "qwen3",
    "qwen3-moe",
    "phi3",
    "gemma2",
    "gemma3",
];

/// The directory of test data `name`, or `None` (said loudly) where it is not there.
pub(crate) fn assets(suite: &str, name: &str) -> Option<PathBuf> {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared/assets");
    let path = root.join(name);
    if path.exists() {
        return Some(path);
    }
    eprintln!("SKIPPED {suite}: ../shared/assets not found");
    assert!(
        std::env::var_os("CI").is_none(),
        "test data is missing in CI"
    );
    None
}
