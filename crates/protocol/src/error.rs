//! An error as the API shows it: status, type, message, param.
//!
//! The shapes are vLLM's: `{"error":{"message","type","param","code"}}` with the HTTP status as
//! the code.
//!
//! Invariant: messages are for the client; they hold no path, address or backtrace of the server.

use std::borrow::Cow;

use serde::Serialize;

/// An error body and the HTTP status it goes with.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{status} {error_type}: {message}")]
pub struct ApiError {
    /// HTTP status, and the body's `code`.
    pub status: u16,
    /// The body's `type`.
    pub error_type: Cow<'static, str>,
    /// The body's `message`.
    pub message: String,
    /// Which parameter is at fault.
    pub param: Option<String>,
    /// Seconds for the `Retry-After` header; such an answer also says `x-should-retry: true`.
    pub retry_after_s: Option<u32>,
}

#[derive(Serialize)]
struct Body<'a> {
    error: Inner<'a>,
}

#[derive(Serialize)]
struct Inner<'a> {
    message: &'a str,
    #[serde(rename = "type")]
    error_type: &'a str,
    param: Option<&'a str>,
    code: u16,
}

impl ApiError {
    /// An error without a param.
    pub fn new(
        status: u16,
        error_type: impl Into<Cow<'static, str>>,
        message: impl Into<String>,
    ) -> Self {
        Self {
            status,
            error_type: error_type.into(),
            message: message.into(),
            param: None,
            retry_after_s: None,
        }
    }

    /// 400 `BadRequestError`: a value that is out of range, or that does not fit the others.
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(400, "BadRequestError", message)
    }

    /// 404 `NotFoundError`: a model that is not served.
    pub fn model_not_found(model: &str, aliases: &[String]) -> Self {
        let message = format!(
            "The model `{}` does not exist. Valid aliases: {}",
            crate::pyrepr::clip(model, 200),
            aliases.join(", ")
        );
        Self::new(404, "NotFoundError", message).with_param("model")
    }

    /// 413 `BadRequestError`: a body longer than the server reads.
    pub fn body_too_large(max_body_bytes: usize) -> Self {
        let message = format!("The request body is larger than {max_body_bytes} bytes.");
        Self::new(413, "BadRequestError", message)
    }

    /// 422 `UnprocessableEntityError`: well formed, and refused all the same; clients do not try
    /// again.
    pub fn unprocessable(message: impl Into<String>) -> Self {
        Self::new(422, "UnprocessableEntityError", message)
    }

    /// 501 `NotImplementedError`: a feature that would change the answer and is not there.
    pub fn not_implemented(feature: &str, param: &str) -> Self {
        let message = format!("{feature} is not implemented by this server yet.");
        Self::new(501, "NotImplementedError", message).with_param(param)
    }

    /// 503 `Service Unavailable`, to be tried again: the waiting queue is full.
    pub fn queue_full(retry_after_s: u32) -> Self {
        let message = "The engine is currently busy and cannot accept new requests. \
                       Please try again later or on a different instance.";
        Self::new(503, "Service Unavailable", message).with_retry_after(retry_after_s)
    }

    /// 503 `ServiceUnavailableError`, to be tried again: no engine is ready.
    pub fn not_ready(reason: &str, retry_after_s: u32) -> Self {
        Self::new(
            503,
            "ServiceUnavailableError",
            format!("The server is not ready: {reason}."),
        )
        .with_retry_after(retry_after_s)
    }

    /// 500 `InternalServerError`: the engine failed.
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(500, "InternalServerError", message)
    }

    /// Names the parameter at fault.
    #[must_use]
    pub fn with_param(mut self, param: impl Into<String>) -> Self {
        self.param = Some(param.into());
        self
    }

    /// Asks the client to try again after this many seconds.
    #[must_use]
    pub fn with_retry_after(mut self, seconds: u32) -> Self {
        self.retry_after_s = Some(seconds);
        self
    }

    /// The JSON body.
    pub fn to_json(&self) -> Vec<u8> {
        let body = Body {
            error: Inner {
                message: &self.message,
                error_type: &self.error_type,
                param: self.param.as_deref(),
                code: self.status,
            },
        };
        serde_json::to_vec(&body).expect("strings and numbers always serialise")
    }
}
