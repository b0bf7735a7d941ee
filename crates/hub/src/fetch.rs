//! From a name to files: asks the hub, fetches what the cache lacks, and says where it is.
//!
//! Invariant: a place that is returned holds every file that was asked for; and a branch's name in
//! the cache points to a commit only after the files of that commit are there, and not away from
//! one that has more of them.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::api::{Repo, RepoFile};
use crate::cache::RepoCache;
use crate::client::Client;
use crate::download::Download;
use crate::glob::matches;
use crate::reference::{is_commit, is_revision};
use crate::select::{Choice, INDEX_FILE, SINGLE_FILE, first_files, named_files, not_found, shards};
use crate::{HubConfig, HubError, ModelRef};

/// The branch of a model that names none.
const DEFAULT_REVISION: &str = "main";

/// What to fetch.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// The model.
    pub model: ModelRef,
    /// A branch, tag or commit; `main` where there is none.
    pub revision: Option<String>,
    /// Patterns of files (`*`, `?`) in place of those that a server needs.
    pub include: Vec<String>,
    /// Whether weights are wanted; not for random ones.
    pub has_weights: bool,
}

/// Where it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fetched {
    /// What to load: the named file, or the directory.
    pub path: PathBuf,
    /// The commit.
    pub commit: String,
}

/// What happens meanwhile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HubProgress<'a> {
    /// So many files will be fetched; of `num_bytes`, as far as the hub says.
    Start {
        /// Files that the cache lacks.
        num_files: usize,
        /// What is left to fetch of them.
        num_bytes: u64,
    },
    /// Bytes arrived.
    Bytes {
        /// The file.
        file: &'a str,
        /// How many, since the last report.
        num_new: u64,
    },
    /// Another process fetches this file: its result will be used.
    Waiting {
        /// The file.
        file: &'a str,
    },
    /// A download was cut and will be continued.
    Retry {
        /// The file.
        file: &'a str,
        /// What is there.
        num_bytes: u64,
        /// Why it was cut.
        reason: &'a str,
        /// The wait before the next attempt.
        wait: Duration,
    },
    /// The hub could not be asked; the cache has what is wanted.
    FromCache {
        /// Why it could not.
        reason: &'a str,
    },
}

/// Finds or fetches what is wanted. Blocks, for as long as the download takes.
///
/// # Errors
/// See [`HubError`]; what arrived until then is kept.
pub fn fetch(
    config: &HubConfig,
    wanted: &Wanted,
    progress: &mut dyn FnMut(HubProgress<'_>),
) -> Result<Fetched, HubError> {
    let revision = wanted.revision.as_deref().unwrap_or(DEFAULT_REVISION);
    if !is_revision(revision) {
        return Err(HubError::RevisionNotFound {
            repo: wanted.model.repo.clone(),
            revision: revision.to_owned(),
        });
    }
    let cached = Cached {
        config,
        cache: RepoCache::new(config, &wanted.model.repo),
        wanted,
        revision,
    };
    if config.is_offline {
        return cached.find().map_err(|reason| HubError::Offline {
            model: wanted.model.to_string(),
            reason,
        });
    }
    // A commit never changes, but only the hub knows whether the cache has all of its files.
    match fetch_online(config, &cached, progress) {
        Err(error) if error.is_outage() && wanted.include.is_empty() => match cached.find() {
            Ok(found) => {
                progress(HubProgress::FromCache {
                    reason: &error.to_string(),
                });
                Ok(found)
            }
            Err(_) => Err(error),
        },
        result => result,
    }
}

/// What the cache has of a model.
struct Cached<'a> {
    config: &'a HubConfig,
    cache: RepoCache,
    wanted: &'a Wanted,
    revision: &'a str,
}

impl Cached<'_> {
    fn choice(&self) -> Choice<'_> {
        Choice {
            model: &self.wanted.model,
            include: &self.wanted.include,
            has_weights: self.wanted.has_weights,
        }
    }

    fn fetched(&self, commit: &str, files: &[&str]) -> Fetched {
        let snapshot = self.cache.snapshot(commit);
        let path = match (&self.wanted.model.file, files) {
            (Some(_), [file]) => snapshot.join(file),
            // Of a model in several the first leads to the others.
            (Some(_), [file, ..]) if self.wanted.include.is_empty() => snapshot.join(file),
            _ => snapshot,
        };
        Fetched {
            path,
            commit: commit.to_owned(),
        }
    }

    /// All that is wanted, or what is missing.
    fn find(&self) -> Result<Fetched, String> {
        let (model, revision) = (&self.wanted.model, self.revision);
        let commit = match is_commit(revision) {
            true => Some(revision.to_owned()),
            false => self.cache.read_ref(revision),
        };
        let commit = commit
            .filter(|commit| self.cache.snapshot(commit).is_dir())
            .ok_or_else(|| format!("{} at {revision} is not in the cache", model.repo))?;
        let snapshot = self.cache.snapshot(&commit);
        let missing = |file: &str| format!("{file} of {} is not in the cache", model.repo);
        let has = |file: &str| snapshot.join(file).is_file();
        if !self.wanted.include.is_empty() {
            return self.find_included(&commit);
        }
        if let Some(file) = &model.file {
            let files = self.cache.files(&commit);
            let found = named_files(file, files.iter().map(String::as_str), has);
            let found = found.ok_or_else(|| missing(file))?;
            if let Some(part) = found.iter().find(|part| !has(part)) {
                return Err(missing(part));
            }
            let found: Vec<&str> = found.iter().map(String::as_str).collect();
            return Ok(self.fetched(&commit, &found));
        }
        let mut needed = vec!["config.json".to_owned()];
        if self.wanted.has_weights && !has(SINGLE_FILE) {
            let shards = read_index(self.config, &snapshot).ok_or_else(|| missing(SINGLE_FILE))?;
            needed.extend(shards);
        }
        match needed.iter().find(|file| !has(file)) {
            Some(file) => Err(missing(file)),
            None => Ok(self.fetched(&commit, &[])),
        }
    }

    /// The files that the patterns choose: each has to choose one, for what a pattern would have
    /// brought is not known here.
    fn find_included(&self, commit: &str) -> Result<Fetched, String> {
        let (repo, include) = (&self.wanted.model.repo, &self.wanted.include);
        let files = self.cache.files(commit);
        let has_match = |pattern: &&String| files.iter().any(|file| matches(pattern, file));
        if let Some(pattern) = include.iter().find(|pattern| !has_match(pattern)) {
            return Err(format!("no file `{pattern}` of {repo} is in the cache"));
        }
        let is_included = |file: &&str| include.iter().any(|pattern| matches(pattern, file));
        let chosen: Vec<_> = files
            .iter()
            .map(String::as_str)
            .filter(is_included)
            .collect();
        Ok(self.fetched(commit, &chosen))
    }

    /// Remembers that the revision is `commit`, unless the cache has more of what it was before:
    /// after a few files of a new commit, the model of the old one can still be served offline.
    fn remember(&self, commit: &str) -> Result<(), HubError> {
        let wanted = self.wanted;
        let is_partial =
            !wanted.include.is_empty() || !wanted.has_weights || wanted.model.file.is_some();
        let before = self.cache.read_ref(self.revision);
        if is_partial && before.is_some_and(|before| !self.cache.covers(commit, &before)) {
            return Ok(());
        }
        self.cache.write_ref(self.revision, commit)
    }
}

fn fetch_online(
    config: &HubConfig,
    cached: &Cached<'_>,
    progress: &mut dyn FnMut(HubProgress<'_>),
) -> Result<Fetched, HubError> {
    let client = Client::new(config)?;
    let repo = Repo {
        client: &client,
        name: &cached.wanted.model.repo,
        revision: cached.revision,
    };
    let info = repo.info()?;
    let transfer = Transfer {
        repo: &repo,
        cache: &cached.cache,
        commit: &info.commit,
    };
    let chosen = first_files(&info.files, &cached.choice())?;
    transfer.bring(&chosen, progress)?;
    let has_index = chosen.iter().any(|file| file.name == INDEX_FILE);
    if has_index && cached.wanted.include.is_empty() {
        let snapshot = cached.cache.snapshot(&info.commit);
        let names = read_index(config, &snapshot).ok_or_else(|| HubError::NoWeights {
            repo: repo.name.to_owned(),
            reason: format!("{INDEX_FILE} names no shards"),
        })?;
        let find = |name: &String| {
            let found = info.files.iter().find(|file| file.name == *name);
            found.ok_or_else(|| not_found(repo.name, name, &info.files))
        };
        let shards: Vec<_> = names.iter().map(find).collect::<Result<_, _>>()?;
        transfer.bring(&shards, progress)?;
    }
    if !is_commit(cached.revision) {
        cached.remember(&info.commit)?;
    }
    let names: Vec<&str> = chosen.iter().map(|file| file.name.as_str()).collect();
    Ok(cached.fetched(&info.commit, &names))
}

/// The shards that a snapshot's index names.
fn read_index(config: &HubConfig, snapshot: &Path) -> Option<Vec<String>> {
    use std::io::Read;
    let file = std::fs::File::open(snapshot.join(INDEX_FILE)).ok()?;
    let mut index = Vec::new();
    file.take(config.max_index_bytes)
        .read_to_end(&mut index)
        .ok()?;
    shards(&index)
}

/// Fetches files of one commit.
struct Transfer<'a> {
    repo: &'a Repo<'a>,
    cache: &'a RepoCache,
    commit: &'a str,
}

impl Transfer<'_> {
    /// Fetches those of `files` that the snapshot lacks.
    fn bring(
        &self,
        files: &[&RepoFile],
        progress: &mut dyn FnMut(HubProgress<'_>),
    ) -> Result<(), HubError> {
        let snapshot = self.cache.snapshot(self.commit);
        let length = |file: &RepoFile| {
            let metadata = std::fs::metadata(snapshot.join(&file.name));
            metadata.map(|metadata| metadata.len()).ok()
        };
        let is_unsure = |file: &&&RepoFile| file.num_bytes.is_none() && length(file).is_some();
        let unsure = files.iter().filter(is_unsure).map(|file| &*file.name);
        let unsure: Vec<&str> = unsure.collect();
        let lengths = match unsure.is_empty() {
            true => Vec::new(),
            false => self.repo.lengths(self.commit, &unsure),
        };
        let is_missing = |file: &&&RepoFile| {
            let known = lengths.iter().find(|(name, _)| *name == file.name);
            let expected = file.num_bytes.or(known.map(|(_, num_bytes)| *num_bytes));
            let found = length(file);
            found.is_none() || expected.is_some_and(|expected| found != Some(expected))
        };
        let missing: Vec<_> = files.iter().filter(is_missing).collect();
        let limit = self.repo.client.config.max_num_files;
        if missing.len() > limit {
            return Err(HubError::TooManyFiles {
                repo: self.repo.name.to_owned(),
                num_files: missing.len(),
                limit,
            });
        }
        if missing.is_empty() {
            return Ok(());
        }
        let mut plan = Vec::new();
        let mut num_bytes: u64 = 0;
        for file in &missing {
            let meta = self.repo.file_meta(self.commit, file)?;
            let present = self.present_bytes(&meta.etag);
            num_bytes += meta.num_bytes.unwrap_or(0).saturating_sub(present);
            plan.push((file, meta));
        }
        self.check_space(num_bytes)?;
        let num_files = plan.len();
        progress(HubProgress::Start {
            num_files,
            num_bytes,
        });
        for (file, meta) in &plan {
            let download = Download {
                repo: self.repo,
                cache: self.cache,
                file: &file.name,
                meta,
            };
            download.run(progress)?;
            self.cache.link(self.commit, &file.name, &meta.etag)?;
        }
        Ok(())
    }

    /// What of a blob is there already, whole or not.
    fn present_bytes(&self, etag: &str) -> u64 {
        let blob = self.cache.blob(etag);
        let length = |path: &Path| std::fs::metadata(path).map(|metadata| metadata.len()).ok();
        let incomplete = self.cache.blob(&format!("{etag}.incomplete"));
        length(&blob).or_else(|| length(&incomplete)).unwrap_or(0)
    }

    /// Refuses what the disk cannot hold, before an hour of downloading finds out.
    fn check_space(&self, num_bytes: u64) -> Result<(), HubError> {
        let root = self.cache.root();
        std::fs::create_dir_all(root).map_err(|reason| HubError::Io {
            path: root.to_owned(),
            reason,
        })?;
        // A file system that does not say is tried.
        let Ok(space) = rustix::fs::statvfs(root) else {
            return Ok(());
        };
        let free_bytes = space.f_bavail.saturating_mul(space.f_frsize);
        if num_bytes <= free_bytes {
            return Ok(());
        }
        Err(HubError::NoSpace {
            file: self.repo.name.to_owned(),
            path: root.to_owned(),
            reason: format!(
                "{} are needed, {} are free",
                gigabytes(num_bytes),
                gigabytes(free_bytes)
            ),
        })
    }
}

fn gigabytes(num_bytes: u64) -> String {
    match num_bytes {
        0..10_000_000 => format!("{num_bytes} bytes"),
        _ => format!("{:.2} GB", num_bytes as f64 / 1e9),
    }
}
