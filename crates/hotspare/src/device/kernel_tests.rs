//! Each kernel on the card against the CPU's operation of the same name, and products of the card's
//! library, where it is found.
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
    use hotspare_backend_cuda::card::{Card, FaultCell};
    use hotspare_backend_cuda::checks::{ALL, dense_products};
    use hotspare_backend_cuda::{Device as _, Launcher as _};
    use serde_json::json;

    const LIBRARY: &str = "dense_products";

    let Some((driver, ordinal)) = report.machine.driver else {
        return Err("the kernels run on a card: --device cuda:N".to_owned());
    };
    let fault = FaultCell::default();
    let card = Card::open(driver, ordinal, fault.clone());
    let mut card = card.map_err(|error| error.to_string())?;
    for (name, check) in ALL.iter().filter(|(name, _)| name.contains(&args.only)) {
        seeds(args, report, name, &mut card, &mut |card, seed| {
            check(card, seed)
        });
        if let Some(fault) = fault.get() {
            return Err(format!("the context is lost: {fault}"));
        }
    }
    if LIBRARY.contains(&args.only) {
        let library = card.open_products().map(|name| name.unwrap_or_default());
        card.free_all();
        match library {
            // Nothing is wrong with a machine that has none.
            Err(reason) => {
                let note = format!("cuBLASLt not found: {reason}; not run");
                report.result(true, LIBRARY, &note, json!({"library": null}));
            }
            Ok(library) => {
                let name = format!("{LIBRARY} {library}");
                seeds(args, report, &name, &mut card, &mut |card, seed| {
                    // It was given back with the memory of the last seed.
                    card.open_products()?;
                    dense_products(card, seed)
                });
            }
        }
        if let Some(fault) = fault.get() {
            return Err(format!("the context is lost: {fault}"));
        }
    }
    Ok(())
}

/// A check on a card, with a seed.
#[cfg(feature = "cuda")]
type CardCheck<'a> = dyn FnMut(
        &mut hotspare_backend_cuda::card::Card,
        u64,
    ) -> Result<(), hotspare_backend_cuda::LaunchError>
    + 'a;

/// Runs one check with every seed.
#[cfg(feature = "cuda")]
fn seeds(
    args: &KernelTestsArgs,
    report: &mut Report,
    name: &str,
    card: &mut hotspare_backend_cuda::card::Card,
    check: &mut CardCheck<'_>,
) {
    use hotspare_backend_cuda::Launcher as _;

    let start = std::time::Instant::now();
    let mut failure = None;
    let mut num_seeds = 0;
    for seed in 0..args.seeds {
        if report.elapsed_s() >= args.time_limit_s {
            failure = Some(format!("not begun: {} s are over", args.time_limit_s));
            break;
        }
        if let Err(error) = check(card, seed) {
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
    let more = serde_json::json!({"seeds": num_seeds, "seconds": seconds});
    report.result(failure.is_none(), name, &note, more);
    if failure.is_some() {
        card.free_all();
    }
}
