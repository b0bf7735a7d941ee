//! `verify` and `fix`: cargo's own checks in the order in which they fail fastest.
//!
//! Invariant: the first failing check ends the run and names itself.

use std::path::Path;
use std::process::Command;

/// Runs every check, without changing a file.
pub(crate) fn verify(root: &Path) -> Result<(), String> {
    cargo(root, &["fmt", "--all", "--check"], &[])?;
    crate::tidy::run(root)?;
    cargo(
        root,
        &[
            "clippy",
            "--workspace",
            "--all-targets",
            "--",
            "-D",
            "warnings",
        ],
        &[],
    )?;
    cargo(root, &["test", "--workspace"], &[])?;
    sim(root, &["--seeds".to_owned(), "1000".to_owned()])?;
    cargo(
        root,
        &["doc", "--workspace", "--no-deps"],
        &[("RUSTDOCFLAGS", "-D warnings")],
    )
}

/// Runs the simulator of the pair, optimised, with `args`.
pub(crate) fn sim(root: &Path, args: &[String]) -> Result<(), String> {
    let mut words = vec![
        "run",
        "--quiet",
        "--release",
        "--package",
        "hotspare-sim",
        "--",
    ];
    words.extend(args.iter().map(String::as_str));
    cargo(root, &words, &[])
}

/// Formats, and applies clippy's machine-applicable suggestions.
pub(crate) fn fix(root: &Path) -> Result<(), String> {
    cargo(
        root,
        &[
            "clippy",
            "--workspace",
            "--all-targets",
            "--fix",
            "--allow-dirty",
        ],
        &[],
    )?;
    cargo(root, &["fmt", "--all"], &[])
}

pub(crate) fn cargo(root: &Path, args: &[&str], envs: &[(&str, &str)]) -> Result<(), String> {
    println!("==> cargo {}", args.join(" "));
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = Command::new(cargo)
        .args(args)
        .envs(envs.iter().copied())
        .current_dir(root)
        .status()
        .map_err(|e| format!("cargo {}: {e}", args.join(" ")))?;
    if status.success() {
        Ok(())
    } else {
        Err(format!("failed: cargo {}", args.join(" ")))
    }
}
