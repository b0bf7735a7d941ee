//! Requests to a hub: bounded in time, redirected by hand, with the token for the hub alone.
//!
//! Redirects are followed here because a hub's own headers (commit, hash, length) stand on the
//! first answer, and because the storage that it redirects to must not see the token.
//!
//! Invariant: a token is sent only to the scheme, host and port of the configured endpoint.

use std::time::Duration;

use ureq::http::{Method, Request, Response, StatusCode};
use ureq::{Agent, Body};

use crate::url::{join, origin, without_query};
use crate::{HubConfig, HubError};

/// Redirects in a row, at most.
const MAX_NUM_REDIRECTS: usize = 10;
/// Bytes of an answer that is read whole, at most: a list of ten thousand files takes three MB.
pub(crate) const MAX_ANSWER_BYTES: u64 = 32 << 20;

/// A request that brought no usable answer.
#[derive(Debug)]
pub(crate) struct NoAnswer {
    /// What happened.
    pub(crate) reason: String,
    /// Whether asking again soon can help.
    pub(crate) is_transient: bool,
}

/// How far redirects are followed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Follow {
    /// Anywhere.
    All,
    /// Within the hub; the answer that leads out of it is the answer.
    Hub,
}

/// Talks to one hub.
pub(crate) struct Client<'a> {
    pub(crate) config: &'a HubConfig,
    agent: Agent,
}

impl<'a> Client<'a> {
    pub(crate) fn new(config: &'a HubConfig) -> Self {
        let connect_timeout = Duration::from_millis(config.connect_timeout_ms);
        let agent = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .timeout_resolve(Some(connect_timeout))
            .timeout_connect(Some(connect_timeout))
            .timeout_per_read(Some(Duration::from_millis(config.read_timeout_ms)))
            .timeout_per_write(Some(Duration::from_millis(config.read_timeout_ms)))
            .user_agent(concat!("hotspare/", env!("CARGO_PKG_VERSION")))
            // Lengths and hashes are those of the plain bytes.
            .accept_encoding("identity")
            .build();
        Self {
            config,
            agent: agent.into(),
        }
    }

    /// Sends a request once, and again where it is redirected. `first_byte` asks for the rest of a
    /// file.
    pub(crate) fn send(
        &self,
        method: &Method,
        url: &str,
        first_byte: u64,
        follow: Follow,
    ) -> Result<Response<Body>, NoAnswer> {
        let permanent = |reason: String| NoAnswer {
            reason,
            is_transient: false,
        };
        let mut url = url.to_owned();
        for _ in 0..=MAX_NUM_REDIRECTS {
            let mut request = Request::builder().method(method).uri(&url);
            let is_hub = origin(&url) == origin(&self.config.endpoint);
            if let (Some(token), true) = (&self.config.token, is_hub) {
                request = request.header("authorization", format!("Bearer {}", token.reveal()));
            }
            if first_byte > 0 {
                request = request.header("range", format!("bytes={first_byte}-"));
            }
            let request = request.body(());
            let request = request.map_err(|_| permanent("the address is malformed".to_owned()))?;
            tracing::debug!(%method, url = without_query(&url), first_byte, "hub request");
            let response = self.agent.run(request).map_err(|e| no_answer(&e))?;
            let location = response.headers().get("location");
            let location = location.filter(|_| response.status().is_redirection());
            let Some(location) = location.and_then(|location| location.to_str().ok()) else {
                return Ok(response);
            };
            let Some(next) = join(&url, location) else {
                return Err(permanent(
                    "it redirects to somewhere else than HTTPS".to_owned(),
                ));
            };
            if follow == Follow::Hub && origin(&next) != origin(&self.config.endpoint) {
                return Ok(response);
            }
            url = next;
        }
        Err(permanent(format!(
            "it redirects more than {MAX_NUM_REDIRECTS} times"
        )))
    }

    /// As [`Client::send`] from the first byte, again and again while that can help; the answer has
    /// a status that is final.
    pub(crate) fn ask(
        &self,
        method: &Method,
        url: &str,
        follow: Follow,
    ) -> Result<Response<Body>, HubError> {
        for attempt in 0.. {
            let is_last = attempt == self.config.max_num_retries;
            let (reason, asked_ms) = match self.send(method, url, 0, follow) {
                Ok(response) if !is_transient(response.status()) || is_last => {
                    return Ok(response);
                }
                Ok(response) => (response.status().to_string(), retry_after_ms(&response)),
                Err(error) if error.is_transient && !is_last => (error.reason, None),
                Err(error) => return Err(self.unreachable(error.reason)),
            };
            let wait = self.backoff(attempt, asked_ms);
            tracing::warn!(
                reason,
                wait_ms = wait.as_millis() as u64,
                "asking the hub again"
            );
            std::thread::sleep(wait);
        }
        Err(self.unreachable("no attempt was made".to_owned()))
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

    pub(crate) fn unreachable(&self, reason: String) -> HubError {
        HubError::Unreachable {
            endpoint: self.config.endpoint.clone(),
            reason,
        }
    }
}

/// Whether the same request may be answered otherwise soon.
pub(crate) fn is_transient(status: StatusCode) -> bool {
    matches!(status.as_u16(), 408 | 425 | 429 | 500..)
}

/// How long the hub asks to wait.
pub(crate) fn retry_after_ms(response: &Response<Body>) -> Option<u64> {
    let value = response.headers().get("retry-after")?.to_str().ok()?;
    Some(value.trim().parse::<u64>().ok()?.saturating_mul(1000))
}

/// What a failed request means. A name that does not resolve and a port that refuses stay so.
fn no_answer(error: &ureq::Error) -> NoAnswer {
    let is_refused = matches!(error, ureq::Error::Io(error)
        if error.kind() == std::io::ErrorKind::ConnectionRefused);
    let (reason, is_transient) = match error {
        ureq::Error::BadUri(_) => ("the address is malformed".to_owned(), false),
        ureq::Error::HostNotFound => ("its name does not resolve".to_owned(), false),
        ureq::Error::Timeout(timeout) => (format!("no answer in time ({timeout})"), true),
        ureq::Error::Io(error) => (error.to_string(), !is_refused),
        error => (error.to_string(), true),
    };
    NoAnswer {
        reason,
        is_transient,
    }
}
