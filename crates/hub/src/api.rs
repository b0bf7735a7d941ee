//! What a hub says about a repository and its files.
//!
//! Invariant: a commit, a file's name and an ETag that are returned are safe as parts of a path.

use futures::TryFutureExt;
use hf_hub::repository::{RepoSibling, RepoTreeEntry};

use crate::HubError;
use crate::client::{ByteStream, Client};
use crate::failure::Failure;
use crate::reference::is_file_name;
use crate::url::escape;

/// A file of a repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RepoFile {
    /// Its path below the root.
    pub(crate) name: String,
    /// Its length, where the hub says.
    pub(crate) num_bytes: Option<u64>,
}

/// A repository at a commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RepoInfo {
    pub(crate) commit: String,
    pub(crate) files: Vec<RepoFile>,
}

/// One file's bytes, before they are fetched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FileMeta {
    /// The commit that it is of.
    pub(crate) commit: String,
    /// What names its content.
    pub(crate) etag: String,
    pub(crate) num_bytes: Option<u64>,
}

/// Bytes of a file that arrive.
pub(crate) struct FileBytes {
    /// Of this answer, as far as it says.
    pub(crate) num_bytes: Option<u64>,
    pub(crate) stream: ByteStream,
}

/// One repository of a hub.
pub(crate) struct Repo<'a> {
    pub(crate) client: &'a Client<'a>,
    /// `ORG/NAME`.
    pub(crate) name: &'a str,
    pub(crate) revision: &'a str,
}

impl Repo<'_> {
    /// The commit that the revision names, and its files.
    pub(crate) fn info(&self) -> Result<RepoInfo, HubError> {
        let repo = self.client.model(self.name);
        let ask = async || Ok(repo.info().revision(self.revision).send().await?);
        let info = self.client.ask("list of files", ask);
        let info = info.map_err(|failure| self.explain(failure, None))?;
        let commit = info.sha.unwrap_or_default();
        let is_hex = commit.bytes().all(|byte| byte.is_ascii_hexdigit());
        if !is_hex || !(7..=64).contains(&commit.len()) {
            return Err(self.not_a_hub("it names no commit".to_owned()));
        }
        let siblings = info.siblings;
        let siblings = siblings.ok_or_else(|| self.not_a_hub("it lists no files".to_owned()))?;
        // A name that would leave the snapshot is never asked for.
        let siblings = siblings.into_iter().filter(|s| is_file_name(&s.rfilename));
        let file = |sibling: RepoSibling| RepoFile {
            name: sibling.rfilename,
            num_bytes: sibling.size,
        };
        Ok(RepoInfo {
            commit,
            files: siblings.map(file).collect(),
        })
    }

    /// How long `names` are at `commit`, as far as the hub says: a list of files has no lengths.
    pub(crate) fn lengths(&self, commit: &str, names: &[&str]) -> Vec<(String, u64)> {
        let paths: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        let repo = self.client.model(self.name);
        let ask = async || {
            let paths = paths.clone();
            let call = repo.get_paths_info().paths(paths).revision(commit);
            Ok(call.send().await?)
        };
        let entries = match self.client.ask("lengths of files", ask) {
            Ok(entries) => entries,
            // Some mirrors cannot tell. What is in the cache was whole when it got there.
            Err(reason) => {
                tracing::debug!(%reason, "the hub does not say how long its files are");
                Vec::new()
            }
        };
        let file = |entry| match entry {
            RepoTreeEntry::File { path, size, .. } => Some((path, size)),
            RepoTreeEntry::Directory { .. } => None,
        };
        entries.into_iter().filter_map(file).collect()
    }

    /// What the hub promises about `file` at `commit`.
    pub(crate) fn file_meta(&self, commit: &str, file: &RepoFile) -> Result<FileMeta, HubError> {
        let endpoint = &self.client.config.endpoint;
        let path = escape(&file.name, true);
        let url = format!("{endpoint}/{}/resolve/{commit}/{path}", self.name);
        let answer = self
            .client
            .ask(&file.name, async || self.client.head(&url).await);
        let (headers, is_elsewhere) =
            answer.map_err(|failure| self.explain(failure, Some(&file.name)))?;
        let header = |name: &str| Some(headers.get(name)?.to_str().ok()?.trim().to_owned());
        let etag = header("x-linked-etag").or_else(|| header("etag"));
        let etag = etag.unwrap_or_default();
        let etag = etag.strip_prefix("W/").unwrap_or(&etag).trim_matches('"');
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
        if !(1..=128).contains(&etag.len()) || !etag.bytes().all(is_plain) {
            return Err(self.not_a_hub(format!("{} has no usable ETag", file.name)));
        }
        // The length of a redirect's own body says nothing.
        let length = || match is_elsewhere {
            true => None,
            false => header("content-length"),
        };
        let num_bytes = header("x-linked-size").or_else(length);
        Ok(FileMeta {
            commit: commit.to_owned(),
            etag: etag.to_owned(),
            num_bytes: num_bytes.and_then(|n| n.parse().ok()).or(file.num_bytes),
        })
    }

    /// Begins to read `file` at byte `first`.
    pub(crate) fn open(
        &self,
        file: &str,
        meta: &FileMeta,
        first: u64,
    ) -> Result<FileBytes, Failure> {
        let repo = self.client.model(self.name);
        // Of a file whose length nobody says: all there is.
        let end = meta.num_bytes.unwrap_or(i64::MAX as u64);
        let call = repo
            .download_file_stream()
            .filename(file)
            .revision(&meta.commit)
            .maybe_range((first > 0).then_some(first..end));
        let (num_bytes, stream) = self.client.once(file, call.send().err_into())?;
        Ok(FileBytes { num_bytes, stream })
    }

    /// What a failure means for who asked.
    pub(crate) fn explain(&self, failure: Failure, file: Option<&str>) -> HubError {
        let (repo, endpoint) = (self.name.to_owned(), self.client.config.endpoint.clone());
        let (status, code) = match failure {
            Failure::Refused { status, code, .. } => (status, code),
            Failure::NoAnswer { reason, .. } => return HubError::Unreachable { endpoint, reason },
            Failure::Nonsense(reason) => return self.not_a_hub(reason),
        };
        let remedy = match self.client.config.token {
            Some(_) => "check that HF_TOKEN is a valid token of an account that may read it",
            None => "set HF_TOKEN to a token of an account that may read it",
        };
        match (status, code.as_str(), file) {
            (401 | 403, "GatedRepo", _) | (403, ..) => HubError::Gated {
                repo,
                endpoint,
                remedy,
            },
            (401, ..) => HubError::Unauthorized {
                repo,
                endpoint,
                remedy,
            },
            (404, "RevisionNotFound", _) => HubError::RevisionNotFound {
                repo,
                revision: self.revision.to_owned(),
            },
            (404, _, Some(file)) => HubError::FileNotFound {
                repo,
                file: file.to_owned(),
                available: "it was in the list a moment ago: try again".to_owned(),
            },
            (404, ..) => HubError::RepoNotFound { repo, endpoint },
            (status, ..) => HubError::Status {
                endpoint,
                status,
                what: format!(
                    "{repo}{}",
                    file.map(|f| format!("/{f}")).unwrap_or_default()
                ),
            },
        }
    }

    pub(crate) fn not_a_hub(&self, reason: String) -> HubError {
        HubError::NotAHub {
            endpoint: self.client.config.endpoint.clone(),
            reason,
        }
    }
}
