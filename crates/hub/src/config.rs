//! Where the hub and its cache are, and how patient to be: read from the environment variables that
//! Python's `huggingface_hub` reads.
//!
//! Invariant: a token shows in no `Debug` output, and what may hold a password in no error.

use std::fmt;
use std::path::PathBuf;

use crate::HubError;

/// Where models come from, unless the environment says otherwise.
const DEFAULT_ENDPOINT: &str = "https://huggingface.co";

/// A secret that opens private and gated repositories.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

impl Token {
    /// A token, without the white space around it.
    pub fn new(token: &str) -> Option<Self> {
        let token = token.trim();
        let is_printable = token.bytes().all(|byte| byte.is_ascii_graphic());
        (!token.is_empty() && is_printable).then(|| Self(token.to_owned()))
    }

    pub(crate) fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// How to reach a hub.
#[derive(Clone, Debug)]
pub struct HubConfig {
    /// `HF_ENDPOINT`, without a slash at its end.
    pub endpoint: String,
    /// `HF_HUB_CACHE`, or `hub` in `HF_HOME`, or `~/.cache/huggingface/hub`.
    pub cache_dir: PathBuf,
    /// `HF_TOKEN`, or the file at `HF_TOKEN_PATH`, or `token` in `HF_HOME`.
    pub token: Option<Token>,
    /// `HF_HUB_OFFLINE`: use the cache, ask nobody.
    pub is_offline: bool,
    /// Time to connect, at most. Default 10,000 ms.
    pub connect_timeout_ms: u64,
    /// Time without a byte after which a connection counts as cut: `HF_HUB_DOWNLOAD_TIMEOUT`, in
    /// seconds there. Default 30,000 ms.
    pub read_timeout_ms: u64,
    /// Attempts in a row that bring less than `min_retry_progress_bytes`, after the first. Default
    /// 5.
    pub max_num_retries: u32,
    /// What an attempt has to bring to count as none of those. Default 1 MiB.
    pub min_retry_progress_bytes: u64,
    /// Wait before the first retry, doubling with each. Default 500 ms.
    pub retry_backoff_min_ms: u64,
    /// The longest such wait, also where the hub asks for a longer one. Default 30,000 ms.
    pub retry_backoff_max_ms: u64,
    /// Time to wait for another process that fetches the same file. Default 6 h.
    pub lock_timeout_ms: u64,
    /// Bytes of a list of shards that are read, at most. Default 64 MiB.
    pub max_index_bytes: u64,
    /// Files of one model, at most. Default 4096.
    pub max_num_files: usize,
}

impl HubConfig {
    /// Reads the environment; `env` looks a variable up.
    ///
    /// # Errors
    /// A value without a meaning, or a user without a home.
    pub fn from_env(env: &dyn Fn(&str) -> Option<String>) -> Result<Self, HubError> {
        let set = |name: &str| env(name).filter(|value| !value.trim().is_empty());
        let is_on = |name: &str| {
            let value = set(name).unwrap_or_default().to_ascii_lowercase();
            matches!(value.as_str(), "1" | "on" | "yes" | "true")
        };
        let home = set("HF_HOME").map(PathBuf::from).or_else(|| {
            let cache = set("XDG_CACHE_HOME").map(PathBuf::from);
            let cache = cache.or_else(|| Some(PathBuf::from(set("HOME")?).join(".cache")));
            Some(cache?.join("huggingface"))
        });
        let cache_dir = set("HF_HUB_CACHE").or_else(|| set("HUGGINGFACE_HUB_CACHE"));
        let cache_dir = cache_dir.map(PathBuf::from);
        let cache_dir = cache_dir.or_else(|| Some(home.as_ref()?.join("hub")));
        let cache_dir = cache_dir.ok_or_else(|| {
            HubError::Setting("there is no home directory for the cache; set HF_HOME".to_owned())
        })?;
        let token_of_file = || {
            let path = set("HF_TOKEN_PATH").map(PathBuf::from);
            let path = path.or_else(|| Some(home.as_ref()?.join("token")));
            std::fs::read_to_string(path?).ok()
        };
        let token = match is_on("HF_HUB_DISABLE_IMPLICIT_TOKEN") {
            true => None,
            false => set("HF_TOKEN")
                .or_else(|| set("HUGGING_FACE_HUB_TOKEN"))
                .or_else(token_of_file),
        };
        let read_timeout_ms = match set("HF_HUB_DOWNLOAD_TIMEOUT") {
            None => 30_000,
            Some(seconds) => match seconds.trim().parse::<u64>() {
                Ok(seconds @ 1..=86_400) => seconds * 1000,
                _ => {
                    return Err(HubError::Setting(format!(
                        "HF_HUB_DOWNLOAD_TIMEOUT = {seconds} is not from 1 to 86400 seconds"
                    )));
                }
            },
        };
        Ok(Self {
            endpoint: endpoint(set("HF_ENDPOINT"))?,
            cache_dir,
            token: token.as_deref().and_then(Token::new),
            is_offline: is_on("HF_HUB_OFFLINE") || is_on("TRANSFORMERS_OFFLINE"),
            connect_timeout_ms: 10_000,
            read_timeout_ms,
            max_num_retries: 5,
            min_retry_progress_bytes: 1 << 20,
            retry_backoff_min_ms: 500,
            retry_backoff_max_ms: 30_000,
            lock_timeout_ms: 6 * 3600 * 1000,
            max_index_bytes: 64 << 20,
            max_num_files: 4096,
        })
    }
}

fn endpoint(value: Option<String>) -> Result<String, HubError> {
    let endpoint = value.unwrap_or_else(|| DEFAULT_ENDPOINT.to_owned());
    let endpoint = endpoint.trim().trim_end_matches('/').to_owned();
    let rest = endpoint
        .strip_prefix("https://")
        .or_else(|| endpoint.strip_prefix("http://"));
    if rest.is_none_or(|rest| rest.is_empty() || rest.contains(['@', '?', '#', ' '])) {
        // The value may hold a password: it is not repeated.
        return Err(HubError::Setting(
            "HF_ENDPOINT is not of the form https://HOST, without a user and a query".to_owned(),
        ));
    }
    Ok(endpoint)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn config(variables: &[(&str, &str)]) -> Result<HubConfig, HubError> {
        HubConfig::from_env(&|name| {
            let found = variables.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn places_are_ranked() {
        let cache_dir = |variables: &[(&str, &str)]| config(variables).unwrap().cache_dir;
        let all = [
            ("HF_HUB_CACHE", "/hub-cache"),
            ("HF_HOME", "/hf"),
            ("XDG_CACHE_HOME", "/xdg"),
            ("HOME", "/home/u"),
        ];
        assert_eq!(cache_dir(&all), Path::new("/hub-cache"));
        assert_eq!(cache_dir(&all[1..]), Path::new("/hf/hub"));
        assert_eq!(cache_dir(&all[2..]), Path::new("/xdg/huggingface/hub"));
        assert_eq!(
            cache_dir(&all[3..]),
            Path::new("/home/u/.cache/huggingface/hub")
        );
        assert!(config(&[]).unwrap_err().to_string().contains("HF_HOME"));
    }

    #[test]
    fn a_token_is_found_and_does_not_show() {
        let home = tempfile::tempdir().unwrap();
        std::fs::write(home.path().join("token"), "hf_file\n").unwrap();
        let home = home.path().to_str().unwrap();
        let token = |variables: &[(&str, &str)]| {
            let token = config(variables).unwrap().token;
            token.map(|token| token.reveal().to_owned())
        };
        assert_eq!(token(&[("HF_HOME", home)]).as_deref(), Some("hf_file"));
        let both = [("HF_HOME", home), ("HF_TOKEN", " hf_env ")];
        assert_eq!(token(&both).as_deref(), Some("hf_env"));
        let off = [("HF_HOME", home), ("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1")];
        assert_eq!(token(&off), None);
        assert_eq!(token(&[("HF_HOME", "/nonexistent")]), None);
        let shown = format!("{:?}", config(&both).unwrap());
        assert!(!shown.contains("hf_env"), "{shown}");
    }

    #[test]
    fn values_without_a_meaning_are_named() {
        for (name, value) in [
            ("HF_ENDPOINT", "ftp://x"),
            ("HF_ENDPOINT", "https://someone:s3cret@x"),
            ("HF_ENDPOINT", "https://x?token=s3cret"),
            ("HF_HUB_DOWNLOAD_TIMEOUT", "0"),
            ("HF_HUB_DOWNLOAD_TIMEOUT", "soon"),
        ] {
            let error = config(&[("HF_HOME", "/hf"), (name, value)]).unwrap_err();
            assert!(error.to_string().contains(name), "{error}");
            let shown = format!("{error} {error:?}");
            assert!(
                !shown.contains("s3cret") && !shown.contains("someone"),
                "{shown}"
            );
        }
        let set = config(&[
            ("HF_HOME", "/hf"),
            ("HF_ENDPOINT", "http://h:1/"),
            ("HF_HUB_OFFLINE", "1"),
        ]);
        let set = set.unwrap();
        assert_eq!(
            (set.endpoint.as_str(), set.is_offline),
            ("http://h:1", true)
        );
    }
}
