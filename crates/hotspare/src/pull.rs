//! `hotspare pull`: fetches a model, and prints where it is.
//!
//! Invariant: the path goes to standard output and everything else to standard error; status 0
//! means that every file is there and verified.

use std::process::ExitCode;

use indicatif::MultiProgress;

use crate::cli::PullArgs;
use crate::hub::{HubOptions, Request};
use crate::{fail, logging, print_result};

/// Fetches, and ends.
pub(crate) fn run(args: PullArgs, hub: &HubOptions) -> ExitCode {
    let bars = logging::can_show_bars(args.log_format).then(MultiProgress::new);
    if let Err(message) = logging::init(&args.log_level, args.log_format, bars.clone()) {
        return fail(&message);
    }
    match pull(args, hub, bars) {
        Ok(path) => print_result(&path),
        Err(message) => {
            tracing::error!("{message}");
            ExitCode::FAILURE
        }
    }
}

fn pull(args: PullArgs, hub: &HubOptions, bars: Option<MultiProgress>) -> Result<String, String> {
    let model = args.model.parse();
    let model = model.map_err(|e: hotspare_hub::HubError| e.to_string())?;
    let mut request = Request::new(model, args.revision, args.download_dir, hub)?;
    request.wanted.include = args.include;
    let found = request.run(bars)?;
    Ok(found.path.display().to_string())
}
