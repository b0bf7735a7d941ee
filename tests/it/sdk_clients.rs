//! The openai SDKs for Python and Node against a real server: `tests/clients/run.sh`.
//!
//! Invariant: a machine without Python, Node or their registries says what it leaves out; CI leaves
//! nothing out.

use std::path::Path;
use std::process::{Command, Stdio};

use crate::support::binary;

/// The script's status where there are no packages to test with.
const NOT_INSTALLED: i32 = 77;

/// Whether `tool` starts.
fn has(tool: &str) -> bool {
    Command::new(tool)
        .arg("--version")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// Says that nothing was tested.
#[allow(clippy::print_stderr, reason = "tests speak on stderr")]
fn skip(reason: &str) {
    assert!(
        std::env::var_os("CI").is_none(),
        "CI leaves nothing out: {reason}"
    );
    eprintln!("SKIPPED sdk_clients: {reason}");
}

#[test]
fn the_openai_sdks_work() {
    let missing: Vec<&str> = ["python3", "node", "npm"]
        .into_iter()
        .filter(|tool| !has(tool))
        .collect();
    if !missing.is_empty() {
        return skip(&format!("{} not found", missing.join(", ")));
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/clients/run.sh");
    let output = Command::new("bash")
        .arg(&script)
        .env("HOTSPARE_BIN", binary())
        .stdin(Stdio::null())
        .output()
        .expect("bash runs");
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    if output.status.code() == Some(NOT_INSTALLED) {
        return skip(&format!("packages cannot be installed: {errors}"));
    }
    assert!(output.status.success(), "{text}\n{errors}");
}
