//! What a hub says about a repository and its files.
//!
//! Invariant: a commit, a file's name and an ETag that are returned are safe as parts of a path.

use std::io::Read;

use serde_json::Value;
use ureq::Body;
use ureq::http::{Method, Response};

use crate::HubError;
use crate::client::{Client, Follow, MAX_ANSWER_BYTES};
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
    /// Where it is.
    pub(crate) url: String,
    /// What names its content.
    pub(crate) etag: String,
    pub(crate) num_bytes: Option<u64>,
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
        let endpoint = &self.client.config.endpoint;
        let (name, revision) = (self.name, escape(self.revision, false));
        let url = format!("{endpoint}/api/models/{name}/revision/{revision}?blobs=true");
        let mut response = self.client.ask(&Method::GET, &url, Follow::All)?;
        self.check_status(&response, None)?;
        let mut body = Vec::new();
        let reader = response.body_mut().as_reader();
        let read = reader.take(MAX_ANSWER_BYTES).read_to_end(&mut body);
        read.map_err(|e| self.client.unreachable(e.to_string()))?;
        let answer: Value = serde_json::from_slice(&body)
            .map_err(|e| self.not_a_hub(format!("its list of files is no JSON ({e})")))?;
        let commit = answer["sha"].as_str().unwrap_or_default();
        let is_hex = commit.bytes().all(|byte| byte.is_ascii_hexdigit());
        if !is_hex || !(7..=64).contains(&commit.len()) {
            return Err(self.not_a_hub("it names no commit".to_owned()));
        }
        let siblings = answer["siblings"].as_array();
        let siblings = siblings.ok_or_else(|| self.not_a_hub("it lists no files".to_owned()))?;
        let file = |sibling: &Value| {
            let name = sibling["rfilename"].as_str()?;
            // A name that would leave the snapshot is never asked for.
            is_file_name(name).then(|| RepoFile {
                name: name.to_owned(),
                num_bytes: sibling["size"].as_u64(),
            })
        };
        Ok(RepoInfo {
            commit: commit.to_owned(),
            files: siblings.iter().filter_map(file).collect(),
        })
    }

    /// What the hub promises about `file` at `commit`.
    pub(crate) fn file_meta(&self, commit: &str, file: &RepoFile) -> Result<FileMeta, HubError> {
        let endpoint = &self.client.config.endpoint;
        let path = escape(&file.name, true);
        let url = format!("{endpoint}/{}/resolve/{commit}/{path}", self.name);
        let response = self.client.ask(&Method::HEAD, &url, Follow::Hub)?;
        self.check_status(&response, Some(&file.name))?;
        let header = |name: &str| {
            let value = response.headers().get(name)?.to_str().ok()?;
            Some(value.trim().to_owned())
        };
        let etag = header("x-linked-etag").or_else(|| header("etag"));
        let etag = etag.unwrap_or_default();
        let etag = etag.strip_prefix("W/").unwrap_or(&etag).trim_matches('"');
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
        if !(1..=128).contains(&etag.len()) || !etag.bytes().all(is_plain) {
            return Err(self.not_a_hub(format!("{} has no usable ETag", file.name)));
        }
        // The length of a redirect's own body says nothing.
        let length = || match response.status().is_redirection() {
            true => None,
            false => header("content-length"),
        };
        let num_bytes = header("x-linked-size").or_else(length);
        Ok(FileMeta {
            url,
            etag: etag.to_owned(),
            num_bytes: num_bytes.and_then(|n| n.parse().ok()).or(file.num_bytes),
        })
    }

    /// Turns a status that is none of success into what it means.
    pub(crate) fn check_status(
        &self,
        response: &Response<Body>,
        file: Option<&str>,
    ) -> Result<(), HubError> {
        let status = response.status();
        if status.is_success() || status.is_redirection() {
            return Ok(());
        }
        let code = response.headers().get("x-error-code");
        let code = code.and_then(|code| code.to_str().ok()).unwrap_or_default();
        let (repo, endpoint) = (self.name.to_owned(), self.client.config.endpoint.clone());
        let remedy = match self.client.config.token {
            Some(_) => "check that HF_TOKEN is a valid token of an account that may read it",
            None => "set HF_TOKEN to a token of an account that may read it",
        };
        Err(match (status.as_u16(), code, file) {
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
        })
    }

    pub(crate) fn not_a_hub(&self, reason: String) -> HubError {
        HubError::NotAHub {
            endpoint: self.client.config.endpoint.clone(),
            reason,
        }
    }
}
