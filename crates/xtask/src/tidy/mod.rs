//! Tidy: the house rules that neither rustfmt nor clippy checks.
//!
//! Each rule is a module with one `check`; it gets the parsed sources and adds findings. Also run
//! as a test, so that `cargo test --workspace` fails on an untidy tree.
//!
//! Invariant: a rule reports every place it finds, with a file and a line.

mod arrows;
mod functions;
mod images;
mod lines;
mod purity;
mod source;

use std::path::Path;

use source::Source;

/// Something a rule found.
pub(crate) struct Finding {
    file: String,
    line: usize,
    what: String,
}

impl Finding {
    fn new(source: &Source, line: usize, what: impl Into<String>) -> Self {
        Self {
            file: source.path.clone(),
            line,
            what: what.into(),
        }
    }
}

/// Runs every rule; the error lists every finding.
pub(crate) fn run(root: &Path) -> Result<(), String> {
    println!("==> tidy");
    let findings = findings(root)?;
    if findings.is_empty() {
        return Ok(());
    }
    let mut report: Vec<String> = findings
        .iter()
        .map(|f| format!("{}:{}: {}", f.file, f.line, f.what))
        .collect();
    report.sort();
    Err(format!(
        "{}\ntidy: {} finding(s)",
        report.join("\n"),
        report.len()
    ))
}

fn findings(root: &Path) -> Result<Vec<Finding>, String> {
    let sources = source::read_all(root)?;
    let mut findings = Vec::new();
    for source in &sources {
        lines::check(source, &mut findings);
        functions::check(source, &mut findings);
        purity::check(source, &mut findings);
    }
    arrows::check(root, &mut findings)?;
    images::check(root, &mut findings)?;
    Ok(findings)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tree_is_tidy() {
        if let Err(report) = run(&crate::workspace_root()) {
            panic!("{report}");
        }
    }

    fn findings_in(path: &str, text: &str) -> Vec<String> {
        let source = Source::parse(path, text).expect("test sources parse");
        let mut findings = Vec::new();
        lines::check(&source, &mut findings);
        functions::check(&source, &mut findings);
        purity::check(&source, &mut findings);
        findings.into_iter().map(|f| f.what).collect()
    }

    #[test]
    fn a_clean_file_has_no_findings() {
        let text = "//! Head.\n//! Two.\n//! Three.\npub fn f() {}\n";
        assert_eq!(
            findings_in("crates/scheduler/src/a.rs", text),
            Vec::<String>::new()
        );
    }

    #[test]
    fn rules_find_what_they_are_for() {
        let head = "//! Head.\n//! Two.\n//! Three.\n";
        for (path, code, expected) in [
            (
                "crates/scheduler/src/a.rs",
                "fn f() { std::time::Instant::now(); }",
                "Instant",
            ),
            (
                "crates/scheduler/src/a.rs",
                "use std::collections::HashMap;",
                "HashMap",
            ),
            (
                "crates/front/src/a.rs",
                "fn f() { unsafe { g() } }",
                "unsafe",
            ),
            (
                "crates/front/src/a.rs",
                "#[test]\n#[ignore]\nfn f() {}",
                "ignore",
            ),
            ("crates/front/src/a.rs", "fn f() { todo!() }", "todo!"),
        ] {
            let found = findings_in(path, &format!("{head}{code}\n"));
            assert!(
                found.iter().any(|f| f.contains(expected)),
                "{code}: {found:?}"
            );
        }
        let long_line = format!("{head}// {}\n", "x".repeat(101));
        assert_eq!(findings_in("crates/front/src/a.rs", &long_line).len(), 1);
        let long_fn = format!("{head}fn f() {{\n{}}}\n", "    g();\n".repeat(70));
        assert_eq!(findings_in("crates/front/src/a.rs", &long_fn).len(), 1);
        assert_eq!(
            findings_in("crates/front/src/a.rs", "fn f() {}\n").len(),
            1,
            "no head"
        );
    }

    #[test]
    fn tests_of_pure_crates_may_use_the_clock() {
        let text = "//! Head.\n//! Two.\n//! Three.\n#[cfg(test)]\nmod tests {\n    \
                    fn f() { std::time::Instant::now(); }\n}\n";
        assert_eq!(
            findings_in("crates/scheduler/src/a.rs", text),
            Vec::<String>::new()
        );
    }
}
