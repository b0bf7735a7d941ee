//! Quantized blocks, as ggml lays them out, and the exact floats they stand for.
//!
//! Plain loops of fixed length, inlined into kernels and compiled for each instruction set there.
//! Scales are multiplied in the order of ggml's own reference code, one rounding an operation, so
//! that every instruction set (and candle) gets the same floats.
//!
//! Invariant: a block's floats are a function of its bytes.
// Indices say which bit of which byte an element is made of, as the format's definition does.
#![allow(clippy::needless_range_loop)]

use hotspare_model::weights::WeightDtype;

/// Elements of a k-quant's block.
const SUPER: usize = 256;

/// A quantized format.
pub(super) trait BlockFormat {
    /// The format's name elsewhere.
    const DTYPE: WeightDtype;

    /// The floats of one block: `block` and `out` have the lengths that `DTYPE` says.
    fn expand(block: &[u8], out: &mut [f32]);

    /// The floats of whole blocks.
    #[inline(always)]
    fn expand_all(bytes: &[u8], out: &mut [f32]) {
        let blocks = bytes.chunks_exact(Self::DTYPE.block_bytes());
        for (block, out) in blocks.zip(out.chunks_exact_mut(Self::DTYPE.block_len())) {
            Self::expand(block, out);
        }
    }
}

/// Expands whole blocks of `dtype`; a dense dtype has none.
pub(super) fn expand(dtype: WeightDtype, bytes: &[u8], out: &mut [f32]) {
    match dtype {
        WeightDtype::F32 | WeightDtype::F16 | WeightDtype::Bf16 => {}
        WeightDtype::Q4_0 => Q4_0::expand_all(bytes, out),
        WeightDtype::Q4_1 => Q4_1::expand_all(bytes, out),
        WeightDtype::Q5_0 => Q5_0::expand_all(bytes, out),
        WeightDtype::Q5_1 => Q5_1::expand_all(bytes, out),
        WeightDtype::Q8_0 => Q8_0::expand_all(bytes, out),
        WeightDtype::Q2K => Q2K::expand_all(bytes, out),
        WeightDtype::Q3K => Q3K::expand_all(bytes, out),
        WeightDtype::Q4K => Q4K::expand_all(bytes, out),
        WeightDtype::Q5K => Q5K::expand_all(bytes, out),
        WeightDtype::Q6K => Q6K::expand_all(bytes, out),
    }
}

/// The half float at `at`, widened; exact. Written out, because it has to be inlined.
#[inline(always)]
fn half_at(block: &[u8], at: usize) -> f32 {
    widen_half(u16::from_le_bytes([block[at], block[at + 1]]))
}

#[inline(always)]
pub(super) fn widen_half(bits: u16) -> f32 {
    let bits = u32::from(bits);
    let (sign, rest) = ((bits & 0x8000) << 16, (bits & 0x7FFF) << 13);
    // The exponent's bias differs by 112; the product is exact for subnormals too.
    let magnitude = f32::from_bits(rest) * f32::from_bits((127 + 112) << 23);
    let is_finite = bits & 0x7C00 != 0x7C00;
    let magnitude = if is_finite {
        magnitude.to_bits()
    } else {
        rest | 0x7F80_0000
    };
    f32::from_bits(sign | magnitude)
}

macro_rules! formats {
    ($($(#[$meta:meta])* $name:ident => |$block:ident, $out:ident| $body:block)*) => {$(
        $(#[$meta])*
        pub(super) struct $name;

        impl BlockFormat for $name {
            const DTYPE: WeightDtype = WeightDtype::$name;

            #[inline(always)]
            fn expand(block: &[u8], out: &mut [f32]) {
                // One check of the lengths, so that the loops have none.
                const LEN: usize = WeightDtype::$name.block_len();
                const BYTES: usize = WeightDtype::$name.block_bytes();
                let (Some($block), Some($out)) =
                    (block.first_chunk::<BYTES>(), out.first_chunk_mut::<LEN>())
                else {
                    return;
                };
                $body
            }
        }
    )*};
}

formats! {
    /// Half scale, 16 bytes of low and high nibbles.
    Q4_0 => |block, out| {
        let d = half_at(block, 0);
        for j in 0..16 {
            let q = block[2 + j];
            out[j] = (i32::from(q & 15) - 8) as f32 * d;
            out[j + 16] = (i32::from(q >> 4) - 8) as f32 * d;
        }
    }

    /// Half scale and minimum, 16 bytes of nibbles.
    Q4_1 => |block, out| {
        let (d, m) = (half_at(block, 0), half_at(block, 2));
        for j in 0..16 {
            let q = block[4 + j];
            out[j] = f32::from(q & 15) * d + m;
            out[j + 16] = f32::from(q >> 4) * d + m;
        }
    }

    /// Half scale, 32 fifth bits, 16 bytes of nibbles.
    Q5_0 => |block, out| {
        let d = half_at(block, 0);
        let high = u32::from_le_bytes([block[2], block[3], block[4], block[5]]);
        for j in 0..16 {
            let q = u32::from(block[6 + j]);
            let first = (q & 15) | ((high >> j) & 1) << 4;
            let second = (q >> 4) | ((high >> (j + 16)) & 1) << 4;
            out[j] = (first as i32 - 16) as f32 * d;
            out[j + 16] = (second as i32 - 16) as f32 * d;
        }
    }

    /// Half scale and minimum, 32 fifth bits, 16 bytes of nibbles.
    Q5_1 => |block, out| {
        let (d, m) = (half_at(block, 0), half_at(block, 2));
        let high = u32::from_le_bytes([block[4], block[5], block[6], block[7]]);
        for j in 0..16 {
            let q = u32::from(block[8 + j]);
            let first = (q & 15) | ((high >> j) & 1) << 4;
            let second = (q >> 4) | ((high >> (j + 16)) & 1) << 4;
            out[j] = first as f32 * d + m;
            out[j + 16] = second as f32 * d + m;
        }
    }

    /// Half scale, 32 signed bytes.
    Q8_0 => |block, out| {
        let d = half_at(block, 0);
        for j in 0..32 {
            out[j] = f32::from(block[2 + j] as i8) * d;
        }
    }

    /// 16 bytes of scale and minimum, 64 bytes of four elements, half scales of both.
    Q2K => |block, out| {
        let (d, min) = (half_at(block, 80), half_at(block, 82));
        for part in 0..SUPER / 32 {
            // A quarter's two bits of 32 bytes; two scales.
            let (bytes, shift) = (16 + part / 4 * 32, part % 4 * 2);
            for half in 0..2 {
                let scale = block[2 * part + half];
                let (dl, ml) = (d * f32::from(scale & 15), min * f32::from(scale >> 4));
                for l in 0..16 {
                    let q = (block[bytes + 16 * half + l] >> shift) & 3;
                    out[32 * part + 16 * half + l] = dl * f32::from(q) - ml;
                }
            }
        }
    }

    /// 32 bytes of third bits, 64 bytes of four elements, 12 bytes of scales, half scale.
    Q3K => |block, out| {
        let d = half_at(block, 108);
        for part in 0..SUPER / 32 {
            let (bytes, shift) = (32 + part / 4 * 32, part % 4 * 2);
            for half in 0..2 {
                // Scale i: four low bits in byte i mod 8, two high bits in byte 8 + i mod 4.
                let i = 2 * part + half;
                let low = (block[96 + i % 8] >> (i / 8 * 4)) & 15;
                let high = (block[104 + i % 4] >> (i / 4 * 2)) & 3;
                let dl = d * (i32::from(low | high << 4) - 32) as f32;
                for l in 0..16 {
                    let at = 16 * half + l;
                    let q = i32::from((block[bytes + at] >> shift) & 3);
                    let top = i32::from((block[at] >> part) & 1) * 4;
                    out[32 * part + at] = dl * (q + top - 4) as f32;
                }
            }
        }
    }

    /// Half scales of scales and minimums, 12 bytes of both, 128 bytes of nibbles.
    Q4K => |block, out| {
        let (d, min) = (half_at(block, 0), half_at(block, 2));
        for pair in 0..SUPER / 64 {
            let [(s1, m1), (s2, m2)] = scale_pair(block, pair);
            let (d1, m1, d2, m2) = (d * s1, min * m1, d * s2, min * m2);
            for l in 0..32 {
                let q = block[16 + 32 * pair + l];
                out[64 * pair + l] = d1 * f32::from(q & 15) - m1;
                out[64 * pair + 32 + l] = d2 * f32::from(q >> 4) - m2;
            }
        }
    }

    /// As `Q4K`, with 32 bytes of fifth bits before the nibbles.
    Q5K => |block, out| {
        let (d, min) = (half_at(block, 0), half_at(block, 2));
        for pair in 0..SUPER / 64 {
            let [(s1, m1), (s2, m2)] = scale_pair(block, pair);
            let (d1, m1, d2, m2) = (d * s1, min * m1, d * s2, min * m2);
            for l in 0..32 {
                let (q, high) = (block[48 + 32 * pair + l], block[16 + l] >> (2 * pair));
                out[64 * pair + l] = d1 * f32::from((q & 15) | (high & 1) << 4) - m1;
                out[64 * pair + 32 + l] = d2 * f32::from((q >> 4) | (high & 2) << 3) - m2;
            }
        }
    }

    /// 128 bytes of nibbles, 64 bytes of four elements' high bits, 16 signed scales, half scale.
    Q6K => |block, out| {
        let d = half_at(block, 208);
        for part in 0..SUPER / 32 {
            let (big, quarter) = (part / 4, part % 4);
            let low = 64 * big + quarter % 2 * 32;
            for half in 0..2 {
                let dl = d * f32::from(block[192 + 2 * part + half] as i8);
                for l in 0..16 {
                    let at = 16 * half + l;
                    let nibble = (block[low + at] >> (quarter / 2 * 4)) & 15;
                    let high = (block[128 + 32 * big + at] >> (2 * quarter)) & 3;
                    out[32 * part + at] = dl * (i32::from(nibble | high << 4) - 32) as f32;
                }
            }
        }
    }
}

/// Scales and minimums of 32-element parts `2 * pair` and `2 * pair + 1` of a `Q4K` or `Q5K` block,
/// six bits each, in bytes 4 to 16.
#[inline(always)]
fn scale_pair(block: &[u8], pair: usize) -> [(f32, f32); 2] {
    [2 * pair, 2 * pair + 1].map(|j| {
        let s = &block[4..16];
        let (scale, min) = if j < 4 {
            (s[j] & 63, s[j + 4] & 63)
        } else {
            (
                (s[j + 4] & 15) | (s[j - 4] >> 6) << 4,
                (s[j + 4] >> 4) | (s[j] >> 6) << 4,
            )
        };
        (f32::from(scale), f32::from(min))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_are_widened_exactly() {
        for bits in 0..=u16::MAX {
            let (ours, theirs) = (widen_half(bits), half::f16::from_bits(bits).to_f32());
            let same = ours.to_bits() == theirs.to_bits() || (ours.is_nan() && theirs.is_nan());
            assert!(same, "{bits:04x}: {ours} {theirs}");
        }
    }

    #[test]
    fn a_block_by_hand() {
        // Scale 0.5; elements 0 and 16 are the nibbles of the first byte, less eight.
        let mut block = vec![0x88; 18];
        block[..2].copy_from_slice(&half::f16::from_f32(0.5).to_le_bytes());
        block[2] = 0xF1;
        let mut out = [1.0; 32];
        expand(WeightDtype::Q4_0, &block, &mut out);
        assert_eq!((out[0], out[16], out[1], out[31]), (-3.5, 3.5, 0.0, 0.0));
    }
}
