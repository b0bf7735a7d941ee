//! Memory of a backend: allocations by name, and what is left for the KV cache.
//!
//! Invariant: an allocation that fails says what it was for, what it needs, what is free and which
//! options help.

use hotspare_model::ops::OpsError;

use crate::{Address, Device, LaunchError};

/// What helps where weights do not fit.
pub(super) const FOR_WEIGHTS: &str =
    "a smaller model, or one with fewer bits a weight, needs less; see what else uses the card";
/// What helps where buffers do not fit.
pub(super) const FOR_BUFFERS: &str =
    "a smaller --max-num-batched-tokens, --max-num-seqs or --max-model-len needs less";

/// Memory of `num_bytes` for `what`; `advice` is part of the error.
pub(super) fn alloc<D: Device>(
    device: &mut D,
    what: &'static str,
    num_bytes: usize,
    advice: &str,
) -> Result<Address, OpsError> {
    // No device has allocations of nothing.
    let allocated = device.alloc(num_bytes.max(16));
    allocated.map_err(|error| match error {
        LaunchError::OutOfMemory {
            needed_bytes,
            reason,
        } => OpsError::OutOfMemory {
            what,
            needed_bytes,
            reason: format!("{reason}; {}; {advice}", free(device)),
        },
        error => device_error(&error),
    })
}

/// What is free, in words.
fn free<D: Device>(device: &D) -> String {
    match device.memory() {
        Ok(memory) => format!(
            "{} of {} bytes of {} are free",
            memory.free_bytes,
            memory.total_bytes,
            device.description()
        ),
        Err(error) => format!(
            "{} does not say what is free: {error}",
            device.description()
        ),
    }
}

/// A failure of the device.
pub(super) fn device_error(error: &LaunchError) -> OpsError {
    OpsError::Device(error.to_string())
}

/// What this backend has no kernel for.
pub(super) fn unsupported(what: String) -> OpsError {
    OpsError::Unsupported {
        backend: "cuda",
        what,
    }
}

/// `a * b * ...` bytes, or an error where that is more than there are addresses.
pub(super) fn product(what: &'static str, factors: &[usize]) -> Result<usize, OpsError> {
    let all = factors
        .iter()
        .try_fold(1usize, |all, &x| all.checked_mul(x));
    all.ok_or_else(|| OpsError::OutOfMemory {
        what,
        needed_bytes: usize::MAX,
        reason: "the size has no meaning".to_owned(),
    })
}
