//! The state diagram, printed from the transition table as Mermaid text, and the table of timers.
//!
//! Invariant: what docs/FAILOVER.md shows is what these functions print; a test compares them.

use std::collections::BTreeMap;
use std::fmt::Write;

use crate::table::TABLE;
use crate::{Cause, Profile, Role, Timers};

/// Every transition of the table: from which role, to which, and why.
#[must_use]
pub fn transitions() -> Vec<(Role, Role, Cause)> {
    let mut all: Vec<_> = TABLE
        .iter()
        .flat_map(|row| row.from.iter().map(|&from| (from, row.to, row.cause)))
        .collect();
    all.sort_unstable();
    all.dedup();
    all
}

/// All transitions: one arrow for each pair of roles, with the causes that lead along it.
#[must_use]
pub fn mermaid() -> String {
    let mut arrows: BTreeMap<(Role, Role), Vec<&'static str>> = BTreeMap::new();
    for row in TABLE {
        for &from in row.from {
            let causes = arrows.entry((from, row.to)).or_default();
            if !causes.contains(&row.cause.text()) {
                causes.push(row.cause.text());
            }
        }
    }
    let mut text = String::from("stateDiagram-v2\n    [*] --> starting\n");
    for ((from, to), causes) in arrows {
        let (from, to) = (identifier(from), identifier(to));
        // Writing to a string cannot fail.
        let _ = writeln!(text, "    {from} --> {to}: {}", causes.join("; "));
    }
    text
}

/// Mermaid's names have no hyphens.
fn identifier(role: Role) -> String {
    role.name().replace('-', "_")
}

/// Every timer with its default in each profile, as a Markdown table.
#[must_use]
pub fn timers_table() -> String {
    let profiles = [Profile::Lan, Profile::Wan, Profile::Seed].map(|profile| {
        let text = format!("{:?}", Timers::of(profile));
        let fields = text
            .trim_start_matches("Timers {")
            .trim_end_matches('}')
            .trim()
            .to_owned();
        fields
            .split(", ")
            .filter_map(|field| field.split_once(": "))
            .map(|(name, value)| (name.trim().to_owned(), value.trim().to_owned()))
            .collect::<Vec<_>>()
    });
    let mut text = String::from("| timer | lan | wan | seed |\n|---|---:|---:|---:|\n");
    for (index, (name, lan)) in profiles[0].iter().enumerate() {
        let (wan, seed) = (&profiles[1][index].1, &profiles[2][index].1);
        let _ = writeln!(text, "| `{name}` | {lan} | {wan} | {seed} |");
    }
    text
}
