//! Rules about a file's lines: its head, its length, its width, white space.
//!
//! Invariant: limits are the constants below; nothing is exempt.

use super::{Finding, Source};

const MAX_FILE_LINES: usize = 500;
const MAX_LINE_COLUMNS: usize = 100;

/// Adds what is wrong with the lines of `source`.
pub(crate) fn check(source: &Source, findings: &mut Vec<Finding>) {
    if !source.text.starts_with("//! ") {
        findings.push(Finding::new(
            source,
            1,
            "a file opens with a `//!` head: what it is, and why",
        ));
    }
    let num_lines = source.text.lines().count();
    if num_lines > MAX_FILE_LINES {
        let what = format!("{num_lines} lines; at most {MAX_FILE_LINES}");
        findings.push(Finding::new(source, num_lines, what));
    }
    for (index, line) in source.text.lines().enumerate() {
        if line.chars().count() > MAX_LINE_COLUMNS {
            let what = format!("line longer than {MAX_LINE_COLUMNS} columns");
            findings.push(Finding::new(source, index + 1, what));
        }
        if line.ends_with([' ', '\t']) {
            findings.push(Finding::new(source, index + 1, "trailing white space"));
        }
    }
}
