//! The formats with blocks of 32 elements.
//!
//! Invariant: as [`super::format`]'s.
// Indices say which bit of which byte an element is made of, as the format's definition does.
#![allow(clippy::needless_range_loop)]

use super::format::{Minimum, PackedFormat, Piece, Rows};
use super::int_simd::IntSimd;
use crate::linear::blocks::{Q4_0, Q4_1, Q5_0, Q5_1, Q8_0};

impl PackedFormat for Q8_0 {
    const BYTES: usize = 34;
    const IS_SIGNED: bool = true;

    #[inline(always)]
    unsafe fn unpack<T: IntSimd>(t: T, rows: Rows, at: usize, piece: &mut Piece<T>) {
        // SAFETY: 2 + 16 + 16 bytes are 34.
        unsafe {
            piece.scales[at][0] = rows.halves(t, 0);
            for half in 0..2 {
                let words = rows.columns(t, 2 + 16 * half);
                for i in 0..4 {
                    piece.words[at][4 * half + i] = t.signed(words[i]);
                }
            }
        }
    }
}

impl PackedFormat for Q4_0 {
    const BYTES: usize = 18;
    const OFFSET: i32 = 8;

    #[inline(always)]
    unsafe fn unpack<T: IntSimd>(t: T, rows: Rows, at: usize, piece: &mut Piece<T>) {
        // SAFETY: 2 + 16 bytes are 18.
        unsafe {
            piece.scales[at][0] = rows.halves(t, 0);
            let words = rows.columns(t, 2);
            nibbles(t, &words, &mut piece.words[at]);
        }
    }
}

impl PackedFormat for Q4_1 {
    const BYTES: usize = 20;
    const MINIMUM: Minimum = Minimum::Block;

    #[inline(always)]
    unsafe fn unpack<T: IntSimd>(t: T, rows: Rows, at: usize, piece: &mut Piece<T>) {
        // SAFETY: 4 + 16 bytes are 20.
        unsafe {
            let halves = rows.words(t, 0);
            piece.scales[at][0] = t.low_half(halves);
            piece.minimums[at] = t.high_half(halves);
            let words = rows.columns(t, 4);
            nibbles(t, &words, &mut piece.words[at]);
        }
    }
}

impl PackedFormat for Q5_0 {
    const BYTES: usize = 22;
    const OFFSET: i32 = 16;

    #[inline(always)]
    unsafe fn unpack<T: IntSimd>(t: T, rows: Rows, at: usize, piece: &mut Piece<T>) {
        // SAFETY: 2 + 4 + 16 bytes are 22.
        unsafe {
            piece.scales[at][0] = rows.halves(t, 0);
            let high = rows.words(t, 2);
            let words = rows.columns(t, 6);
            nibbles(t, &words, &mut piece.words[at]);
            fifth_bits(t, high, &mut piece.words[at]);
        }
    }
}

impl PackedFormat for Q5_1 {
    const BYTES: usize = 24;
    const MINIMUM: Minimum = Minimum::Block;

    #[inline(always)]
    unsafe fn unpack<T: IntSimd>(t: T, rows: Rows, at: usize, piece: &mut Piece<T>) {
        // SAFETY: 4 + 4 + 16 bytes are 24.
        unsafe {
            let halves = rows.words(t, 0);
            piece.scales[at][0] = t.low_half(halves);
            piece.minimums[at] = t.high_half(halves);
            let high = rows.words(t, 4);
            let words = rows.columns(t, 8);
            nibbles(t, &words, &mut piece.words[at]);
            fifth_bits(t, high, &mut piece.words[at]);
        }
    }
}

/// Low nibbles of sixteen bytes, then their high nibbles.
#[inline(always)]
fn nibbles<T: IntSimd>(t: T, from: &[T::I; 4], to: &mut [T::I; 8]) {
    for i in 0..4 {
        to[i] = t.bits(from[i], 0, 0x0F);
        to[i + 4] = t.bits(from[i], 4, 0x0F);
    }
}

/// Adds bit `j` of `high` to byte `j` as its fifth bit.
#[inline(always)]
fn fifth_bits<T: IntSimd>(t: T, high: T::I, to: &mut [T::I; 8]) {
    for i in 0..8 {
        let four = t.and(t.shr(high, 4 * i as u32), t.splat(0x0F));
        // Bit j goes to bit 8 * j; copies 7 apart put it there, and elsewhere.
        let two = t.or(four, t.shl(four, 7));
        let spread = t.bits(t.or(two, t.shl(two, 14)), 0, 0x01);
        to[i] = t.or(to[i], t.shl(spread, 4));
    }
}
