//! `cargo xtask verify|tidy|fix|sim|diagram|floors|cuda-binary|make-gguf`: the checks a change must
//! pass, the fixes a machine can make, and model files to test and measure with.
//!
//! `verify` is read-only: formatting, clippy with warnings as errors, tests, documentation, tidy.
//! `fix` changes files. `make-gguf` writes one.
//!
//! Invariant: what CI runs, a developer can run with the same words.
#![forbid(unsafe_code)]
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command-line tool for developers"
)]

mod cuda_binary;
mod diagram;
mod floors;
mod make_gguf;
mod tidy;
mod verify;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

const USAGE: &str = "usage: cargo xtask <verify|tidy|fix|sim|diagram|floors|cuda-binary|make-gguf>

  verify     fmt --check, clippy -D warnings, tests, docs, tidy
  tidy       file and function limits, crate arrows, banned calls, unsafe
  fix        cargo fmt, cargo clippy --fix
  sim        the pair, simulated: --seeds N [--from S], --seed S, or --explore
  diagram    writes the state diagram and the timers into docs/FAILOVER.md
  floors     writes the least times of kernels and steps into docs/PERFORMANCE.md
  cuda-binary  builds the release binary with the feature cuda and checks it, without a card
  make-gguf  a GGUF file of any shape and type with random weights; see make-gguf --help";

fn main() -> ExitCode {
    let root = workspace_root();
    let command = std::env::args().nth(1).unwrap_or_default();
    let result = match command.as_str() {
        "verify" => verify::verify(&root),
        "tidy" => tidy::run(&root),
        "fix" => verify::fix(&root),
        "sim" => verify::sim(&root, &std::env::args().skip(2).collect::<Vec<_>>()),
        "diagram" => diagram::write(&root),
        "cuda-binary" => cuda_binary::check(&root),
        "floors" => floors::write(&root),
        "make-gguf" => make_gguf::run(&std::env::args().skip(2).collect::<Vec<_>>()),
        _ => Err(USAGE.to_owned()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("{message}");
            ExitCode::FAILURE
        }
    }
}

/// The workspace's root: the folder above `crates/xtask`.
fn workspace_root() -> PathBuf {
    let manifest_dir = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest_dir
        .ancestors()
        .nth(2)
        .unwrap_or(manifest_dir)
        .to_path_buf()
}
