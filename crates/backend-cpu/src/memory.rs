//! Float arrays that start at a cache line and cost no memory until they are touched.
//!
//! Zeroed pages come from the system untouched; a KV pool sized for the worst case is therefore
//! resident only as far as it was used.
//!
//! Invariant: the array's length never changes, and its first element is 64-byte aligned.

use std::ops::{Deref, DerefMut};

use hotspare_model::ops::OpsError;

const LINE_BYTES: usize = 64;

/// A zeroed `[f32]` of fixed length.
#[derive(Debug)]
pub(crate) struct AlignedFloats {
    /// With room for the alignment; boxed, so that it never moves.
    storage: Box<[f32]>,
    start: usize,
    len: usize,
}

impl AlignedFloats {
    /// Zeroed floats.
    ///
    /// # Errors
    /// [`OpsError::OutOfMemory`] where the allocator refuses.
    pub(crate) fn zeroed(what: &'static str, len: usize) -> Result<Self, OpsError> {
        let slack = LINE_BYTES / size_of::<f32>();
        let storage = len
            .checked_add(slack)
            .and_then(|len| bytemuck::try_zeroed_slice_box::<f32>(len).ok())
            .ok_or_else(|| OpsError::OutOfMemory {
                what,
                needed_bytes: len.saturating_mul(size_of::<f32>()),
                reason: "the allocator refused".to_owned(),
            })?;
        let start = storage.as_ptr().align_offset(LINE_BYTES).min(slack);
        Ok(Self {
            storage,
            start,
            len,
        })
    }
}

impl Deref for AlignedFloats {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        &self.storage[self.start..self.start + self.len]
    }
}

impl DerefMut for AlignedFloats {
    fn deref_mut(&mut self) -> &mut [f32] {
        &mut self.storage[self.start..self.start + self.len]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_aligned_zeroed_and_of_the_length_asked_for() {
        for len in [0, 1, 15, 4096, 1 << 20] {
            let floats = AlignedFloats::zeroed("a test", len).expect("small");
            assert_eq!(floats.len(), len);
            assert_eq!(floats.as_ptr().addr() % LINE_BYTES, 0);
            assert!(floats.iter().all(|&x| x == 0.0));
        }
    }

    #[test]
    fn an_impossible_size_is_an_error() {
        for len in [usize::MAX, usize::MAX / 4, isize::MAX as usize / 4] {
            let result = AlignedFloats::zeroed("a test", len);
            assert!(matches!(
                result,
                Err(OpsError::OutOfMemory { what: "a test", .. })
            ));
        }
    }
}
