//! Chat templates that requests bring, rendered in a process of their own.
//!
//! Where the operator trusts clients with templates, one that goes wrong may still not take the
//! server with it: the process has bounds on its memory and on its time, and is started for one
//! rendering.
//!
//! Invariant: the process gets nothing of the server's environment, and is waited for.

use std::io::{Read as _, Write as _};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::process::{Child, Command, ExitStatus, Stdio};

use hotspare_protocol::ApiError;
use hotspare_text::{RenderJob, TextError};

use crate::HttpConfig;

/// Characters of the text's JSON for each of its bytes, at most.
const MAX_ESCAPE_LEN: usize = 6;

const SIGHUP: i32 = 1;
const SIGINT: i32 = 2;
const SIGTERM: i32 = 15;

/// Beside the text.
const MAX_FRAME_BYTES: usize = 64 << 10;

/// Renders a request's own template; blocks.
///
/// # Errors
/// The template's own, as a 400; 500 where no process can be started.
pub(crate) fn render(
    job: &RenderJob,
    config: &HttpConfig,
) -> Result<Result<String, TextError>, ApiError> {
    let Some((program, args)) = config.template_command.split_first() else {
        return Ok(job.run());
    };
    let mut command = Command::new(program);
    command
        .arg0("hotspare")
        .args(args)
        .arg(config.max_request_template_memory_bytes.to_string())
        .arg(config.request_template_timeout_s.to_string())
        .env_clear()
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        // A Ctrl-C on the terminal is for the server, which still answers this request.
        .process_group(0);
    let max_output_bytes = config.max_request_template_output_bytes;
    let max_answer_bytes = max_output_bytes.saturating_mul(MAX_ESCAPE_LEN) + MAX_FRAME_BYTES;
    let outcome = command
        .spawn()
        .and_then(|child| exchange(child, &job.to_bytes(), max_answer_bytes as u64));
    match outcome {
        Ok((status, answer)) if status.success() => match RenderJob::outcome(&answer) {
            Some(outcome) => Ok(outcome),
            None => Err(failed(&"its answer is cut off")),
        },
        // Someone else ended it.
        Ok((status, _)) if matches!(status.signal(), Some(SIGINT | SIGTERM | SIGHUP)) => {
            Err(failed(&status))
        }
        Ok((status, _)) => {
            tracing::info!(%status, "the process of a request's chat template ended early");
            let limit = format!(
                "{} bytes of memory or {} s",
                config.max_request_template_memory_bytes, config.request_template_timeout_s
            );
            Ok(Err(TextError::TemplateLimit(limit)))
        }
        Err(error) => Err(failed(&error)),
    }
}

fn failed(error: &dyn std::fmt::Display) -> ApiError {
    tracing::error!(%error, "the process for a request's chat template failed");
    ApiError::internal("The server had an error while processing your request.")
}

/// Writes the job, reads the answer, and waits for the end.
fn exchange(
    mut child: Child,
    job: &[u8],
    max_answer_bytes: u64,
) -> std::io::Result<(ExitStatus, Vec<u8>)> {
    let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
    let mut answer = Vec::new();
    let read = std::thread::scope(|scope| {
        scope.spawn(move || {
            // A process that ends early does not read: its status says why.
            let _ = stdin.map(|mut stdin| stdin.write_all(job));
        });
        match stdout {
            Some(stdout) => stdout.take(max_answer_bytes).read_to_end(&mut answer),
            None => Ok(0),
        }
    });
    if read.is_err() {
        // It may not have ended, and nobody reads from it any more.
        child.kill()?;
    }
    let status = child.wait()?;
    read.map(|_| (status, answer))
}

#[cfg(test)]
#[path = "own_template_test.rs"]
mod own_template_test;
