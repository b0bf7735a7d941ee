//! `diagram`: what docs/FAILOVER.md shows of the machine, printed from its transition table.
//!
//! Invariant: only what stands between the markers `<!-- name -->` and `<!-- end -->` changes; a
//! test of crate `failover` fails while it is out of date.

use std::path::Path;

/// Writes the diagram and the table of timers into docs/FAILOVER.md.
pub(crate) fn write(root: &Path) -> Result<(), String> {
    let path = root.join("docs/FAILOVER.md");
    let text = std::fs::read_to_string(&path).map_err(|e| format!("{}: {e}", path.display()))?;
    let diagram = format!("```mermaid\n{}```\n", hotspare_failover::mermaid());
    let text = replace(&text, "diagram", &diagram)?;
    let text = replace(&text, "timers", &hotspare_failover::timers_table())?;
    std::fs::write(&path, text).map_err(|e| format!("{}: {e}", path.display()))
}

/// `text` with what stands after the marker `name` replaced.
fn replace(text: &str, name: &str, new: &str) -> Result<String, String> {
    let marker = format!("<!-- {name} -->\n");
    let missing = || format!("docs/FAILOVER.md has no section `{name}`");
    let begin = text.find(&marker).ok_or_else(missing)? + marker.len();
    let end = begin + text[begin..].find("<!-- end -->").ok_or_else(missing)?;
    Ok(format!("{}{new}{}", &text[..begin], &text[end..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_section_changes() {
        let text = "a\n<!-- x -->\nold\n<!-- end -->\nb\n<!-- y -->\n<!-- end -->\n";
        let new = replace(text, "x", "new\n").expect("the section is there");
        assert_eq!(new, text.replace("old", "new"));
        assert!(replace(text, "z", "").is_err());
    }
}
