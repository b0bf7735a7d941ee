//! The test data beside the repository: real tokenizers, models and golden files of other software.
//!
//! Invariant: a suite that is left out says so loudly, and fails in CI.

use std::path::{Path, PathBuf};

/// The path of `relative` below `../shared/assets`, or `None` after saying that `suite` is left
/// out.
///
/// # Panics
/// Where the data is absent and the environment has `CI`.
pub fn shared_asset(suite: &str, relative: &str) -> Option<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/assets");
    let path = root.join(relative);
    if path.exists() {
        return Some(path);
    }
    let message = format!("SKIPPED {suite}: ../shared/assets/{relative} not found");
    assert!(
        std::env::var_os("CI").is_none(),
        "{message}, and CI leaves nothing out"
    );
    eprintln!("{message}");
    None
}
