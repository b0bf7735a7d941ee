//! What the driver's errors mean: the request's fault, or the end of the context.
//!
//! After some errors every later call fails too and nothing on the card can be trusted: an address
//! that is no memory, an uncorrectable bit, a hang. Kernels run behind the host, so the one that is
//! named is the last that was queued when the error was seen, and a captured step is one; with
//! `CUDA_LAUNCH_BLOCKING=1` and without graphs it is the very one.
//!
//! Invariant: the first such error is kept; what follows it is its echo.

use std::fmt;
use std::sync::{Arc, OnceLock};

use cudarc::driver::result::DriverError;
use cudarc::driver::sys::cudaError_enum as CudaError;

/// Why a context ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CardFault {
    /// The driver's name and text of the error.
    pub error: String,
    /// The last kernel that was queued.
    pub kernel: String,
    /// The card: "GPU-…".
    pub gpu_uuid: String,
}

impl fmt::Display for CardFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            error,
            kernel,
            gpu_uuid,
        } = self;
        write!(f, "{error} at or before kernel {kernel} on {gpu_uuid}")
    }
}

/// Where a card leaves the error that ended it, for whoever decides how the process ends.
#[derive(Clone, Debug, Default)]
pub struct FaultCell(Arc<OnceLock<CardFault>>);

impl FaultCell {
    /// The error, if there was one.
    pub fn get(&self) -> Option<&CardFault> {
        self.0.get()
    }

    /// Keeps the first, and logs it.
    pub(super) fn set(&self, fault: CardFault) {
        if self.0.set(fault.clone()).is_ok() {
            tracing::error!(
                error = fault.error,
                kernel = fault.kernel,
                gpu_uuid = fault.gpu_uuid,
                "the CUDA context is lost"
            );
        }
    }
}

/// "CUDA_ERROR_ILLEGAL_ADDRESS: an illegal memory access was encountered".
pub(super) fn name_of(error: DriverError) -> String {
    let text = |text: Result<&std::ffi::CStr, DriverError>| {
        text.map_or_else(
            |_| format!("error {}", error.0 as u32),
            |text| text.to_string_lossy().into_owned(),
        )
    };
    format!(
        "{}: {}",
        text(error.error_name()),
        text(error.error_string())
    )
}

/// Whether nothing works after it but a new process.
pub(super) fn is_sticky(error: CudaError) -> bool {
    use CudaError::{
        CUDA_ERROR_ASSERT, CUDA_ERROR_CONTAINED, CUDA_ERROR_CONTEXT_IS_DESTROYED,
        CUDA_ERROR_DEVICE_UNAVAILABLE, CUDA_ERROR_ECC_UNCORRECTABLE, CUDA_ERROR_EXTERNAL_DEVICE,
        CUDA_ERROR_HARDWARE_STACK_ERROR, CUDA_ERROR_ILLEGAL_ADDRESS,
        CUDA_ERROR_ILLEGAL_INSTRUCTION, CUDA_ERROR_INVALID_ADDRESS_SPACE, CUDA_ERROR_INVALID_PC,
        CUDA_ERROR_LAUNCH_FAILED, CUDA_ERROR_LAUNCH_TIMEOUT, CUDA_ERROR_MISALIGNED_ADDRESS,
        CUDA_ERROR_NVLINK_UNCORRECTABLE, CUDA_ERROR_TENSOR_MEMORY_LEAK, CUDA_ERROR_UNKNOWN,
    };
    matches!(
        error,
        CUDA_ERROR_ASSERT
            | CUDA_ERROR_CONTAINED
            | CUDA_ERROR_CONTEXT_IS_DESTROYED
            | CUDA_ERROR_DEVICE_UNAVAILABLE
            | CUDA_ERROR_ECC_UNCORRECTABLE
            | CUDA_ERROR_EXTERNAL_DEVICE
            | CUDA_ERROR_HARDWARE_STACK_ERROR
            | CUDA_ERROR_ILLEGAL_ADDRESS
            | CUDA_ERROR_ILLEGAL_INSTRUCTION
            | CUDA_ERROR_INVALID_ADDRESS_SPACE
            | CUDA_ERROR_INVALID_PC
            | CUDA_ERROR_LAUNCH_FAILED
            | CUDA_ERROR_LAUNCH_TIMEOUT
            | CUDA_ERROR_MISALIGNED_ADDRESS
            | CUDA_ERROR_NVLINK_UNCORRECTABLE
            | CUDA_ERROR_TENSOR_MEMORY_LEAK
            | CUDA_ERROR_UNKNOWN
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_fault_is_kept() {
        let fault = |error: &str| CardFault {
            error: error.to_owned(),
            kernel: "linear_tile_bf16".to_owned(),
            gpu_uuid: "GPU-1".to_owned(),
        };
        let cell = FaultCell::default();
        assert!(cell.get().is_none());
        cell.clone().set(fault("first"));
        cell.set(fault("echo"));
        let text = cell.get().unwrap().to_string();
        assert_eq!(text, "first at or before kernel linear_tile_bf16 on GPU-1");
    }

    #[test]
    fn running_out_of_memory_is_no_end_of_the_context() {
        assert!(is_sticky(CudaError::CUDA_ERROR_ILLEGAL_ADDRESS));
        assert!(is_sticky(CudaError::CUDA_ERROR_ECC_UNCORRECTABLE));
        for error in [
            CudaError::CUDA_ERROR_OUT_OF_MEMORY,
            CudaError::CUDA_ERROR_NOT_READY,
            CudaError::CUDA_ERROR_INVALID_VALUE,
            CudaError::CUDA_ERROR_NOT_FOUND,
        ] {
            assert!(!is_sticky(error), "{error:?}");
        }
    }
}
