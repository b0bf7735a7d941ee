//! A small blocking HTTP client for tests.
//!
//! Invariant: every call has a timeout; an error status is an answer, not a failure.

use std::io::Read;
use std::time::Duration;

use serde_json::Value;

use crate::SseStream;

const TIMEOUT: Duration = Duration::from_secs(600);

/// An answer, whole.
#[derive(Debug)]
pub struct Reply {
    /// Status code.
    pub status: u16,
    /// Headers, names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
}

impl Reply {
    /// The body as JSON.
    ///
    /// # Panics
    /// Where it is not.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|e| panic!("the body is JSON ({e}): {}", self.text()))
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The first header of that name.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(n, _)| n == name)
            .map(|(_, value)| value.as_str())
    }
}

/// Talks to one server.
#[derive(Clone, Debug)]
pub struct Client {
    base_url: String,
    agent: ureq::Agent,
    headers: Vec<(String, String)>,
}

impl Client {
    /// A client of the server at `base_url`.
    pub fn new(base_url: impl Into<String>) -> Self {
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(TIMEOUT))
            .max_idle_connections_per_host(256)
            .build();
        Self {
            base_url: base_url.into(),
            agent: config.into(),
            headers: Vec::new(),
        }
    }

    /// The same client, sending one more header with each request.
    pub fn with_header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// GET.
    ///
    /// # Panics
    /// Where there is no answer.
    pub fn get(&self, path: &str) -> Reply {
        self.try_get(path)
            .unwrap_or_else(|e| panic!("GET {path}: {e}"))
    }

    /// GET; an error where there is no answer.
    ///
    /// # Errors
    /// The transport's.
    pub fn try_get(&self, path: &str) -> Result<Reply, String> {
        let mut request = self.agent.get(format!("{}{path}", self.base_url));
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        reply(request.call().map_err(|e| e.to_string())?)
    }

    /// POST of JSON.
    ///
    /// # Panics
    /// Where there is no answer.
    pub fn post(&self, path: &str, body: &Value) -> Reply {
        self.post_bytes(path, body.to_string().as_bytes())
    }

    /// POST of any bytes, labelled JSON.
    ///
    /// # Panics
    /// Where there is no answer.
    pub fn post_bytes(&self, path: &str, body: &[u8]) -> Reply {
        self.send(path, body)
            .and_then(reply)
            .unwrap_or_else(|e| panic!("POST {path}: {e}"))
    }

    /// POST of JSON; an error where there is no whole answer.
    ///
    /// # Errors
    /// The transport's.
    pub fn try_post(&self, path: &str, body: &Value) -> Result<Reply, String> {
        self.send(path, body.to_string().as_bytes()).and_then(reply)
    }

    /// POST of JSON whose answer is a stream of events.
    ///
    /// # Panics
    /// Where the answer is not status 200 and an event stream.
    pub fn stream(&self, path: &str, body: &Value) -> SseStream {
        let response = self
            .send(path, body.to_string().as_bytes())
            .unwrap_or_else(|e| panic!("POST {path}: {e}"));
        let content_type = response.headers().get("content-type").cloned();
        if response.status() != 200 {
            let reply = reply(response).unwrap_or_else(|e| panic!("POST {path}: {e}"));
            panic!("POST {path}: status {}: {}", reply.status, reply.text());
        }
        assert_eq!(
            content_type.as_ref().and_then(|v| v.to_str().ok()),
            Some("text/event-stream; charset=utf-8"),
            "the answer is a stream of events"
        );
        SseStream::new(Box::new(response.into_body().into_reader()))
    }

    fn send(&self, path: &str, body: &[u8]) -> Result<ureq::http::Response<ureq::Body>, String> {
        let mut request = self
            .agent
            .post(format!("{}{path}", self.base_url))
            .header("content-type", "application/json");
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        request.send(body).map_err(|e| e.to_string())
    }
}

fn reply(response: ureq::http::Response<ureq::Body>) -> Result<Reply, String> {
    let status = response.status().as_u16();
    let headers = response
        .headers()
        .iter()
        .map(|(name, value)| {
            (
                name.as_str().to_owned(),
                String::from_utf8_lossy(value.as_bytes()).into_owned(),
            )
        })
        .collect();
    let mut body = Vec::new();
    response
        .into_body()
        .into_reader()
        .read_to_end(&mut body)
        .map_err(|e| e.to_string())?;
    Ok(Reply {
        status,
        headers,
        body,
    })
}
