//! What went wrong between us and a hub, out of `hf-hub`'s errors.
//!
//! Those name addresses, which may be signed; here stays what happened, whether asking again can
//! help, and the hub's own code for it.
//!
//! Invariant: nothing in here holds an address.

use std::error::Error;
use std::fmt;

use hf_hub::HFError;
use reqwest::{Response, StatusCode};

/// A call that brought no usable answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// An answer with a status that is none of success.
    Refused {
        status: u16,
        /// The hub's own word for it; empty where there is none.
        code: String,
        retry_after_ms: Option<u64>,
    },
    /// No answer, or not the whole of it.
    NoAnswer { reason: String, is_transient: bool },
    /// An answer that no hub gives.
    Nonsense(String),
}

impl Failure {
    /// A call that took too long.
    pub(crate) fn timeout() -> Self {
        Self::NoAnswer {
            reason: "no answer in time (timeout)".to_owned(),
            is_transient: true,
        }
    }

    pub(crate) fn bad_redirect() -> Self {
        Self::permanent("it redirects to somewhere else than HTTPS".to_owned())
    }

    pub(crate) fn too_many_redirects(limit: usize) -> Self {
        Self::permanent(format!("it redirects more than {limit} times"))
    }

    fn permanent(reason: String) -> Self {
        Self::NoAnswer {
            reason,
            is_transient: false,
        }
    }

    /// That of an answer whose status is none of success.
    pub(crate) fn of_response(response: &Response) -> Self {
        let header = |name: &str| response.headers().get(name)?.to_str().ok();
        let seconds = header("retry-after").and_then(|value| value.trim().parse::<u64>().ok());
        Self::Refused {
            status: response.status().as_u16(),
            code: header("x-error-code").unwrap_or_default().to_owned(),
            retry_after_ms: seconds.map(|seconds| seconds.saturating_mul(1000)),
        }
    }

    /// Whether the same call may have another outcome soon.
    pub(crate) fn is_transient(&self) -> bool {
        match self {
            Self::Refused { status, .. } => matches!(status, 408 | 425 | 429 | 500..),
            Self::NoAnswer { is_transient, .. } => *is_transient,
            Self::Nonsense(_) => false,
        }
    }

    /// How long the hub asks to wait.
    pub(crate) fn retry_after_ms(&self) -> Option<u64> {
        match self {
            Self::Refused { retry_after_ms, .. } => *retry_after_ms,
            _ => None,
        }
    }

    /// The status of a refusal.
    pub(crate) fn status(&self) -> Option<u16> {
        match self {
            Self::Refused { status, .. } => Some(*status),
            _ => None,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused { status, .. } => match StatusCode::from_u16(*status) {
                Ok(status) => write!(f, "{status}"),
                Err(_) => write!(f, "{status}"),
            },
            Self::NoAnswer { reason, .. } | Self::Nonsense(reason) => f.write_str(reason),
        }
    }
}

impl From<HFError> for Failure {
    fn from(error: HFError) -> Self {
        let (context, retry_after) = match error {
            HFError::Request { source, .. } => return of_transport(&source),
            HFError::Http { context }
            | HFError::AuthRequired { context }
            | HFError::Forbidden { context }
            | HFError::Conflict { context } => (context, None),
            HFError::RateLimited {
                retry_after,
                context,
            } => (context, retry_after),
            HFError::RepoNotFound {
                context: Some(context),
                ..
            }
            | HFError::RevisionNotFound {
                context: Some(context),
                ..
            }
            | HFError::EntryNotFound {
                context: Some(context),
                ..
            } => (context, None),
            HFError::MalformedResponse { what, .. } => return Self::Nonsense(what),
            HFError::Json(error) => return Self::Nonsense(format!("no usable JSON ({error})")),
            // None of these is of an answer; the words hold no address.
            HFError::Xet { operation, source } => {
                return Self::NoAnswer {
                    reason: format!("xet {operation}: {}", innermost(source.as_ref())),
                    is_transient: true,
                };
            }
            error => return Self::permanent(innermost(&error)),
        };
        Self::Refused {
            status: context.status.as_u16(),
            code: context.error_code.clone().unwrap_or_default(),
            retry_after_ms: retry_after.map(|wait| wait.as_millis() as u64),
        }
    }
}

/// What a transport's error means. A name that does not resolve and a port that refuses stay so.
fn of_transport(error: &reqwest::Error) -> Failure {
    if error.is_timeout() {
        return Failure::timeout();
    }
    let is = |is_it: &dyn Fn(&(dyn Error + 'static)) -> bool| {
        let mut cause = error.source();
        std::iter::from_fn(|| {
            let found = cause?;
            cause = found.source();
            Some(found)
        })
        .any(is_it)
    };
    if is(&|cause| cause.is::<serde_json::Error>()) {
        return Failure::Nonsense(format!("no usable JSON ({})", innermost(error)));
    }
    let is_refused = is(&|cause| {
        let cause = cause.downcast_ref::<std::io::Error>();
        cause.is_some_and(|cause| cause.kind() == std::io::ErrorKind::ConnectionRefused)
    });
    if is(&|cause| cause.to_string() == "dns error") {
        return Failure::permanent(format!("its name does not resolve: {}", innermost(error)));
    }
    Failure::NoAnswer {
        reason: innermost(error),
        is_transient: !is_refused && !error.is_builder() && !error.is_redirect(),
    }
}

/// The cause behind all causes: those before it repeat the address.
pub(crate) fn innermost(error: &dyn Error) -> String {
    let Some(mut cause) = error.source() else {
        return "the request cannot be made".to_owned();
    };
    while let Some(next) = cause.source() {
        cause = next;
    }
    cause.to_string()
}
