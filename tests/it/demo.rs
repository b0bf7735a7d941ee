//! `hotspare demo`: what it leaves behind when a signal ends it, which is nothing.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use hotspare_testkit::{send_signal, wait_until};
use rustix::process::Signal;

use crate::support::{PATIENCE, binary};

/// Processes whose command line names something in this directory.
fn processes_of(dir: &Path) -> usize {
    let name = dir.display().to_string();
    let entries = std::fs::read_dir("/proc").expect("processes");
    entries
        .filter_map(|entry| std::fs::read(entry.ok()?.path().join("cmdline")).ok())
        .filter(|line| String::from_utf8_lossy(line).contains(&name))
        .count()
}

fn ended_by(signal: Signal, status: i32, line: &str) {
    let dir = tempfile::tempdir().unwrap();
    let mut demo = Command::new(binary())
        .args(["demo", "spark-mini"])
        .env("TMPDIR", dir.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("the binary runs");
    let mut lines = BufReader::new(demo.stdout.take().expect("a pipe")).lines();
    let found = lines
        .by_ref()
        .map_while(Result::ok)
        .find(|l| l.contains(line));
    assert!(found.is_some(), "it says {line:?}");
    wait_until("a node runs", PATIENCE, || processes_of(dir.path()) > 0);
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    send_signal(demo.id(), signal);
    // Whatever it still says is read, so that it does not wait for a full pipe.
    lines.map_while(Result::ok).for_each(drop);
    let code = demo.wait().expect("a child").code();
    assert_eq!(code, Some(status));
    assert_eq!(processes_of(dir.path()), 0, "no node is left");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn a_demo_that_is_interrupted_leaves_nothing() {
    // While the nodes start, and in the middle of the story.
    ended_by(Signal::INT, 130, "Starting two nodes");
    ended_by(Signal::TERM, 143, "A client asks");
}
