//! The sources that tidy reads: every Rust file of the workspace, as text and as a syntax tree.
//!
//! Invariant: build output and hidden folders are never read.

use std::path::Path;

/// A Rust file.
pub(crate) struct Source {
    /// Relative to the workspace's root, with forward slashes.
    pub(crate) path: String,
    /// Its text.
    pub(crate) text: String,
    /// Its syntax tree.
    pub(crate) tree: syn::File,
}

impl Source {
    /// Parses `text`.
    pub(crate) fn parse(path: &str, text: &str) -> Result<Self, String> {
        let tree = syn::parse_file(text).map_err(|e| format!("{path}: {e}"))?;
        Ok(Self {
            path: path.to_owned(),
            text: text.to_owned(),
            tree,
        })
    }

    /// The crate's folder name, where the file belongs to one.
    pub(crate) fn crate_name(&self) -> Option<&str> {
        self.path.strip_prefix("crates/")?.split('/').next()
    }

    /// Whether the whole file is test or bench code.
    pub(crate) fn is_test(&self) -> bool {
        self.path.ends_with("_test.rs")
            || ["tests/", "benches/", "fuzz/", "crates/testkit/"]
                .iter()
                .any(|folder| self.path.starts_with(folder))
            || ["/tests/", "/oracle/", "/testing/", "/examples/"]
                .iter()
                .any(|folder| self.path.contains(folder))
    }
}

/// Reads every Rust file below `root`.
pub(crate) fn read_all(root: &Path) -> Result<Vec<Source>, String> {
    let mut sources = Vec::new();
    for folder in ["crates", "tests", "benches", "fuzz"] {
        read_folder(root, &root.join(folder), &mut sources)?;
    }
    Ok(sources)
}

fn read_folder(root: &Path, folder: &Path, sources: &mut Vec<Source>) -> Result<(), String> {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return Ok(());
    };
    for entry in entries {
        let path = entry
            .map_err(|e| format!("{}: {e}", folder.display()))?
            .path();
        let name = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        let skipped = name.starts_with('.') || name == "target" || name == "node_modules";
        if path.is_dir() && !skipped {
            read_folder(root, &path, sources)?;
        } else if name.ends_with(".rs") {
            let text =
                std::fs::read_to_string(&path).map_err(|e| format!("{}: {e}", path.display()))?;
            let relative = path.strip_prefix(root).unwrap_or(&path);
            sources.push(Source::parse(&relative.to_string_lossy(), &text)?);
        }
    }
    Ok(())
}
