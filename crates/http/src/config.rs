//! Every setting of the HTTP side, each bound with its unit.
//!
//! Invariant: no buffer, queue or wait of this crate has a bound that is not a field here.

use std::ffi::OsString;
use std::time::Duration;

/// Settings of the HTTP server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpConfig {
    /// Keys that open `/v1`; none: open to all.
    pub api_keys: Vec<String>,
    /// Key that opens administration, such as `/ha/reload`; none: whoever is on this machine may.
    pub admin_key: Option<String>,
    /// Origins that browsers may call from (CORS); `*` for all, none for same-origin only.
    pub allowed_origins: Vec<String>,
    /// Bytes of a request's body at most; longer ones are a 413.
    pub max_body_bytes: usize,
    /// Bytes of bodies at most, over all requests that are not answered yet, but never less than
    /// `max_body_bytes`; a 503 above it. The first `max_inline_body_bytes` of each are free.
    pub max_total_body_bytes: usize,
    /// Bytes in memory, at most, of an answer that is not streamed, before it is complete; a 400
    /// above it. It counts against `max_total_body_bytes` too.
    pub max_whole_answer_bytes: usize,
    /// Bytes of a body that is too long that are read and dropped, so that the client, which sends
    /// before it reads, gets to see the answer.
    pub max_discarded_body_bytes: usize,
    /// Bytes of a request's headers at most.
    pub max_header_bytes: usize,
    /// Header fields of a request at most.
    pub max_num_headers: usize,
    /// Open connections at most; more wait in the listener's backlog.
    pub max_num_connections: usize,
    /// From a connection's first wait for a request to the end of that request's headers; also how
    /// long an idle connection is kept.
    pub header_timeout_ms: u64,
    /// For a whole request body.
    pub body_timeout_ms: u64,
    /// How long a client may leave an answer unread before its connection is closed.
    pub write_timeout_ms: u64,
    /// From the order to stop until answers that still run are ended with an error.
    pub shutdown_timeout_ms: u64,
    /// From then until connections that have not taken that error are closed.
    pub shutdown_grace_ms: u64,
    /// Time without a token after which a stream gets a comment line; 0 turns that off.
    pub sse_keep_alive_interval_ms: u64,
    /// Time between two comment lines in a stream that has begun and waits to be continued on
    /// another engine.
    pub replay_keep_alive_interval_ms: u64,
    /// Bodies above this are parsed, rendered and tokenized on a thread that may block; all are
    /// where requests may bring templates.
    pub max_inline_body_bytes: usize,
    /// Such threads at a time for requests of up to `max_short_body_bytes`.
    pub max_num_text_threads: usize,
    /// Bodies of requests for an answer above this wait in a queue of their own.
    pub max_short_body_bytes: usize,
    /// Such threads at a time for those.
    pub max_num_long_text_threads: usize,
    /// Such threads at a time for `/tokenize` and `/detokenize`.
    pub max_num_tokenize_threads: usize,
    /// Bytes of bodies that wait for such a thread or are on one, at most, but never less than one
    /// body of `max_body_bytes`; a 503 above it.
    pub max_text_queue_bytes: usize,
    /// Bytes of text that are tokenized at once, at most; each costs about 150 bytes of memory.
    /// Longer texts are tokenized in pieces; where one has no sure place to cut it, it is a 400.
    pub max_unsplit_text_bytes: usize,
    /// Bytes of each of a request's stop strings, at most.
    pub max_stop_string_bytes: usize,
    /// `logprobs` and `top_logprobs` at most; -1 is the size of the vocabulary.
    pub max_logprobs: i64,
    /// Sequences of one request, prompts times `n`, at most.
    pub max_num_choices: usize,
    /// Whether a request may bring its own chat template.
    pub trust_request_chat_template: bool,
    /// Bytes that such a template may print.
    pub max_request_template_output_bytes: usize,
    /// Instructions that such a template may run.
    pub max_request_template_fuel: u64,
    /// Bytes of memory that such a template may take, beside the program that renders it.
    pub max_request_template_memory_bytes: usize,
    /// Processor time of such a template, seconds.
    pub request_template_timeout_s: u64,
    /// Program and first arguments of the process that renders such a template; the last two
    /// bounds are added to them. Empty: such templates are rendered in this process, where nothing
    /// keeps those two.
    pub template_command: Vec<OsString>,
    /// Names of unknown request fields that are logged, each once.
    pub max_num_logged_fields: usize,
    /// Whether `usage` says how many prompt tokens were cached.
    pub enable_prompt_tokens_details: bool,
    /// Every stream has usage, asked for or not.
    pub enable_force_include_usage: bool,
}

impl Default for HttpConfig {
    fn default() -> Self {
        Self {
            api_keys: Vec::new(),
            admin_key: None,
            allowed_origins: Vec::new(),
            max_body_bytes: 4 << 20,
            max_total_body_bytes: 256 << 20,
            max_whole_answer_bytes: 64 << 20,
            max_discarded_body_bytes: 64 << 20,
            max_header_bytes: 64 << 10,
            max_num_headers: 256,
            max_num_connections: 4_096,
            header_timeout_ms: 30_000,
            body_timeout_ms: 60_000,
            write_timeout_ms: 60_000,
            shutdown_timeout_ms: 30_000,
            shutdown_grace_ms: 1_000,
            sse_keep_alive_interval_ms: 0,
            replay_keep_alive_interval_ms: 2_000,
            max_inline_body_bytes: 8 << 10,
            max_num_text_threads: 4,
            max_short_body_bytes: 256 << 10,
            max_num_long_text_threads: 1,
            max_num_tokenize_threads: 1,
            max_text_queue_bytes: 64 << 20,
            max_unsplit_text_bytes: 512 << 10,
            max_stop_string_bytes: 4 << 10,
            max_logprobs: 20,
            max_num_choices: 1_024,
            trust_request_chat_template: false,
            max_request_template_output_bytes: 4 << 20,
            max_request_template_fuel: 1_000_000,
            max_request_template_memory_bytes: 256 << 20,
            request_template_timeout_s: 10,
            template_command: Vec::new(),
            max_num_logged_fields: 256,
            enable_prompt_tokens_details: false,
            enable_force_include_usage: false,
        }
    }
}

impl HttpConfig {
    pub(crate) fn body_timeout(&self) -> Duration {
        Duration::from_millis(self.body_timeout_ms)
    }

    pub(crate) fn shutdown_timeout(&self) -> Duration {
        Duration::from_millis(self.shutdown_timeout_ms)
    }

    pub(crate) fn shutdown_grace(&self) -> Duration {
        Duration::from_millis(self.shutdown_grace_ms)
    }

    pub(crate) fn replay_keep_alive_interval(&self) -> Duration {
        Duration::from_millis(self.replay_keep_alive_interval_ms.max(1))
    }

    pub(crate) fn sse_keep_alive_interval(&self) -> Option<Duration> {
        let interval = Duration::from_millis(self.sse_keep_alive_interval_ms);
        (!interval.is_zero()).then_some(interval)
    }
}
