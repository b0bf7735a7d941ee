//! `hotspare engine`: parse the options that the front passed, set up log and signals, run.
//!
//! Invariant: it does nothing of its own; the `engine` crate is all there is to an engine.

use std::process::ExitCode;

use hotspare_engine::EngineOptions;

use crate::cli::EngineCommandArgs;
use crate::{fail, logging, signals};

/// Runs until the engine ends.
pub(crate) fn run(args: EngineCommandArgs) -> ExitCode {
    if let Err(message) = logging::init(&args.log_level, args.log_format, None) {
        return fail(&message);
    }
    if let Err(error) = signals::ignore() {
        return fail(&format!("signals cannot be listened for: {error}"));
    }
    match serde_json::from_str::<EngineOptions>(&args.options) {
        Ok(options) => hotspare_engine::run_process(options),
        Err(error) => fail(&format!("--options: {error}")),
    }
}
