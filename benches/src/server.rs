//! The server under test: the release binary, built first so that numbers belong to the sources.
//!
//! Invariant: the binary stands beside this one, so both come from the same profile.

use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;

use hotspare_testkit::{Server, ServerOptions};

/// Builds the server once and returns its path.
fn binary() -> &'static PathBuf {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let built = Command::new(cargo)
            .args(["build", "--quiet", "--release", "--package", "hotspare"])
            .status();
        assert!(
            built.is_ok_and(|status| status.success()),
            "the server builds"
        );
        let own = std::env::current_exe().unwrap_or_else(|e| panic!("this program's path: {e}"));
        own.with_file_name("hotspare")
    })
}

/// A ready server of `model`.
pub(crate) fn start(model: &str, args: &[&str]) -> Server {
    Server::start(binary(), &ServerOptions::new(model, args))
}

/// A server of `model` whose port is bound.
pub(crate) fn start_unready(model: &str, args: &[&str]) -> Server {
    Server::start_unready(binary(), &ServerOptions::new(model, args))
}

/// `ADDRESS:PORT` of a server.
pub(crate) fn address(server: &Server) -> String {
    server.base_url().trim_start_matches("http://").to_owned()
}

/// A counter in the server's metrics, summed over its samples.
///
/// # Panics
/// Where there is no such sample.
pub(crate) fn counter(server: &Server, name: &str) -> f64 {
    let text = server.client().get("/metrics").text();
    let samples: Vec<f64> = text
        .lines()
        .filter(|line| {
            line.strip_prefix(name)
                .is_some_and(|rest| rest.starts_with(['{', ' ']))
        })
        .filter_map(|line| line.rsplit(' ').next()?.parse().ok())
        .collect();
    assert!(!samples.is_empty(), "{name} is exposed");
    samples.iter().sum()
}
