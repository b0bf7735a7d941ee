//! Number arrays that start at a page and cost no memory until they are touched.
//!
//! Zeroed pages come from the system untouched; a KV pool sized for the worst case is therefore
//! resident only as far as it was used. Large pages are asked for: attention walks through far more
//! memory than small pages' translations cover.
//!
//! Invariant: the array's length never changes, and its first element is 64-byte aligned.

use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};

use bytemuck::Pod;
use memmap2::MmapMut;

use hotspare_model::ops::OpsError;

/// A zeroed `[T]` of fixed length.
#[derive(Debug)]
pub(crate) struct AlignedArray<T> {
    pages: MmapMut,
    len: usize,
    elements: PhantomData<T>,
}

impl<T: Pod> AlignedArray<T> {
    /// Zeroed elements.
    ///
    /// # Errors
    /// [`OpsError::OutOfMemory`] where the system refuses.
    pub(crate) fn zeroed(what: &'static str, len: usize) -> Result<Self, OpsError> {
        let refused = |reason: String| OpsError::OutOfMemory {
            what,
            needed_bytes: len.saturating_mul(size_of::<T>()),
            reason,
        };
        let num_bytes = len
            .checked_mul(size_of::<T>())
            .filter(|&num_bytes| isize::try_from(num_bytes).is_ok())
            .ok_or_else(|| refused("more than the address space".to_owned()))?;
        let pages = MmapMut::map_anon(num_bytes.max(1)).map_err(|e| refused(e.to_string()))?;
        // A kernel without large pages is only slower.
        #[cfg(target_os = "linux")]
        let _ = pages.advise(memmap2::Advice::HugePage);
        Ok(Self {
            pages,
            len,
            elements: PhantomData,
        })
    }
}

impl<T: Pod> Deref for AlignedArray<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        bytemuck::cast_slice(&self.pages[..self.len * size_of::<T>()])
    }
}

impl<T: Pod> DerefMut for AlignedArray<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        bytemuck::cast_slice_mut(&mut self.pages[..self.len * size_of::<T>()])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_aligned_zeroed_and_of_the_length_asked_for() {
        for len in [0, 1, 15, 4096, 1 << 20] {
            let floats = AlignedArray::<f32>::zeroed("a test", len).expect("small");
            assert_eq!(floats.len(), len);
            assert_eq!(floats.as_ptr().addr() % 64, 0);
            assert!(floats.iter().all(|&x| x == 0.0));
        }
    }

    #[test]
    fn an_impossible_size_is_an_error() {
        for len in [usize::MAX, usize::MAX / 4, isize::MAX as usize / 4] {
            let result = AlignedArray::<f32>::zeroed("a test", len);
            assert!(matches!(
                result,
                Err(OpsError::OutOfMemory { what: "a test", .. })
            ));
        }
    }
}
