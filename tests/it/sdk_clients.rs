//! The openai SDKs for Python and Node against a real server: `tests/clients/run.sh`.
//!
//! Invariant: a machine without Python, Node or their registries says what it leaves out; CI leaves
//! nothing out.

use std::path::Path;
use std::process::{Command, Stdio};

use crate::support::binary;

/// Whether `tool` starts.
fn has(tool: &str) -> bool {
    Command::new(tool)
        .arg("--version")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

#[test]
fn the_openai_sdks_work() {
    let missing: Vec<&str> = ["python3", "node", "npm"]
        .into_iter()
        .filter(|tool| !has(tool))
        .collect();
    if !missing.is_empty() {
        let message = format!("SKIPPED sdk_clients: {} not found", missing.join(", "));
        assert!(
            std::env::var_os("CI").is_none(),
            "{message}, and CI leaves nothing out"
        );
        eprintln!("{message}");
        return;
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
    assert!(output.status.success(), "{text}\n{errors}");
}
