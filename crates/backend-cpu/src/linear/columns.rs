//! The output of a product, shared by the threads that fill its columns.
//!
//! Columns of a row-major matrix are not a slice, so disjointness is promised rather than checked.
//!
//! Invariant: the memory is exclusively borrowed for as long as a value lives.

use std::marker::PhantomData;

/// `[num_rows, stride]` floats, of which each thread writes columns of its own.
#[derive(Clone, Copy)]
pub(super) struct Columns<'a> {
    first: *mut f32,
    stride: usize,
    owner: PhantomData<&'a mut [f32]>,
}

// SAFETY: a pointer into an exclusively borrowed slice; each thread writes columns of its own.
unsafe impl Send for Columns<'_> {}
// SAFETY: as for `Send`.
unsafe impl Sync for Columns<'_> {}

impl<'a> Columns<'a> {
    /// All columns of `out`, whose rows are `stride` long.
    pub(super) fn new(out: &'a mut [f32], stride: usize) -> Self {
        Self {
            first: out.as_mut_ptr(),
            stride,
            owner: PhantomData,
        }
    }

    /// The columns from `column` on.
    pub(super) fn skip(self, column: usize) -> Self {
        Self {
            first: self.first.wrapping_add(column),
            ..self
        }
    }

    /// Stores `values` at columns `column..` of `row`.
    ///
    /// # Safety
    /// Those elements exist, and no other thread touches them.
    #[inline(always)]
    pub(super) unsafe fn store(self, row: usize, column: usize, values: &[f32]) {
        // SAFETY: the caller's promise.
        unsafe {
            let to = self.first.add(row * self.stride + column);
            std::ptr::copy_nonoverlapping(values.as_ptr(), to, values.len());
        }
    }
}
