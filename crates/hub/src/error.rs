//! What can go wrong between a name and its files, with what helps.
//!
//! Invariant: a message names the repository, file or setting at fault and the remedy; none holds a
//! token or a signed address.

use std::io;
use std::path::PathBuf;

/// A failure to get a model's files.
#[derive(Debug, thiserror::Error)]
pub enum HubError {
    /// The name cannot be one of a model on a hub.
    #[error("`{name}` is no model on a hub: {reason}")]
    InvalidName {
        /// What was asked for.
        name: String,
        /// What is wrong with it.
        reason: String,
    },
    /// An environment variable has a value without a meaning.
    #[error("{0}")]
    Setting(String),
    /// The repository needs a token, or is not there: hubs do not tell strangers which.
    #[error(
        "{endpoint} does not let us read {repo} (status 401): it does not exist (check the name), \
         or it is private or gated: {remedy}"
    )]
    Unauthorized {
        /// `ORG/NAME`.
        repo: String,
        /// The hub.
        endpoint: String,
        /// What to do about the token.
        remedy: &'static str,
    },
    /// The repository's owner gives access on request.
    #[error(
        "{repo} is gated: ask for access on {endpoint}/{repo} and accept its terms there, then \
         {remedy}"
    )]
    Gated {
        /// `ORG/NAME`.
        repo: String,
        /// The hub.
        endpoint: String,
        /// What to do about the token.
        remedy: &'static str,
    },
    /// No such repository.
    #[error("{endpoint} has no model {repo}: check the name (HF_ENDPOINT names another hub)")]
    RepoNotFound {
        /// `ORG/NAME`.
        repo: String,
        /// The hub.
        endpoint: String,
    },
    /// No such branch, tag or commit.
    #[error("{repo} has no revision `{revision}`: --revision takes a branch, a tag or a commit")]
    RevisionNotFound {
        /// `ORG/NAME`.
        repo: String,
        /// What was asked for.
        revision: String,
    },
    /// No such file.
    #[error("{repo} has no file `{file}`; {available}")]
    FileNotFound {
        /// `ORG/NAME`.
        repo: String,
        /// What was asked for.
        file: String,
        /// Which there are.
        available: String,
    },
    /// A repository of GGUF files, and none was named.
    #[error("{repo} holds GGUF files; name one as {repo}:FILE. There are: {files}")]
    ChooseFile {
        /// `ORG/NAME`.
        repo: String,
        /// Their names.
        files: String,
    },
    /// More files than one model is expected to have.
    #[error(
        "{repo} would need {num_files} files, more than {limit}: --include chooses some, and \
         HOTSPARE_HUB_MAX_NUM_FILES moves the bound"
    )]
    TooManyFiles {
        /// `ORG/NAME`.
        repo: String,
        /// How many.
        num_files: usize,
        /// The bound.
        limit: usize,
    },
    /// Nothing that can be served.
    #[error("{repo} cannot be served: {reason}")]
    NoWeights {
        /// `ORG/NAME`.
        repo: String,
        /// What is missing.
        reason: String,
    },
    /// The cache does not have it, and nobody may be asked.
    #[error(
        "{reason}, and HF_HUB_OFFLINE is set: fetch it with `hotspare pull {model}` while online, \
         or unset HF_HUB_OFFLINE"
    )]
    Offline {
        /// As the user named it.
        model: String,
        /// What the cache lacks.
        reason: String,
    },
    /// No connection to the hub.
    #[error(
        "{endpoint} cannot be reached: {reason}. Check the network, HTTPS_PROXY and HF_ENDPOINT; \
         HF_HUB_OFFLINE=1 uses what is in the cache"
    )]
    Unreachable {
        /// The hub.
        endpoint: String,
        /// What the network said.
        reason: String,
    },
    /// A download was cut more often than is tolerated.
    #[error(
        "the download of {file} was cut {num_attempts} times, last at {num_bytes} bytes: {reason}. \
         What arrived is kept: the same command goes on from there"
    )]
    Cut {
        /// The file.
        file: String,
        /// How often it was tried.
        num_attempts: u32,
        /// What is there.
        num_bytes: u64,
        /// The last failure.
        reason: String,
    },
    /// A status that has no meaning here.
    #[error("{endpoint} answered {status} for {what}")]
    Status {
        /// The hub.
        endpoint: String,
        /// The HTTP status.
        status: u16,
        /// What was asked for.
        what: String,
    },
    /// An answer that is none.
    #[error("{endpoint} does not answer as a hub: {reason}")]
    NotAHub {
        /// The hub.
        endpoint: String,
        /// What is missing or wrong.
        reason: String,
    },
    /// The disk is full, or will be.
    #[error(
        "no space for {file} in {}: {reason}. Free some, or set HF_HOME to a larger disk; what \
         arrived is kept: the same command goes on from there",
        path.display()
    )]
    NoSpace {
        /// The file, or the model.
        file: String,
        /// The cache.
        path: PathBuf,
        /// How much is missing, or what the system said.
        reason: String,
    },
    /// What arrived is not what the hub announced.
    #[error(
        "{file} arrived damaged: {reason}. It was thrown away; try again, and without a proxy or \
         mirror between"
    )]
    Damaged {
        /// The file.
        file: String,
        /// Expected and found.
        reason: String,
    },
    /// Another process holds the file for too long.
    #[error(
        "another process has been fetching {file} for {seconds} s; end it, or remove {} if none \
         is left",
        lock.display()
    )]
    Locked {
        /// The file.
        file: String,
        /// How long it was waited for.
        seconds: u64,
        /// The lock's file.
        lock: PathBuf,
    },
    /// The cache cannot be read or written.
    #[error("{}: {reason}", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What the operating system said.
        reason: io::Error,
    },
}

impl HubError {
    /// Whether a copy in the cache may stand in: the hub could not be asked.
    pub(crate) fn is_outage(&self) -> bool {
        match self {
            Self::Unreachable { .. } => true,
            Self::Status { status, .. } => *status >= 500 || *status == 429,
            _ => false,
        }
    }
}
