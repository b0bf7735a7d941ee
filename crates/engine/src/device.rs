//! Which device an engine runs on.
//!
//! `auto` takes the first card that the kernels run on and falls back to the CPU with a warning;
//! `cuda:N` takes that card or ends the engine with the reason. A build without the feature `cuda`
//! knows the CPU alone.
//!
//! Invariant: the driver is looked for in the engine process only; the front never touches it.

#[cfg(feature = "cuda")]
use hotspare_batch::ExecutorError;

use crate::EngineError;

/// Whether this build can run on a card.
pub const HAS_CUDA: bool = cfg!(feature = "cuda");

/// Where the model goes.
pub(crate) enum Place {
    /// The processor.
    Cpu,
    /// A card, opened, and where it leaves the error that ends it.
    #[cfg(feature = "cuda")]
    Card(
        Box<hotspare_backend_cuda::card::Card>,
        hotspare_backend_cuda::card::FaultCell,
    ),
}

/// Finds the device that `--device NAME` means.
///
/// # Errors
/// A name without meaning; a card that was asked for and cannot be used.
pub(crate) fn find(name: &str) -> Result<Place, EngineError> {
    let unknown = || EngineError::Options(format!("--device {name}: there are {DEVICES}"));
    match name {
        "cpu" => Ok(Place::Cpu),
        "auto" => find_any(),
        _ => {
            let ordinal = name.strip_prefix("cuda:").and_then(|n| n.parse().ok());
            find_card(name, ordinal.ok_or_else(unknown)?)
        }
    }
}

/// The names, for messages.
const DEVICES: &str = if HAS_CUDA {
    "auto, cpu and cuda:N"
} else {
    "auto and cpu in this build, which has no CUDA backend"
};

#[cfg(not(feature = "cuda"))]
#[allow(clippy::unnecessary_wraps, reason = "as in the build with CUDA")]
fn find_any() -> Result<Place, EngineError> {
    Ok(Place::Cpu)
}

#[cfg(not(feature = "cuda"))]
fn find_card(name: &str, _ordinal: usize) -> Result<Place, EngineError> {
    Err(EngineError::Options(format!(
        "--device {name}: there are {DEVICES}"
    )))
}

#[cfg(feature = "cuda")]
fn find_any() -> Result<Place, EngineError> {
    use hotspare_backend_cuda::card::{CardError, Driver};

    let found = Driver::load().and_then(|driver| {
        let mut last = CardError::NoCard("none is visible".to_owned());
        for ordinal in 0..driver.num_cards()? {
            match open(driver, ordinal) {
                Ok(place) => return Ok(place),
                Err(error) => {
                    tracing::warn!(device = format!("cuda:{ordinal}"), "not used: {error}");
                    // A card that may work at the next try says more than one that never will.
                    if last.is_lasting() {
                        last = error;
                    }
                }
            }
        }
        Err(last)
    });
    match found {
        Ok(place) => Ok(place),
        Err(error) if error.is_lasting() => {
            tracing::warn!("no GPU can be used, the model runs on the CPU: {error}");
            Ok(Place::Cpu)
        }
        // A large model would be far too slow on the CPU, and its numbers others.
        Err(error) => Err(ExecutorError::Device(error.to_string()).into()),
    }
}

#[cfg(feature = "cuda")]
fn find_card(name: &str, ordinal: usize) -> Result<Place, EngineError> {
    let place = hotspare_backend_cuda::card::Driver::load();
    let place = place.and_then(|driver| open(driver, ordinal));
    place.map_err(|error| EngineError::Options(format!("--device {name}: {error}")))
}

#[cfg(feature = "cuda")]
fn open(
    driver: hotspare_backend_cuda::card::Driver,
    ordinal: usize,
) -> Result<Place, hotspare_backend_cuda::card::CardError> {
    use hotspare_backend_cuda::card::{Card, FaultCell};

    let fault = FaultCell::default();
    let card = Card::open(driver, ordinal, fault.clone())?;
    Ok(Place::Card(Box::new(card), fault))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_without_meaning_are_refused() {
        assert!(matches!(find("cpu"), Ok(Place::Cpu)));
        assert!(find("auto").is_ok());
        for name in ["cuda", "cuda:", "cuda:x", "cuda:-1", "tpu", ""] {
            let Err(error) = find(name) else {
                panic!("{name} was taken");
            };
            let error = error.to_string();
            assert!(error.contains("there are auto"), "{name}: {error}");
        }
    }

    #[test]
    fn a_card_that_is_not_there_is_an_error_with_its_name() {
        // No machine has so many; on one without a driver, or without the feature, that is said.
        let Err(error) = find("cuda:4096") else {
            panic!("it was found");
        };
        assert!(error.to_string().starts_with("--device cuda:4096: "));
        assert_eq!(error.exit_status(), crate::EXIT_CANNOT_START);
    }
}
