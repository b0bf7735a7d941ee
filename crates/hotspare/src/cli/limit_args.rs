//! Bounds that few will ever change: of requests, and of what passes between front and engine.
//!
//! They have sections of their own in `--help` and stay out of the short `-h`.
//!
//! Invariant: the default that an option's help names is the one that holds; a test reads both.

use clap::Args;
use hotspare_engine::EngineOptions;
use hotspare_front::FrontConfig;
use hotspare_http::HttpConfig;

use super::CliError;
use super::values::{
    parse_frame_size, parse_head_size, parse_num_threads, parse_positive, parse_seconds,
    parse_size, parse_size_or_zero, parse_timeout_ms,
};

/// What one request may cost.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Request limits")]
pub(crate) struct RequestLimitArgs {
    /// Bytes of bodies in memory at most, over all requests that are not answered yet; a 503 with
    /// Retry-After above it. The first --max-inline-body-bytes of each body do not count [default:
    /// 256M].
    #[arg(long, value_name = "BYTES", value_parser = parse_size, hide_short_help = true)]
    pub(crate) max_total_body_bytes: Option<usize>,
    /// Bytes in memory, at most, of an answer that is not streamed, before it is complete; a 400
    /// above it, and it counts against --max-total-body-bytes [default: 64M].
    #[arg(long, value_name = "BYTES", value_parser = parse_size, hide_short_help = true)]
    pub(crate) max_whole_answer_bytes: Option<usize>,
    /// Bytes of a body that is too long that are read and dropped, so that its client gets to see
    /// the answer [default: 64M].
    #[arg(long, value_name = "BYTES", value_parser = parse_size_or_zero, hide_short_help = true)]
    pub(crate) max_discarded_body_bytes: Option<usize>,
    /// Bytes of a request's line and headers, at most; at least 8K [default: 64K].
    #[arg(long, value_name = "BYTES", value_parser = parse_head_size, hide_short_help = true)]
    pub(crate) max_header_bytes: Option<usize>,
    /// Header fields of a request at most [default: 256].
    #[arg(long, value_name = "N", value_parser = parse_positive, hide_short_help = true)]
    pub(crate) max_num_headers: Option<usize>,
    /// Time for the headers of a request, and how long an idle connection is kept [default: 30000].
    #[arg(long, value_name = "MS", value_parser = parse_timeout_ms, hide_short_help = true)]
    pub(crate) header_timeout_ms: Option<u64>,
    /// Time for the body of a request [default: 60000].
    #[arg(long, value_name = "MS", value_parser = parse_timeout_ms, hide_short_help = true)]
    pub(crate) body_timeout_ms: Option<u64>,
    /// How long a client may leave an answer unread [default: 60000].
    #[arg(long, value_name = "MS", value_parser = parse_timeout_ms, hide_short_help = true)]
    pub(crate) write_timeout_ms: Option<u64>,
    /// After --shutdown-timeout, time for clients to take the error that ends their answers
    /// [default: 1000].
    #[arg(long, value_name = "MS", value_parser = parse_timeout_ms, hide_short_help = true)]
    pub(crate) shutdown_grace_ms: Option<u64>,
    /// Longer bodies are parsed, rendered and tokenized on threads of their own [default: 8K].
    #[arg(long, value_name = "BYTES", value_parser = parse_size_or_zero, hide_short_help = true)]
    pub(crate) max_inline_body_bytes: Option<usize>,
    /// Such threads for bodies of up to --max-short-body-bytes [default: 4].
    #[arg(long, value_name = "N", value_parser = parse_num_threads, hide_short_help = true)]
    pub(crate) max_num_text_threads: Option<usize>,
    /// Longer bodies wait in a queue of their own, so that short ones need not [default: 256K].
    #[arg(long, value_name = "BYTES", value_parser = parse_size, hide_short_help = true)]
    pub(crate) max_short_body_bytes: Option<usize>,
    /// Threads for bodies above --max-short-body-bytes [default: 1].
    #[arg(long, value_name = "N", value_parser = parse_num_threads, hide_short_help = true)]
    pub(crate) max_num_long_text_threads: Option<usize>,
    /// Threads for /tokenize and /detokenize [default: 1].
    #[arg(long, value_name = "N", value_parser = parse_num_threads, hide_short_help = true)]
    pub(crate) max_num_tokenize_threads: Option<usize>,
    /// Bytes of bodies that wait for those threads or are on one, at most; a 503 above it; at
    /// least --max-body-bytes [default: 64M].
    #[arg(long, value_name = "BYTES", value_parser = parse_size, hide_short_help = true)]
    pub(crate) max_text_queue_bytes: Option<usize>,
    /// Bytes of text that are tokenized at once, at about 150 bytes of memory each; longer texts
    /// are tokenized in pieces [default: 512K].
    #[arg(long, value_name = "BYTES", value_parser = parse_size, hide_short_help = true)]
    pub(crate) max_unsplit_text_bytes: Option<usize>,
    /// Bytes of each stop string, at most [default: 4K].
    #[arg(long, value_name = "BYTES", value_parser = parse_size, hide_short_help = true)]
    pub(crate) max_stop_string_bytes: Option<usize>,
    /// Sequences of one request (prompts times `n`) at most [default: 1024].
    #[arg(long, value_name = "N", value_parser = parse_positive, hide_short_help = true)]
    pub(crate) max_num_choices: Option<usize>,
    /// Bytes that a chat template of a request's own may print [default: 4M].
    #[arg(long, value_name = "BYTES", value_parser = parse_size, hide_short_help = true)]
    pub(crate) max_request_template_output_bytes: Option<usize>,
    /// Instructions that such a template may run [default: 1000000].
    #[arg(long, value_name = "N", value_parser = parse_positive, hide_short_help = true)]
    pub(crate) max_request_template_fuel: Option<usize>,
    /// Bytes of memory that such a template may take; it is rendered in a process of its own
    /// [default: 256M].
    #[arg(long, value_name = "BYTES", value_parser = parse_size, hide_short_help = true)]
    pub(crate) max_request_template_memory_bytes: Option<usize>,
    /// Processor time of such a template, seconds [default: 10].
    #[arg(long, value_name = "SECONDS", value_parser = parse_seconds, hide_short_help = true)]
    pub(crate) request_template_timeout_s: Option<u64>,
    /// Names of unknown request fields that are logged, each once [default: 256].
    #[arg(long, value_name = "N", value_parser = parse_size_or_zero, hide_short_help = true)]
    pub(crate) max_num_logged_fields: Option<usize>,
}

/// What passes between the front and its engine.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Engine link limits")]
pub(crate) struct LinkLimitArgs {
    /// Bytes of one message between front and engine, at most; from 64K to 1G [default: 16M].
    #[arg(long, value_name = "BYTES", value_parser = parse_frame_size, hide_short_help = true)]
    pub(crate) max_frame_bytes: Option<usize>,
    /// Bytes that the front gathers for one write to the engine [default: 256K].
    #[arg(long, value_name = "BYTES", value_parser = parse_size, hide_short_help = true)]
    pub(crate) max_write_batch_bytes: Option<usize>,
    /// Requests that wait to be written to the engine, at most; further ones are answered 503
    /// [default: 1024].
    #[arg(long, value_name = "N", value_parser = parse_positive, hide_short_help = true)]
    pub(crate) max_num_unsent_requests: Option<usize>,
    /// Sequences that the front gives to the engine as one job, at most [default: 4096].
    #[arg(long, value_name = "N", value_parser = parse_positive, hide_short_help = true)]
    pub(crate) max_num_sequences_per_job: Option<usize>,
    /// Bytes of outgoing messages that the engine gathers before it writes [default: 1M].
    #[arg(long, value_name = "BYTES", value_parser = parse_size, hide_short_help = true)]
    pub(crate) max_output_buffer_bytes: Option<usize>,
    /// Messages that the engine has read and not yet looked at, at most [default: 1024].
    #[arg(long, value_name = "N", value_parser = parse_positive, hide_short_help = true)]
    pub(crate) max_num_inbox_messages: Option<usize>,
    /// The same in bytes of memory [default: 64M].
    #[arg(long, value_name = "BYTES", value_parser = parse_size, hide_short_help = true)]
    pub(crate) max_inbox_bytes: Option<usize>,
    /// Messages that the engine looks at between two steps, at most [default: 256].
    #[arg(long, value_name = "N", value_parser = parse_positive, hide_short_help = true)]
    pub(crate) max_num_messages_per_step: Option<usize>,
    /// Bytes of KV blocks that an engine copies out for the next one in a step, at most; one block
    /// always is [default: 4M].
    #[arg(long, value_name = "BYTES", value_parser = parse_size, hide_short_help = true)]
    pub(crate) max_kv_save_bytes_per_step: Option<usize>,
    /// Bytes of a lost engine's KV blocks that the next one takes in with a step, about; those of a
    /// request come together [default: 8M].
    #[arg(long, value_name = "BYTES", value_parser = parse_size, hide_short_help = true)]
    pub(crate) max_kv_load_bytes_per_step: Option<usize>,
    /// Time between two reports of the engine's counters, which /metrics shows [default: 500].
    #[arg(long, value_name = "MS", value_parser = parse_timeout_ms, hide_short_help = true)]
    pub(crate) stats_interval_ms: Option<u64>,
    /// Tokens of steps that follow each other faster than this are sent together; 0 sends each at
    /// once; at most 1000 [default: 5].
    #[arg(long, value_name = "MS", value_parser = clap::value_parser!(u64).range(..=1000),
        hide_short_help = true)]
    pub(crate) stream_flush_interval_ms: Option<u64>,
    /// Retry-After of a 503 because too much waits, seconds [default: 1].
    #[arg(long, value_name = "SECONDS", hide_short_help = true)]
    pub(crate) queue_full_retry_after_s: Option<u32>,
    /// Retry-After of a 503 because no engine is ready, seconds [default: 2].
    #[arg(long, value_name = "SECONDS", hide_short_help = true)]
    pub(crate) not_ready_retry_after_s: Option<u32>,
    /// Time that an engine has to end by itself before it is killed [default: 5000].
    #[arg(long, value_name = "MS", value_parser = parse_timeout_ms, hide_short_help = true)]
    pub(crate) engine_stop_timeout_ms: Option<u64>,
    /// Time from the end of an engine's connection until its streams are told, at most: its exit
    /// status says whether it was ended from outside [default: 50].
    #[arg(long, value_name = "MS", value_parser = parse_timeout_ms, hide_short_help = true)]
    pub(crate) engine_exit_wait_ms: Option<u64>,
    /// Time without a step after which an engine hangs, however long its steps take
    /// [default: 600000].
    #[arg(long, value_name = "MS", value_parser = parse_timeout_ms, hide_short_help = true)]
    pub(crate) engine_hang_ceiling_ms: Option<u64>,
    /// So many times the longest recent wait for a step is taken for a hang [default: 20].
    #[arg(long, value_name = "N", hide_short_help = true)]
    pub(crate) engine_hang_factor: Option<u32>,
    /// Idle time after which an engine is asked for a token; 0 for never [default: 10000].
    #[arg(long, value_name = "MS", hide_short_help = true)]
    pub(crate) engine_canary_interval_ms: Option<u64>,
    /// Engine processes that were given up and have not ended, beyond which none is started
    /// [default: 4].
    #[arg(long, value_name = "N", hide_short_help = true)]
    pub(crate) max_num_unreaped_engines: Option<u32>,
    /// Time without a request after which an engine ends that a reload replaced [default: 1000].
    #[arg(long, value_name = "MS", value_parser = parse_timeout_ms, hide_short_help = true)]
    pub(crate) engine_retire_grace_ms: Option<u64>,
    /// Time that requests on a replaced engine have to finish [default: 600].
    #[arg(long, value_name = "SECONDS", hide_short_help = true)]
    pub(crate) engine_retire_timeout_s: Option<u64>,
    /// An engine that served this long ends a row of failures [default: 60000].
    #[arg(long, value_name = "MS", value_parser = parse_timeout_ms, hide_short_help = true)]
    pub(crate) engine_stable_after_ms: Option<u64>,
}

impl RequestLimitArgs {
    /// Writes these over `http`, whose other bounds are final already.
    pub(crate) fn apply(&self, http: &mut HttpConfig) -> Result<(), CliError> {
        set!(self => http;
            max_total_body_bytes, max_whole_answer_bytes, max_discarded_body_bytes,
            max_header_bytes, max_num_headers, header_timeout_ms, body_timeout_ms, write_timeout_ms,
            shutdown_grace_ms, max_inline_body_bytes, max_num_text_threads, max_short_body_bytes,
            max_num_long_text_threads, max_num_tokenize_threads, max_text_queue_bytes,
            max_unsplit_text_bytes, max_stop_string_bytes, max_num_choices,
            max_request_template_output_bytes, max_request_template_memory_bytes,
            request_template_timeout_s, max_num_logged_fields,
        );
        if let Some(fuel) = self.max_request_template_fuel {
            http.max_request_template_fuel = fuel as u64;
        }
        let body = http.max_body_bytes;
        for (name, given) in [
            ("max-text-queue-bytes", self.max_text_queue_bytes),
            ("max-total-body-bytes", self.max_total_body_bytes),
        ] {
            if given.is_some_and(|bytes| bytes < body) {
                return Err(CliError::usage(format!(
                    "--{name} must have room for one body: at least --max-body-bytes, which is \
                     {body}"
                )));
            }
        }
        Ok(())
    }

    /// These, and where they say nothing, `lower`.
    pub(crate) fn or(self, lower: Self) -> Self {
        first_of!(
            Self,
            self,
            lower,
            max_total_body_bytes,
            max_whole_answer_bytes,
            max_discarded_body_bytes,
            max_header_bytes,
            max_num_headers,
            header_timeout_ms,
            body_timeout_ms,
            write_timeout_ms,
            shutdown_grace_ms,
            max_inline_body_bytes,
            max_num_text_threads,
            max_short_body_bytes,
            max_num_long_text_threads,
            max_num_tokenize_threads,
            max_text_queue_bytes,
            max_unsplit_text_bytes,
            max_stop_string_bytes,
            max_num_choices,
            max_request_template_output_bytes,
            max_request_template_fuel,
            max_request_template_memory_bytes,
            request_template_timeout_s,
            max_num_logged_fields,
        )
    }
}

impl LinkLimitArgs {
    /// Writes these over both sides' settings.
    pub(crate) fn apply(&self, front: &mut FrontConfig, engine: &mut EngineOptions) {
        set!(self => front;
            max_frame_bytes, max_write_batch_bytes, max_num_unsent_requests,
            max_num_sequences_per_job, queue_full_retry_after_s, not_ready_retry_after_s,
            engine_stop_timeout_ms, engine_exit_wait_ms, engine_hang_ceiling_ms, engine_hang_factor,
            engine_canary_interval_ms, max_num_unreaped_engines, engine_retire_grace_ms,
            engine_retire_timeout_s, engine_stable_after_ms,
        );
        set!(self => engine;
            max_frame_bytes, max_output_buffer_bytes, max_num_inbox_messages, max_inbox_bytes,
            max_num_messages_per_step, max_kv_save_bytes_per_step, max_kv_load_bytes_per_step,
            stats_interval_ms, stream_flush_interval_ms,
        );
    }

    /// These, and where they say nothing, `lower`.
    pub(crate) fn or(self, lower: Self) -> Self {
        first_of!(
            Self,
            self,
            lower,
            max_frame_bytes,
            max_write_batch_bytes,
            max_num_unsent_requests,
            max_num_sequences_per_job,
            max_output_buffer_bytes,
            max_num_inbox_messages,
            max_inbox_bytes,
            max_num_messages_per_step,
            max_kv_save_bytes_per_step,
            max_kv_load_bytes_per_step,
            stats_interval_ms,
            stream_flush_interval_ms,
            queue_full_retry_after_s,
            not_ready_retry_after_s,
            engine_stop_timeout_ms,
            engine_exit_wait_ms,
            engine_hang_ceiling_ms,
            engine_hang_factor,
            engine_canary_interval_ms,
            max_num_unreaped_engines,
            engine_retire_grace_ms,
            engine_retire_timeout_s,
            engine_stable_after_ms,
        )
    }
}
