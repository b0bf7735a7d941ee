//! The formats with blocks of 256 elements, whose scales are quantized in turn.
//!
//! Invariant: as [`super::format`]'s.
// Indices say which bit of which byte an element is made of, as the format's definition does.
#![allow(clippy::needless_range_loop)]

use super::format::{Minimum, PIECE_BLOCKS, PackedFormat, Piece, Rows};
use super::int_simd::{FloatsOf, IntSimd};
use crate::linear::blocks::{Q2K, Q3K, Q4K, Q5K, Q6K};
use crate::simd::Simd;

/// 32 bytes of each row from byte `at` on, transposed.
///
/// # Safety
/// They are readable.
#[inline(always)]
unsafe fn load_block<T: IntSimd>(t: T, rows: Rows, at: usize) -> [T::I; 8] {
    // SAFETY: the caller's promise.
    let (a, b) = unsafe { (rows.columns(t, at), rows.columns(t, at + 16)) };
    [a[0], a[1], a[2], a[3], b[0], b[1], b[2], b[3]]
}

/// Scales and minimums of a `Q4K` or `Q5K` block, from its first sixteen bytes.
///
/// # Safety
/// They are readable.
#[inline(always)]
unsafe fn scales_and_minimums<T: IntSimd>(t: T, rows: Rows, piece: &mut Piece<T>) {
    let s = t.floats();
    // SAFETY: the caller's promise.
    let [halves, a, b, c] = unsafe { rows.columns(t, 0) };
    let d = t.low_half(halves);
    let min = s.sub(s.splat(0.0), t.high_half(halves));
    let scales = [
        t.bits(a, 0, 0x3F),
        t.or(t.bits(c, 0, 0x0F), t.bits(a, 2, 0x30)),
    ];
    let minimums = [
        t.bits(b, 0, 0x3F),
        t.or(t.bits(c, 4, 0x0F), t.bits(b, 2, 0x30)),
    ];
    for block in 0..PIECE_BLOCKS {
        let byte = block as u32 % 4;
        let scale = t.to_float(t.byte(scales[block / 4], byte));
        piece.scales[block][0] = s.mul(d, scale);
        let minimum = t.to_float(t.byte(minimums[block / 4], byte));
        piece.minimums[block] = s.mul(min, minimum);
    }
}

impl PackedFormat for Q4K {
    const BYTES: usize = 144;
    const BLOCKS: usize = PIECE_BLOCKS;
    const MINIMUM: Minimum = Minimum::Block;

    #[inline(always)]
    unsafe fn unpack<T: IntSimd>(t: T, rows: Rows, _: usize, piece: &mut Piece<T>) {
        // SAFETY: 16 + 4 * 32 bytes are 144.
        unsafe {
            scales_and_minimums(t, rows, piece);
            for pair in 0..PIECE_BLOCKS / 2 {
                let words = load_block(t, rows, 16 + 32 * pair);
                for i in 0..8 {
                    piece.words[2 * pair][i] = t.bits(words[i], 0, 0x0F);
                    piece.words[2 * pair + 1][i] = t.bits(words[i], 4, 0x0F);
                }
            }
        }
    }
}

impl PackedFormat for Q5K {
    const BYTES: usize = 176;
    const BLOCKS: usize = PIECE_BLOCKS;
    const MINIMUM: Minimum = Minimum::Block;

    #[inline(always)]
    unsafe fn unpack<T: IntSimd>(t: T, rows: Rows, _: usize, piece: &mut Piece<T>) {
        // SAFETY: 16 + 32 + 4 * 32 bytes are 176.
        unsafe {
            scales_and_minimums(t, rows, piece);
            let high = load_block(t, rows, 16);
            for pair in 0..PIECE_BLOCKS / 2 {
                let words = load_block(t, rows, 48 + 32 * pair);
                for i in 0..8 {
                    let two = t.bits(high[i], 2 * pair as u32, 0x03);
                    let first = t.shl(t.bits(two, 0, 0x01), 4);
                    let second = t.shl(t.bits(two, 0, 0x02), 3);
                    piece.words[2 * pair][i] = t.or(t.bits(words[i], 0, 0x0F), first);
                    piece.words[2 * pair + 1][i] = t.or(t.bits(words[i], 4, 0x0F), second);
                }
            }
        }
    }
}

impl PackedFormat for Q6K {
    const BYTES: usize = 210;
    const BLOCKS: usize = PIECE_BLOCKS;
    const NUM_SCALES: usize = 2;
    const OFFSET: i32 = 32;

    #[inline(always)]
    unsafe fn unpack<T: IntSimd>(t: T, rows: Rows, _: usize, piece: &mut Piece<T>) {
        // SAFETY: 128 + 64 + 16 + 2 bytes are 210.
        unsafe {
            let d = rows.halves(t, 208);
            let scales = rows.columns(t, 192);
            for block in 0..PIECE_BLOCKS {
                for half in 0..2 {
                    let byte = t.signed_byte(scales[block / 2], (2 * block + half) as u32 % 4);
                    piece.scales[block][half] = scaled(t, d, byte);
                }
            }
            for big in 0..2 {
                let high = load_block(t, rows, 128 + 32 * big);
                for odd in 0..2 {
                    let low = load_block(t, rows, 64 * big + 32 * odd);
                    for i in 0..8 {
                        // Quarters `odd` and `odd + 2`: low nibbles, then high ones.
                        let first = t.shl(t.bits(high[i], 2 * odd as u32, 0x03), 4);
                        let second = t.bits(high[i], 2 * odd as u32, 0x30);
                        let words = &mut piece.words;
                        words[4 * big + odd][i] = t.or(t.bits(low[i], 0, 0x0F), first);
                        words[4 * big + odd + 2][i] = t.or(t.bits(low[i], 4, 0x0F), second);
                    }
                }
            }
        }
    }
}

impl PackedFormat for Q3K {
    const BYTES: usize = 110;
    const BLOCKS: usize = PIECE_BLOCKS;
    const NUM_SCALES: usize = 2;
    const OFFSET: i32 = 4;

    #[inline(always)]
    unsafe fn unpack<T: IntSimd>(t: T, rows: Rows, _: usize, piece: &mut Piece<T>) {
        // SAFETY: 32 + 64 + 12 + 2 bytes are 110; the scales are read from four bytes before them.
        unsafe {
            let d = rows.halves(t, 108);
            let [_, a, b, c] = rows.columns(t, 92);
            let scales = [
                t.or(t.bits(a, 0, 0x0F), t.shl(t.bits(c, 0, 0x03), 4)),
                t.or(t.bits(b, 0, 0x0F), t.shl(t.bits(c, 2, 0x03), 4)),
                t.or(t.bits(a, 4, 0x0F), t.bits(c, 0, 0x30)),
                t.or(t.bits(b, 4, 0x0F), t.bits(c, 2, 0x30)),
            ];
            for block in 0..PIECE_BLOCKS {
                for half in 0..2 {
                    let byte = t.byte(scales[block / 2], (2 * block + half) as u32 % 4);
                    piece.scales[block][half] = scaled(t, d, t.sub(byte, t.splat(32)));
                }
            }
            let high = load_block(t, rows, 0);
            for big in 0..2 {
                let low = load_block(t, rows, 32 + 32 * big);
                for quarter in 0..4 {
                    let block = 4 * big + quarter;
                    for i in 0..8 {
                        let third = t.shl(t.bits(high[i], block as u32, 0x01), 2);
                        let two = t.bits(low[i], 2 * quarter as u32, 0x03);
                        piece.words[block][i] = t.or(two, third);
                    }
                }
            }
        }
    }
}

impl PackedFormat for Q2K {
    const BYTES: usize = 84;
    const BLOCKS: usize = PIECE_BLOCKS;
    const NUM_SCALES: usize = 2;
    const MINIMUM: Minimum = Minimum::Halves;

    #[inline(always)]
    unsafe fn unpack<T: IntSimd>(t: T, rows: Rows, _: usize, piece: &mut Piece<T>) {
        let s = t.floats();
        // SAFETY: 16 + 64 + 4 bytes are 84.
        unsafe {
            let halves = rows.words(t, 80);
            let d = t.low_half(halves);
            let min = s.sub(s.splat(0.0), t.high_half(halves));
            let both = rows.columns(t, 0);
            for block in 0..PIECE_BLOCKS {
                let two = t.shr(both[block / 2], 16 * (block as u32 % 2));
                for half in 0..2 {
                    let scale = t.and(t.shr(two, 8 * half), t.splat(0x0F));
                    piece.scales[block][half as usize] = scaled(t, d, scale);
                }
                let first = t.and(t.shr(two, 4), t.splat(0x0F));
                let second = t.and(t.shl(two, 4), t.splat(0x0F_0000));
                piece.half_minimums[block] = t.or(first, second);
                piece.minimums[block] = min;
            }
            for big in 0..2 {
                let words = load_block(t, rows, 16 + 32 * big);
                for quarter in 0..4 {
                    for i in 0..8 {
                        let two = t.bits(words[i], 2 * quarter as u32, 0x03);
                        piece.words[4 * big + quarter][i] = two;
                    }
                }
            }
        }
    }
}

/// `d` times a small integer.
#[inline(always)]
fn scaled<T: IntSimd>(t: T, d: FloatsOf<T>, integer: T::I) -> FloatsOf<T> {
    t.floats().mul(d, t.to_float(integer))
}
