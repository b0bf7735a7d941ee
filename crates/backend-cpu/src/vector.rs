//! A norm's weights, widened to f32 at load.
//!
//! Invariant: as long as the view it was made of has elements.

use std::ops::Deref;

use half::{bf16, f16};

use hotspare_model::ops::OpsError;
use hotspare_model::weights::{WeightDtype, WeightView};

/// A vector of weights, `[width]`, f32.
#[derive(Debug)]
pub struct CpuVector(Box<[f32]>);

impl CpuVector {
    /// Widens `view`.
    ///
    /// # Errors
    /// [`OpsError::Unsupported`] where it is not a vector, or empty.
    pub(crate) fn new(view: &WeightView) -> Result<Self, OpsError> {
        if view.shape().len() != 1 || view.shape()[0] == 0 {
            return Err(OpsError::Unsupported {
                backend: "cpu",
                what: format!("a norm of shape {:?}", view.shape()),
            });
        }
        let bytes = view.bytes();
        let halves = || bytes.as_chunks::<2>().0.iter();
        let widened: Vec<f32> = match view.dtype() {
            WeightDtype::F32 => bytes
                .as_chunks::<4>()
                .0
                .iter()
                .map(|&b| f32::from_le_bytes(b))
                .collect(),
            WeightDtype::F16 => halves().map(|&b| f16::from_le_bytes(b).to_f32()).collect(),
            WeightDtype::Bf16 => halves().map(|&b| bf16::from_le_bytes(b).to_f32()).collect(),
            dtype => {
                return Err(OpsError::Unsupported {
                    backend: "cpu",
                    what: format!("a norm in {}", dtype.name()),
                });
            }
        };
        Ok(Self(widened.into_boxed_slice()))
    }
}

impl Deref for CpuVector {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        &self.0
    }
}
