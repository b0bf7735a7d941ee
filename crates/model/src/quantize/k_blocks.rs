//! Encoders of the k-quants: 256 elements, whose parts have scales that are themselves integers of
//! a common scale.
//!
//! Each part's best scale is searched for by itself, the scales are rounded to the block's grid,
//! and then what was rounded is made good: every part takes the neighbouring grid point with the
//! smallest error, and the common scale is fitted once more to all codes.
//!
//! Invariant: codes are the nearest ones under the scales as they are stored.
// Indices say which part of the block an element is in, as the format's definition does.
#![allow(clippy::needless_range_loop)]

use half::f16;

use super::blocks::put_half;
use super::scales::{
    Affine, affine_codes, affine_error, affine_scale, nearest, symmetric_codes, symmetric_error,
    symmetric_scale,
};

/// Elements of a block.
const LEN: usize = 256;
/// Parts of `Q4_K` and `Q5_K`, of 32 elements.
const NUM_PARTS: usize = 8;
/// Largest scale and minimum of a part, in steps of the block's.
const TOP_SCALE: f32 = 63.0;
/// Codes of `Q6_K`.
const LOW: f32 = -32.0;
const HIGH: f32 = 31.0;

/// Scales of a block of eight parts of scale and minimum.
#[derive(Clone, Copy)]
struct AffineBlock {
    scale: f16,
    min: f16,
    /// Scale and minimum of each part, from 0 to 63.
    parts: [(f32, f32); NUM_PARTS],
}

impl AffineBlock {
    fn part(&self, part: usize) -> Affine {
        let (scale, min) = self.parts[part];
        Affine {
            scale: self.scale.to_f32() * scale,
            min: self.min.to_f32() * min,
        }
    }

    fn error(&self, x: &[[f32; 32]], top: f32) -> f32 {
        let errors = (0..NUM_PARTS).map(|part| affine_error(&x[part], self.part(part), top));
        errors.sum()
    }

    /// The scales of `x` for codes from 0 to `top`.
    fn search(x: &[[f32; 32]], top: f32) -> Self {
        let mut wanted = [Affine::default(); NUM_PARTS];
        for part in 0..NUM_PARTS {
            wanted[part] = affine_scale(&x[part], top);
        }
        let largest = |of: fn(&Affine) -> f32| wanted.iter().map(of).fold(0.0, f32::max);
        let scale = f16::from_f32(largest(|part| part.scale) / TOP_SCALE);
        let min = f16::from_f32(largest(|part| part.min) / TOP_SCALE);
        let mut block = Self {
            scale,
            min,
            parts: wanted.map(|part| (steps(part.scale, scale), steps(part.min, min))),
        };
        block.settle(x, top);
        let fitted = block.fitted(x, top);
        if fitted.error(x, top) < block.error(x, top) {
            block = fitted;
        }
        block
    }

    /// Moves each part to the best of its neighbours on the grid.
    fn settle(&mut self, x: &[[f32; 32]], top: f32) {
        for part in 0..NUM_PARTS {
            let (scale, min) = self.parts[part];
            let mut best = (self.parts[part], f32::INFINITY);
            for ds in [0.0, -1.0, 1.0] {
                for dm in [0.0, -1.0, 1.0] {
                    let moved = (scale + ds, min + dm);
                    let is_on_grid = |steps: f32| (0.0..=TOP_SCALE).contains(&steps);
                    if !is_on_grid(moved.0) || !is_on_grid(moved.1) {
                        continue;
                    }
                    self.parts[part] = moved;
                    let error = affine_error(&x[part], self.part(part), top);
                    if error < best.1 {
                        best = (moved, error);
                    }
                }
            }
            self.parts[part] = best.0;
        }
    }

    /// The same parts with the common scales that fit their codes best.
    fn fitted(&self, x: &[[f32; 32]], top: f32) -> Self {
        // Each element is scale * a - min * b: sums of squares and products.
        let (mut aa, mut ab, mut bb, mut xa, mut xb) = (0.0, 0.0, 0.0, 0.0, 0.0);
        for part in 0..NUM_PARTS {
            let codes = affine_codes(&x[part], self.part(part), top);
            let (scale, b) = self.parts[part];
            for (&x, code) in x[part].iter().zip(codes) {
                let a = scale * code;
                aa += a * a;
                ab += a * b;
                bb += b * b;
                xa += x * a;
                xb += x * b;
            }
        }
        let determinant = aa * bb - ab * ab;
        let (scale, min) = if determinant > 1e-6 * aa * bb {
            (
                (xa * bb - xb * ab) / determinant,
                (xa * ab - xb * aa) / determinant,
            )
        } else if aa > 0.0 && bb == 0.0 {
            (xa / aa, 0.0)
        } else {
            return *self;
        };
        if scale <= 0.0 || min < 0.0 {
            return *self;
        }
        Self {
            scale: f16::from_f32(scale),
            min: f16::from_f32(min),
            parts: self.parts,
        }
    }

    /// Scales, minimums and codes of each part; the header goes to `out`.
    fn finish(&self, x: &[[f32; 32]], top: f32, out: &mut [u8]) -> [[u8; 32]; NUM_PARTS] {
        put_half(out, 0, self.scale);
        put_half(out, 2, self.min);
        let (scale, min) = (
            self.parts.map(|part| part.0 as u8),
            self.parts.map(|part| part.1 as u8),
        );
        // Six bits each: of the first four parts whole, of the others split.
        for i in 0..4 {
            out[4 + i] = scale[i] | (scale[i + 4] >> 4) << 6;
            out[8 + i] = min[i] | (min[i + 4] >> 4) << 6;
            out[12 + i] = (scale[i + 4] & 15) | (min[i + 4] & 15) << 4;
        }
        let codes = |part: usize| affine_codes(&x[part], self.part(part), top).map(|x| x as u8);
        std::array::from_fn(codes)
    }
}

/// `value` in whole steps of `step`, at most 63.
fn steps(value: f32, step: f16) -> f32 {
    let step = step.to_f32();
    if step > 0.0 {
        nearest((value / step).min(TOP_SCALE))
    } else {
        0.0
    }
}

/// Four bits; scales and minimums of 32.
pub(super) fn q4_k(values: &[f32; LEN], out: &mut [u8; 144]) {
    let x = values.as_chunks().0;
    let codes = AffineBlock::search(x, 15.0).finish(x, 15.0, out);
    for (pair, out) in out[16..].chunks_exact_mut(32).enumerate() {
        for (l, out) in out.iter_mut().enumerate() {
            *out = codes[2 * pair][l] | codes[2 * pair + 1][l] << 4;
        }
    }
}

/// Five bits; scales and minimums of 32.
pub(super) fn q5_k(values: &[f32; LEN], out: &mut [u8; 176]) {
    let x = values.as_chunks().0;
    let codes = AffineBlock::search(x, 31.0).finish(x, 31.0, out);
    let (high, low) = out[16..].split_at_mut(32);
    for (l, high) in high.iter_mut().enumerate() {
        *high = (0..NUM_PARTS).fold(0, |bits, part| bits | (codes[part][l] >> 4) << part);
    }
    for (pair, out) in low.chunks_exact_mut(32).enumerate() {
        for (l, out) in out.iter_mut().enumerate() {
            *out = (codes[2 * pair][l] & 15) | (codes[2 * pair + 1][l] & 15) << 4;
        }
    }
}

/// Six bits; signed scales of 16.
pub(super) fn q6_k(values: &[f32; LEN], out: &mut [u8; 210]) {
    let x: &[[f32; 16]] = values.as_chunks().0;
    let mut scales = [0.0f32; 16];
    for (scale, x) in scales.iter_mut().zip(x) {
        *scale = symmetric_scale(x, LOW, HIGH);
    }
    let farther = |peak: f32, &x: &f32| if x.abs() > peak.abs() { x } else { peak };
    let step = f16::from_f32(scales.iter().fold(0.0, farther) / -128.0);
    if step.to_f32() == 0.0 {
        // Nothing that a half could scale.
        out.fill(0);
        out[..128].fill(0);
        out[128..192].fill(0xAA);
        return;
    }
    let grid = |scale: f32, step: f16| nearest((scale / step.to_f32()).clamp(-128.0, 127.0));
    let mut parts = scales.map(|scale| grid(scale, step));
    settle_signed(x, step, &mut parts);
    let fitted = fit_signed(x, step, &parts);
    let error = |step: f16| -> f32 {
        let of_part = |part: usize| {
            let scale = step.to_f32() * parts[part];
            symmetric_error(&x[part], scale, LOW, HIGH)
        };
        (0..16).map(of_part).sum()
    };
    let step = if error(fitted) < error(step) {
        fitted
    } else {
        step
    };
    put_half(out, 208, step);
    out[..192].fill(0);
    for half in 0..16 {
        out[192 + half] = parts[half] as i8 as u8;
        let scale = step.to_f32() * parts[half];
        let codes = symmetric_codes(&x[half], scale, LOW, HIGH);
        // A quarter of a half block: 32 elements that share bytes with three others.
        let (big, quarter) = (half / 8, half / 2 % 4);
        for (l, code) in codes.iter().enumerate() {
            let (at, code) = (half % 2 * 16 + l, (code - LOW) as u8);
            out[64 * big + quarter % 2 * 32 + at] |= (code & 15) << (quarter / 2 * 4);
            out[128 + 32 * big + at] |= (code >> 4) << (2 * quarter);
        }
    }
}

/// Moves each part's scale to the best of its neighbours.
fn settle_signed(x: &[[f32; 16]], step: f16, parts: &mut [f32; 16]) {
    for (part, x) in parts.iter_mut().zip(x) {
        let mut best = (*part, f32::INFINITY);
        for moved in [*part, *part - 1.0, *part + 1.0] {
            if !(-128.0..=127.0).contains(&moved) {
                continue;
            }
            let error = symmetric_error(x, step.to_f32() * moved, LOW, HIGH);
            if error < best.1 {
                best = (moved, error);
            }
        }
        *part = best.0;
    }
}

/// The common scale that fits the codes best.
fn fit_signed(x: &[[f32; 16]], step: f16, parts: &[f32; 16]) -> f16 {
    let (mut xa, mut aa) = (0.0, 0.0);
    for (part, x) in parts.iter().zip(x) {
        let codes = symmetric_codes(x, step.to_f32() * part, LOW, HIGH);
        for (&x, code) in x.iter().zip(codes) {
            let a = part * code;
            xa += x * a;
            aa += a * a;
        }
    }
    if aa > 0.0 {
        f16::from_f32(xa / aa)
    } else {
        step
    }
}
