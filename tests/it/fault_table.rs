//! docs/FAULTS.md: what each row of the fault matrix came to, written by the tests themselves.
//!
//! With `HOTSPARE_FAULT_TABLE=FILE` in the environment a test replaces its row's last two columns
//! in that file; without it, it only checks that the row is there.
//!
//! Invariant: a row of the table is the result of a test that passed.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Instant;

/// Rows are written one at a time.
static FILE: Mutex<()> = Mutex::new(());

fn table() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/FAULTS.md")
}

/// Writes how row `name` ended, and how long it took where that means something.
pub(crate) fn record(name: &str, outcome: &str, since: Option<(Instant, &str)>) {
    let took = since.map_or_else(String::new, |(at, what)| {
        format!("{} ms {what}", at.elapsed().as_millis())
    });
    // One that failed has left the file whole.
    let _guard = FILE
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    let path = std::env::var_os("HOTSPARE_FAULT_TABLE");
    let text = std::fs::read_to_string(path.as_ref().map_or(table(), PathBuf::from))
        .expect("the table can be read");
    let mut new = String::new();
    let mut is_there = false;
    for line in text.lines() {
        match line.strip_prefix(&format!("| {name} |")) {
            Some(rest) => {
                is_there = true;
                let [fault, expected] = cells(rest);
                writeln!(
                    new,
                    "| {name} | {fault} | {expected} | {outcome} | {took} |"
                )
            }
            None => writeln!(new, "{line}"),
        }
        .expect("a string takes everything");
    }
    assert!(is_there, "docs/FAULTS.md has a row {name}");
    if let Some(path) = path {
        std::fs::write(path, new).expect("the table can be written");
    }
}

/// The first two cells of what follows a row's name.
fn cells(rest: &str) -> [&str; 2] {
    let mut cells = rest.split('|').map(str::trim);
    [cells.next().unwrap_or(""), cells.next().unwrap_or("")]
}
