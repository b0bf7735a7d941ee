//! Each kernel on the card against the CPU's operation of the same name.
//!
//! Invariant: a check that fails is named with its seed; after the context is lost nothing more is
//! claimed.

use super::args::KernelTestsArgs;
use super::report::Report;

#[cfg(not(feature = "cuda"))]
pub(super) fn run(_args: &KernelTestsArgs, _report: &mut Report) -> Result<(), String> {
    Err(
        "the kernels run on a card; on a machine without one `cargo test -p \
         hotspare-backend-cuda` runs them in the emulator"
            .to_owned(),
    )
}

#[cfg(feature = "cuda")]
pub(super) fn run(args: &KernelTestsArgs, report: &mut Report) -> Result<(), String> {
    use std::time::Instant;

    use hotspare_backend_cuda::Launcher as _;
    use hotspare_backend_cuda::card::{Card, FaultCell};
    use hotspare_backend_cuda::checks::ALL;
    use serde_json::json;

    let Some((driver, ordinal)) = report.machine.driver else {
        return Err("the kernels run on a card: --device cuda:N".to_owned());
    };
    let fault = FaultCell::default();
    let card = Card::open(driver, ordinal, fault.clone());
    let mut card = card.map_err(|error| error.to_string())?;
    for (name, check) in ALL.iter().filter(|(name, _)| name.contains(&args.only)) {
        let start = Instant::now();
        let mut failure = None;
        let mut num_seeds = 0;
        for seed in 0..args.seeds {
            if report.elapsed_s() >= args.time_limit_s {
                failure = Some(format!("not begun: {} s are over", args.time_limit_s));
                break;
            }
            if let Err(error) = check(&mut card, seed) {
                failure = Some(format!("seed {seed}: {error}"));
                break;
            }
            card.free_all();
            num_seeds += 1;
        }
        let seconds = start.elapsed().as_secs_f64();
        let note = failure
            .clone()
            .unwrap_or_else(|| format!("{num_seeds} seeds in {seconds:.1} s"));
        let more = json!({"seeds": num_seeds, "seconds": seconds});
        report.result(failure.is_none(), name, &note, more);
        if let Some(fault) = fault.get() {
            return Err(format!("the context is lost: {fault}"));
        }
        if failure.is_some() {
            card.free_all();
        }
    }
    Ok(())
}
