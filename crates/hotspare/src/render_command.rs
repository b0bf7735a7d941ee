//! `hotspare render-template`: render one chat template of a request's, within bounds that the
//! operating system keeps.
//!
//! Invariant: the bounds hold before a byte of the template is read.

use std::io::{Read as _, Write as _};
use std::process::ExitCode;

use hotspare_text::RenderJob;
use rustix::process::{Resource, Rlimit, setrlimit};

use crate::cli::RenderCommandArgs;

/// Bytes of address space that the program takes by itself, where that cannot be read.
const ASSUMED_BYTES: u64 = 256 << 20;

/// Renders the job on standard input to standard output.
pub(crate) fn run(args: &RenderCommandArgs) -> ExitCode {
    let memory = own_bytes().saturating_add(args.max_memory_bytes);
    let bounds = [
        (Resource::As, memory),
        (Resource::Cpu, args.timeout_s),
        (Resource::Core, 0),
    ];
    for (resource, bound) in bounds {
        let limit = Rlimit {
            current: Some(bound),
            maximum: Some(bound),
        };
        if setrlimit(resource, limit).is_err() {
            return ExitCode::FAILURE;
        }
    }
    let mut job = Vec::new();
    let read = std::io::stdin().lock().read_to_end(&mut job);
    let Some(outcome) = read.ok().and_then(|_| RenderJob::run_bytes(&job)) else {
        return ExitCode::FAILURE;
    };
    match std::io::stdout().lock().write_all(&outcome) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

/// Address space in use: the program, its libraries and stack.
fn own_bytes() -> u64 {
    let pages = std::fs::read_to_string("/proc/self/statm").ok();
    let pages = pages.and_then(|text| text.split(' ').next()?.parse::<u64>().ok());
    pages.map_or(ASSUMED_BYTES, |pages| {
        pages.saturating_mul(rustix::param::page_size() as u64)
    })
}
