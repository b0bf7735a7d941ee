//! Why there is no card to run on.
//!
//! Invariant: every message says what a person can do about it.

use cudarc::driver::result::DriverError;
use cudarc::driver::sys::CUresult;

use super::Capability;
use super::fault::name_of;

/// Why a card cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CardError {
    /// No libcuda.
    #[error(
        "the NVIDIA driver is not installed here: libcuda.so.1 was not found (in a container: \
         start it with `--gpus all`)"
    )]
    NoDriver,
    /// A driver of CUDA 12 or before.
    #[error(
        "the NVIDIA driver{} is too old: it offers CUDA {}.{}, and the kernels need CUDA 13 \
         (driver 580 or newer)", installed.as_deref().map(|v| format!(" {v}")).unwrap_or_default(),
        cuda_version / 1000, cuda_version % 1000 / 10
    )]
    OldDriver {
        /// 1000 times major plus 10 times minor.
        cuda_version: u32,
        /// As the kernel module says it: "570.124.06".
        installed: Option<String>,
    },
    /// The driver is there and finds no card.
    #[error("the NVIDIA driver finds no GPU: {0}")]
    NoCard(String),
    /// The number names no card.
    #[error("there is no cuda:{ordinal}: the driver finds {num_cards} GPU(s), counted from 0")]
    NoSuchCard {
        /// What was asked for.
        ordinal: usize,
        /// How many there are.
        num_cards: usize,
    },
    /// A card that the kernels do not run on.
    #[error(
        "{name} has compute capability {}.{}; the kernels need 8.0 or newer (RTX 30 and A100 on)",
        capability.major, capability.minor
    )]
    Unsupported {
        /// The card's name.
        name: String,
        /// What it has.
        capability: Capability,
    },
    /// Not even room for the driver's own part of a process.
    #[error(
        "{call}: the card has no memory left for another process, which takes some hundred MB \
         before any weight: nvidia-smi shows what uses it; a smaller --gpu-memory-utilization of \
         the others helps"
    )]
    NoMemory {
        /// The function.
        call: &'static str,
    },
    /// The driver refused.
    #[error("{call}: {error}")]
    Call {
        /// The function.
        call: &'static str,
        /// What it returned.
        error: String,
    },
}

impl CardError {
    pub(super) fn call(call: &'static str) -> impl FnOnce(DriverError) -> Self {
        move |error| match error.0 {
            CUresult::CUDA_ERROR_OUT_OF_MEMORY => Self::NoMemory { call },
            _ => Self::Call {
                call,
                error: name_of(error),
            },
        }
    }

    /// Whether another try finds the same: what is installed, not what happens just now.
    pub fn is_lasting(&self) -> bool {
        !matches!(self, Self::Call { .. } | Self::NoMemory { .. })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_say_what_to_do() {
        let old = CardError::OldDriver {
            cuda_version: 12_080,
            installed: Some("570.124.06".to_owned()),
        };
        let text = old.to_string();
        assert!(text.contains("570.124.06") && text.contains("CUDA 12.8") && text.contains("580"));
        let unsupported = CardError::Unsupported {
            name: "GeForce RTX 2080".to_owned(),
            capability: Capability::new(7, 5),
        };
        assert!(unsupported.to_string().contains("7.5"));
    }
}
