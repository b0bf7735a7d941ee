//! A norm's weights or a bias, widened to f32 at load.
//!
//! Invariant: as long as the views it was made of have elements.

use std::ops::Deref;

use half::{bf16, f16};

use hotspare_model::ops::OpsError;
use hotspare_model::weights::{WeightDtype, WeightView};

/// A vector of weights, `[width]`, f32.
#[derive(Debug)]
pub struct CpuVector(Box<[f32]>);

impl CpuVector {
    /// Widens `parts`, one after the other, and adds `offset` to each element.
    ///
    /// # Errors
    /// [`OpsError::Unsupported`] where one is not a vector, or empty.
    pub(crate) fn new(parts: &[WeightView], offset: f32) -> Result<Self, OpsError> {
        let mut widened = Vec::new();
        for view in parts {
            if view.shape().len() != 1 || view.shape()[0] == 0 {
                return Err(OpsError::Unsupported {
                    backend: "cpu",
                    what: format!("a norm or bias of shape {:?}", view.shape()),
                });
            }
            let bytes = view.bytes();
            let halves = || bytes.as_chunks::<2>().0.iter();
            match view.dtype() {
                WeightDtype::F32 => {
                    let words = bytes.as_chunks::<4>().0.iter();
                    widened.extend(words.map(|&b| f32::from_le_bytes(b)));
                }
                WeightDtype::F16 => {
                    widened.extend(halves().map(|&b| f16::from_le_bytes(b).to_f32()));
                }
                WeightDtype::Bf16 => {
                    widened.extend(halves().map(|&b| bf16::from_le_bytes(b).to_f32()));
                }
                dtype => {
                    return Err(OpsError::Unsupported {
                        backend: "cpu",
                        what: format!("a norm or bias in {}", dtype.name()),
                    });
                }
            }
        }
        widened.iter_mut().for_each(|x| *x += offset);
        Ok(Self(widened.into_boxed_slice()))
    }
}

impl Deref for CpuVector {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        &self.0
    }
}
