//! How users name a model on a hub: `ORG/NAME`, or `ORG/NAME:FILE.gguf`.
//!
//! Invariant: a name that parses is safe as part of a path and of a URL.

use std::fmt;
use std::str::FromStr;

use crate::HubError;

/// Bytes of `ORG/NAME`, at most, as the hub has it.
const MAX_REPO_BYTES: usize = 96;

/// A model on a hub.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelRef {
    /// `ORG/NAME`.
    pub repo: String,
    /// One file of it, where the repository holds several models.
    pub file: Option<String>,
}

impl FromStr for ModelRef {
    type Err = HubError;

    fn from_str(name: &str) -> Result<Self, HubError> {
        let invalid = |reason: &str| HubError::InvalidName {
            name: name.to_owned(),
            reason: reason.to_owned(),
        };
        let (repo, file) = match name.split_once(':') {
            Some((repo, file)) => (repo, Some(file)),
            None => (name, None),
        };
        let Some((org, model)) = repo.split_once('/') else {
            return Err(invalid("it is not of the form ORG/NAME or ORG/NAME:FILE"));
        };
        if !is_part(org) || !is_part(model) || repo.len() > MAX_REPO_BYTES {
            return Err(invalid(
                "ORG and NAME are letters, digits, `-`, `_` and `.`, 96 at most together, and \
                 neither begins or ends with `-` or `.`",
            ));
        }
        if file.is_some_and(|file| !is_file_name(file)) {
            return Err(invalid("the part after `:` is no name of a file"));
        }
        Ok(Self {
            repo: repo.to_owned(),
            file: file.map(str::to_owned),
        })
    }
}

impl fmt::Display for ModelRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.file {
            Some(file) => write!(f, "{}:{file}", self.repo),
            None => f.write_str(&self.repo),
        }
    }
}

fn is_part(part: &str) -> bool {
    let is_inner = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    let is_end = |c: char| c == '-' || c == '.';
    !part.is_empty()
        && part.bytes().all(is_inner)
        && !part.starts_with(is_end)
        && !part.ends_with(is_end)
        && !part.contains("--")
        && !part.contains("..")
}

/// Whether `name` is a path below a repository's root, and nothing else: no step up, no absolute
/// path, nothing that a URL or a terminal would take for more.
pub(crate) fn is_file_name(name: &str) -> bool {
    let is_step = |step: &str| !step.is_empty() && step != "." && step != "..";
    name.len() <= 512
        && name.split('/').all(is_step)
        && !name.contains(|c: char| c.is_control() || c == '\\')
}

/// Whether `revision` is a branch, tag or commit that is safe as a path below `refs`.
pub(crate) fn is_revision(revision: &str) -> bool {
    is_file_name(revision) && !revision.contains(|c: char| c.is_whitespace() || c == ':')
}

/// Whether it names a commit, which never changes.
pub(crate) fn is_commit(revision: &str) -> bool {
    revision.len() == 40 && revision.bytes().all(|byte| byte.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_parse() {
        for (name, repo, file) in [
            ("Qwen/Qwen3-4B", "Qwen/Qwen3-4B", None),
            ("a/b_c.d-e", "a/b_c.d-e", None),
            ("a/b:x.gguf", "a/b", Some("x.gguf")),
            ("a/b:sub/x.gguf", "a/b", Some("sub/x.gguf")),
        ] {
            let parsed: ModelRef = name.parse().unwrap();
            assert_eq!((parsed.repo.as_str(), parsed.file.as_deref()), (repo, file));
            assert_eq!(parsed.to_string(), name);
        }
    }

    #[test]
    fn what_would_leave_its_place_is_refused() {
        for name in [
            "spark",
            "a/b/c",
            "/a",
            "a/",
            "../b",
            "a/..",
            "a/-b",
            "a/b.",
            "a/b--c",
            "a b/c",
            "a/b:",
            "a/b:../x",
            "a/b:/etc/passwd",
            "a/b:x/",
            "a/b:x\\y",
            "a/b:x\n",
            "a/b?x",
            "./b",
            "~/b",
        ] {
            assert!(name.parse::<ModelRef>().is_err(), "{name}");
        }
        assert!(
            format!("{}/{}", "a".repeat(48), "b".repeat(48))
                .parse::<ModelRef>()
                .is_err()
        );
        assert!(is_revision("refs/pr/1") && is_revision("v1.0"));
        assert!(!is_revision("../main") && !is_revision("") && !is_revision("a b"));
        assert!(is_commit(&"0a".repeat(20)) && !is_commit("main"));
    }
}
