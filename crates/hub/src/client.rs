//! Questions to a hub: hf-hub's client, bounded in time and repeated while that can help.
//!
//! `hf-hub` knows the API: addresses, lists of files, lengths, bytes, and what an error means. What
//! it leaves open is settled here: how long one call may take, after which failures and waits it
//! is made again, and that no address with a signature in it shows.
//!
//! Invariant: a token is sent only to the scheme, host and port of the configured endpoint.

use std::time::Duration;

use futures::stream::{Stream, StreamExt};
use hf_hub::{HFClient, HFRepository, HFResult, RepoTypeModel, split_id};
use reqwest::header::{ACCEPT_ENCODING, HeaderMap, HeaderValue};
use reqwest::redirect::{Attempt, Policy};
use tokio::runtime::{Builder, Runtime};

use crate::failure::{Failure, innermost};
use crate::url::{join, origin, without_query};
use crate::{HubConfig, HubError};

/// Redirects in a row, at most.
const MAX_NUM_REDIRECTS: usize = 10;
/// No value of a header, so that no header is made of it. Without a token of its own `hf-hub` would
/// look into the environment once more, and find what was left out on purpose.
const NO_TOKEN: &str = "\n";

/// Bytes of a file as they arrive.
pub(crate) type ByteStream = Box<dyn Stream<Item = HFResult<bytes::Bytes>> + Send + Unpin>;

/// Talks to one hub.
pub(crate) struct Client<'a> {
    pub(crate) config: &'a HubConfig,
    runtime: Runtime,
    hub: HFClient,
    /// Follows no redirect: a hub's own headers stand on its first answer.
    direct: reqwest::Client,
}

impl<'a> Client<'a> {
    pub(crate) fn new(config: &'a HubConfig) -> Result<Self, HubError> {
        let runtime = Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|reason| HubError::Io {
            path: config.cache_dir.clone(),
            reason,
        })?;
        let failed = |error: &(dyn std::error::Error + 'static)| {
            HubError::Setting(format!(
                "the client for a hub cannot be made: {}. TLS needs the system's CA certificates: \
                 install the package ca-certificates, or name a file of them in SSL_CERT_FILE",
                innermost(error)
            ))
        };
        let http = |policy| {
            // Lengths and hashes are those of the plain bytes.
            let identity = (ACCEPT_ENCODING, HeaderValue::from_static("identity"));
            reqwest::Client::builder()
                .default_headers(HeaderMap::from_iter([identity]))
                .user_agent(concat!("hotspare/", env!("CARGO_PKG_VERSION")))
                .connect_timeout(Duration::from_millis(config.connect_timeout_ms))
                .read_timeout(Duration::from_millis(config.read_timeout_ms))
                .redirect(policy)
                .build()
                .map_err(|e| failed(&e))
        };
        let token = config.token.as_ref().map_or(NO_TOKEN, |t| t.reveal());
        let hub = HFClient::builder()
            .endpoint(&config.endpoint)
            .token(token)
            .cache_dir(&config.cache_dir)
            .client(http(Policy::custom(follow))?)
            // Repeated here, where the waits and their reasons are known.
            .retry_max_attempts(0)
            .build();
        Ok(Self {
            config,
            runtime,
            hub: hub.map_err(|e| failed(&e))?,
            direct: http(Policy::none())?,
        })
    }

    /// `ORG/NAME` on this hub.
    pub(crate) fn model(&self, name: &str) -> HFRepository<RepoTypeModel> {
        let (owner, name) = split_id(name);
        self.hub.model(owner, name)
    }

    /// Makes a call, again and again while that can help.
    pub(crate) fn ask<T>(
        &self,
        what: &str,
        mut call: impl AsyncFnMut() -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let mut attempt = 0;
        loop {
            let failure = match self.once(what, call()) {
                Err(failure) if failure.is_transient() => failure,
                result => return result,
            };
            if attempt == self.config.max_num_retries {
                return Err(failure);
            }
            let wait = self.backoff(attempt, failure.retry_after_ms());
            let (reason, wait_ms) = (failure.to_string(), wait.as_millis() as u64);
            tracing::warn!(reason, wait_ms, "asking the hub again");
            std::thread::sleep(wait);
            attempt += 1;
        }
    }

    /// Makes a call once. It may take as long as connecting and one wait for bytes.
    pub(crate) fn once<T>(
        &self,
        what: &str,
        call: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, Failure> {
        let config = self.config;
        let timeout = config
            .connect_timeout_ms
            .saturating_add(config.read_timeout_ms);
        tracing::debug!(what, endpoint = config.endpoint, "hub request");
        let bounded = async { tokio::time::timeout(Duration::from_millis(timeout), call).await };
        match self.runtime.block_on(bounded) {
            Ok(result) => result,
            Err(_) => Err(Failure::timeout()),
        }
    }

    /// The next bytes of a file; `None` at their end.
    pub(crate) fn next_bytes(
        &self,
        stream: &mut ByteStream,
    ) -> Option<Result<bytes::Bytes, Failure>> {
        let next = self.once_bytes(stream);
        next.transpose()
    }

    fn once_bytes(&self, stream: &mut ByteStream) -> Result<Option<bytes::Bytes>, Failure> {
        let timeout = Duration::from_millis(self.config.read_timeout_ms);
        let next = async { tokio::time::timeout(timeout, stream.next()).await };
        match self.runtime.block_on(next) {
            Ok(None) => Ok(None),
            Ok(Some(bytes)) => Ok(Some(bytes?)),
            Err(_) => Err(Failure::timeout()),
        }
    }

    /// The headers that the hub itself has for `url`, after redirects within it.
    ///
    /// Not `get_file_metadata` of `hf-hub` 1.0.0: that follows a redirect into the storage, whose
    /// answer has neither commit nor hash, and fails on every large file.
    pub(crate) async fn head(&self, url: &str) -> Result<(HeaderMap, bool), Failure> {
        let mut url = url.to_owned();
        for _ in 0..=MAX_NUM_REDIRECTS {
            let mut request = self.direct.head(&url);
            if let Some(token) = &self.config.token {
                request = request.bearer_auth(token.reveal());
            }
            tracing::trace!(url = without_query(&url), "hub file");
            let response = request.send().await.map_err(hf_hub::HFError::from)?;
            let status = response.status();
            if !status.is_success() && !status.is_redirection() {
                return Err(Failure::of_response(&response));
            }
            let location = response.headers().get("location");
            let location = location.filter(|_| status.is_redirection());
            let next = match location.and_then(|location| location.to_str().ok()) {
                None => return Ok((response.headers().clone(), false)),
                Some(location) => join(&url, location),
            };
            match next {
                None => return Err(Failure::bad_redirect()),
                Some(next) if origin(&next) != origin(&self.config.endpoint) => {
                    return Ok((response.headers().clone(), true));
                }
                Some(next) => url = next,
            }
        }
        Err(Failure::too_many_redirects(MAX_NUM_REDIRECTS))
    }

    /// The wait after attempt number `attempt`, or what the hub asked for, within the bounds.
    pub(crate) fn backoff(&self, attempt: u32, asked_ms: Option<u64>) -> Duration {
        let config = self.config;
        let doubled = config
            .retry_backoff_min_ms
            .saturating_mul(1 << attempt.min(20));
        let wait_ms = asked_ms.unwrap_or(0).max(doubled);
        Duration::from_millis(wait_ms.min(config.retry_backoff_max_ms))
    }
}

/// Whether a redirect of a file's bytes is followed. The client drops the token where another host
/// or port begins.
fn follow(attempt: Attempt<'_>) -> reqwest::redirect::Action {
    let from = attempt.previous().last().map_or("", |url| url.as_str());
    if attempt.previous().len() > MAX_NUM_REDIRECTS {
        return attempt.error(format!("it redirects more than {MAX_NUM_REDIRECTS} times"));
    }
    match join(from, attempt.url().as_str()) {
        Some(_) => attempt.follow(),
        None => attempt.error("it redirects to somewhere else than HTTPS"),
    }
}
