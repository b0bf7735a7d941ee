//! What the kernel has to know of a quantized format, and a piece of sixteen weight rows as it
//! wants it.
//!
//! Every format is brought into one form: unsigned bytes, a scale for each 16 or 32 of them, an
//! offset that all bytes have in common, and perhaps a minimum.
//!
//! Invariant: an element is (byte - offset) * scale + minimum, with the floats of
//! [`crate::linear::blocks`] but for the rounding of that expression.

use super::int_simd::{FloatsOf, IntSimd};
use crate::simd::{LANES, Simd};

/// Elements for which activations have a scale.
pub(super) const BLOCK: usize = 32;
/// Blocks of a piece.
pub(super) const PIECE_BLOCKS: usize = 8;
/// Four-byte words of a block.
pub(super) const BLOCK_WORDS: usize = BLOCK / 4;

/// A quantized format.
pub(super) trait PackedFormat {
    /// Bytes of [`PackedFormat::BLOCKS`] blocks of one row.
    const BYTES: usize;
    /// Blocks that are unpacked together: the elements that share the format's outermost scale.
    const BLOCKS: usize = 1;
    /// Scales of a block: 1 or 2.
    const NUM_SCALES: usize = 1;
    /// What was added to elements so that bytes are unsigned.
    const OFFSET: i32 = 0;
    /// Whether bytes are of the form of [`IntSimd::signed`]; the offset is then that form's.
    const IS_SIGNED: bool = false;
    /// What minimums there are.
    const MINIMUM: Minimum = Minimum::None;

    /// Unpacks blocks `at..at + BLOCKS` of a piece from sixteen rows.
    ///
    /// # Safety
    /// `BYTES` bytes at `rows.row(i)` are readable for each `i` below 16.
    unsafe fn unpack<T: IntSimd>(t: T, rows: Rows, at: usize, piece: &mut Piece<T>);
}

/// The minimums of a format.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Minimum {
    /// Zero.
    None,
    /// One a block.
    Block,
    /// Two integers a block, to be multiplied by a float.
    Halves,
}

/// Where the bytes of sixteen rows are.
#[derive(Clone, Copy)]
pub(super) struct Rows {
    pub(super) first: *const u8,
    /// Bytes from one row to the next.
    pub(super) stride: usize,
    /// Where to prefetch: bytes that will be needed when as many as now have been used. Each load
    /// asks for its share, because a processor that has many to wait for waits at once.
    pub(super) ahead: *const u8,
}

impl Rows {
    /// The same rows, `bytes` further on.
    #[inline(always)]
    pub(super) fn skip(self, bytes: usize) -> Self {
        Self {
            first: self.first.wrapping_add(bytes),
            ahead: self.ahead.wrapping_add(LANES * bytes),
            ..self
        }
    }

    /// Asks for what follows `bytes` bytes of each row from byte `at` on.
    #[inline(always)]
    fn prefetch<T: IntSimd>(self, t: T, at: usize, bytes: usize) {
        let ahead = self.ahead.wrapping_add(LANES * at);
        for line in 0..(LANES * bytes).div_ceil(64) {
            t.floats().prefetch_far(ahead.wrapping_add(64 * line));
        }
    }

    /// [`IntSimd::load_columns`] from byte `at` on.
    ///
    /// # Safety
    /// As there.
    #[inline(always)]
    pub(super) unsafe fn columns<T: IntSimd>(self, t: T, at: usize) -> [T::I; 4] {
        self.prefetch(t, at, 16);
        // SAFETY: the caller's promise.
        unsafe { t.load_columns(self.first.wrapping_add(at), self.stride) }
    }

    /// [`IntSimd::load_words`] from byte `at` on.
    ///
    /// # Safety
    /// As there.
    #[inline(always)]
    pub(super) unsafe fn words<T: IntSimd>(self, t: T, at: usize) -> T::I {
        self.prefetch(t, at, 4);
        // SAFETY: the caller's promise.
        unsafe { t.load_words(self.first.wrapping_add(at), self.stride) }
    }

    /// [`IntSimd::load_halves`] from byte `at` on.
    ///
    /// # Safety
    /// As there.
    #[inline(always)]
    pub(super) unsafe fn halves<T: IntSimd>(self, t: T, at: usize) -> FloatsOf<T> {
        self.prefetch(t, at, 2);
        // SAFETY: the caller's promise.
        unsafe { t.load_halves(self.first.wrapping_add(at), self.stride) }
    }
}

/// Unpacked blocks; a lane is a weight row.
pub(super) struct Piece<T: IntSimd> {
    /// The bytes of each block, four of each row at a time.
    pub(super) words: [[T::I; BLOCK_WORDS]; PIECE_BLOCKS],
    /// Scales of both halves, or of the block.
    pub(super) scales: [[FloatsOf<T>; 2]; PIECE_BLOCKS],
    /// Minimums, or their float factor.
    pub(super) minimums: [FloatsOf<T>; PIECE_BLOCKS],
    /// Integer minimums of both halves, 16 bits each.
    pub(super) half_minimums: [T::I; PIECE_BLOCKS],
}

impl<T: IntSimd> Piece<T> {
    #[inline(always)]
    pub(super) fn new(t: T) -> Self {
        let (zero, float_zero) = (t.splat(0), t.floats().splat(0.0));
        Self {
            words: [[zero; BLOCK_WORDS]; PIECE_BLOCKS],
            scales: [[float_zero; 2]; PIECE_BLOCKS],
            minimums: [float_zero; PIECE_BLOCKS],
            half_minimums: [zero; PIECE_BLOCKS],
        }
    }
}
