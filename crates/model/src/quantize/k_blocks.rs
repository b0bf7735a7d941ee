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
/// Parts of `Q2_K`, `Q3_K` and `Q6_K`, of 16 elements.
const NUM_SMALL: usize = 16;
/// Parts of `Q4_K` and `Q5_K`, of 32 elements.
const NUM_LARGE: usize = 8;

/// Scales of a block of `N` parts of `L` elements with scale and minimum.
#[derive(Clone, Copy)]
struct AffineBlock<const N: usize, const L: usize> {
    scale: f16,
    min: f16,
    /// Scale and minimum of each part, from 0 to `top_scale`.
    parts: [(f32, f32); N],
    /// The largest scale and minimum of a part, in steps of the block's.
    top_scale: f32,
}

impl<const N: usize, const L: usize> AffineBlock<N, L> {
    fn part(&self, part: usize) -> Affine {
        let (scale, min) = self.parts[part];
        Affine {
            scale: self.scale.to_f32() * scale,
            min: self.min.to_f32() * min,
        }
    }

    fn error(&self, x: &[[f32; L]], top: f32) -> f32 {
        let errors = (0..N).map(|part| affine_error(&x[part], self.part(part), top));
        errors.sum()
    }

    /// The scales of `x` for codes from 0 to `top`.
    fn search(x: &[[f32; L]], top: f32, top_scale: f32) -> Self {
        let mut wanted = [Affine::default(); N];
        for part in 0..N {
            wanted[part] = affine_scale(&x[part], top);
        }
        let largest = |of: fn(&Affine) -> f32| wanted.iter().map(of).fold(0.0, f32::max);
        let scale = f16::from_f32(largest(|part| part.scale) / top_scale);
        let min = f16::from_f32(largest(|part| part.min) / top_scale);
        let mut block = Self {
            scale,
            min,
            parts: wanted.map(|part| {
                let scale = steps(part.scale, scale, top_scale);
                (scale, steps(part.min, min, top_scale))
            }),
            top_scale,
        };
        block.settle(x, top);
        let fitted = block.fitted(x, top);
        if fitted.error(x, top) < block.error(x, top) {
            block = fitted;
        }
        block
    }

    /// Moves each part to the best of its neighbours on the grid.
    fn settle(&mut self, x: &[[f32; L]], top: f32) {
        for part in 0..N {
            let (scale, min) = self.parts[part];
            let mut best = (self.parts[part], f32::INFINITY);
            for ds in [0.0, -1.0, 1.0] {
                for dm in [0.0, -1.0, 1.0] {
                    let moved = (scale + ds, min + dm);
                    let is_on_grid = |steps: f32| (0.0..=self.top_scale).contains(&steps);
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
    fn fitted(&self, x: &[[f32; L]], top: f32) -> Self {
        // Each element is scale * a - min * b: sums of squares and products.
        let (mut aa, mut ab, mut bb, mut xa, mut xb) = (0.0, 0.0, 0.0, 0.0, 0.0);
        for part in 0..N {
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
            ..*self
        }
    }

    /// The codes of each part.
    fn codes(&self, x: &[[f32; L]], top: f32) -> [[u8; L]; N] {
        let codes = |part: usize| affine_codes(&x[part], self.part(part), top).map(|x| x as u8);
        std::array::from_fn(codes)
    }
}

impl AffineBlock<NUM_LARGE, 32> {
    /// Scales, minimums and codes of each part; the header goes to `out`.
    fn finish(&self, x: &[[f32; 32]], top: f32, out: &mut [u8]) -> [[u8; 32]; NUM_LARGE] {
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
        self.codes(x, top)
    }
}

/// `value` in whole steps of `step`, at most `top`.
fn steps(value: f32, step: f16, top: f32) -> f32 {
    let step = step.to_f32();
    if step > 0.0 {
        nearest((value / step).min(top))
    } else {
        0.0
    }
}

/// Two bits; scales and minimums of 16.
pub(super) fn q2_k(values: &[f32; LEN], out: &mut [u8; 84]) {
    let x = values.as_chunks().0;
    let block: AffineBlock<NUM_SMALL, 16> = AffineBlock::search(x, 3.0, 15.0);
    for (out, (scale, min)) in out[..16].iter_mut().zip(block.parts) {
        *out = scale as u8 | (min as u8) << 4;
    }
    let codes = block.codes(x, 3.0);
    put_pairs_of_bits(&mut out[16..80], |part, l| codes[part][l]);
    put_half(out, 80, block.scale);
    put_half(out, 82, block.min);
}

/// Three bits; signed scales of 16.
pub(super) fn q3_k(values: &[f32; LEN], out: &mut [u8; 110]) {
    const TYPE: SignedType = SignedType {
        code: (-4.0, 3.0),
        scale: (-32.0, 31.0),
    };
    let x: &[[f32; 16]] = values.as_chunks().0;
    let (step, parts) = TYPE.search(x);
    out.fill(0);
    put_half(out, 108, step);
    for (part, scale) in parts.iter().enumerate() {
        let scale = (scale - TYPE.scale.0) as u8;
        out[96 + part % 8] |= (scale & 15) << (part / 8 * 4);
        out[104 + part % 4] |= (scale >> 4) << (part / 4 * 2);
    }
    let codes = TYPE.codes(x, step, &parts);
    put_pairs_of_bits(&mut out[32..96], |part, l| codes[part][l] & 3);
    for (part, codes) in codes.iter().enumerate() {
        for (l, code) in codes.iter().enumerate() {
            out[part % 2 * 16 + l] |= (code >> 2) << (part / 2);
        }
    }
}

/// Writes two bits of each element: four parts of 32 share the bytes of a half block.
fn put_pairs_of_bits(out: &mut [u8], code: impl Fn(usize, usize) -> u8) {
    out.fill(0);
    for part in 0..NUM_SMALL {
        let (half, quarter) = (part / 8, part / 2 % 4);
        for l in 0..16 {
            out[32 * half + part % 2 * 16 + l] |= code(part, l) << (2 * quarter);
        }
    }
}

/// Four bits; scales and minimums of 32.
pub(super) fn q4_k(values: &[f32; LEN], out: &mut [u8; 144]) {
    let x = values.as_chunks().0;
    let codes = AffineBlock::search(x, 15.0, 63.0).finish(x, 15.0, out);
    for (pair, out) in out[16..].chunks_exact_mut(32).enumerate() {
        for (l, out) in out.iter_mut().enumerate() {
            *out = codes[2 * pair][l] | codes[2 * pair + 1][l] << 4;
        }
    }
}

/// Five bits; scales and minimums of 32.
pub(super) fn q5_k(values: &[f32; LEN], out: &mut [u8; 176]) {
    let x = values.as_chunks().0;
    let codes = AffineBlock::search(x, 31.0, 63.0).finish(x, 31.0, out);
    let (high, low) = out[16..].split_at_mut(32);
    for (l, high) in high.iter_mut().enumerate() {
        *high = (0..NUM_LARGE).fold(0, |bits, part| bits | (codes[part][l] >> 4) << part);
    }
    for (pair, out) in low.chunks_exact_mut(32).enumerate() {
        for (l, out) in out.iter_mut().enumerate() {
            *out = (codes[2 * pair][l] & 15) | (codes[2 * pair + 1][l] & 15) << 4;
        }
    }
}

/// Six bits; signed scales of 16.
pub(super) fn q6_k(values: &[f32; LEN], out: &mut [u8; 210]) {
    const TYPE: SignedType = SignedType {
        code: (-32.0, 31.0),
        scale: (-128.0, 127.0),
    };
    let x: &[[f32; 16]] = values.as_chunks().0;
    let (step, parts) = TYPE.search(x);
    out.fill(0);
    put_half(out, 208, step);
    for (half, codes) in TYPE.codes(x, step, &parts).iter().enumerate() {
        out[192 + half] = parts[half] as i8 as u8;
        // A quarter of a half block: 32 elements that share bytes with three others.
        let (big, quarter) = (half / 8, half / 2 % 4);
        for (l, code) in codes.iter().enumerate() {
            let at = half % 2 * 16 + l;
            out[64 * big + quarter % 2 * 32 + at] |= (code & 15) << (quarter / 2 * 4);
            out[128 + 32 * big + at] |= (code >> 4) << (2 * quarter);
        }
    }
}

/// A type whose parts have a signed scale and no minimum: lowest and highest code, and scale.
struct SignedType {
    code: (f32, f32),
    scale: (f32, f32),
}

impl SignedType {
    /// The block's step and the parts' scales in it.
    fn search(&self, x: &[[f32; 16]]) -> (f16, [f32; NUM_SMALL]) {
        let mut scales = [0.0f32; NUM_SMALL];
        for (scale, x) in scales.iter_mut().zip(x) {
            *scale = symmetric_scale(x, self.code.0, self.code.1);
        }
        let farther = |peak: f32, &x: &f32| if x.abs() > peak.abs() { x } else { peak };
        let step = f16::from_f32(scales.iter().fold(0.0, farther) / self.scale.0);
        if step.to_f32() == 0.0 {
            // Nothing that a half could scale.
            return (f16::ZERO, [0.0; NUM_SMALL]);
        }
        let (low, high) = self.scale;
        let mut parts = scales.map(|scale| nearest((scale / step.to_f32()).clamp(low, high)));
        self.settle(x, step, &mut parts);
        let fitted = self.fitted(x, step, &parts);
        let error = |step: f16| -> f32 {
            let of_part = |part: usize| self.error(&x[part], step.to_f32() * parts[part]);
            (0..NUM_SMALL).map(of_part).sum()
        };
        match error(fitted) < error(step) {
            true => (fitted, parts),
            false => (step, parts),
        }
    }

    fn error(&self, x: &[f32; 16], scale: f32) -> f32 {
        symmetric_error(x, scale, self.code.0, self.code.1)
    }

    /// Moves each part's scale to the best of its neighbours.
    fn settle(&self, x: &[[f32; 16]], step: f16, parts: &mut [f32; NUM_SMALL]) {
        for (part, x) in parts.iter_mut().zip(x) {
            let mut best = (*part, f32::INFINITY);
            for moved in [*part, *part - 1.0, *part + 1.0] {
                if !(self.scale.0..=self.scale.1).contains(&moved) {
                    continue;
                }
                let error = self.error(x, step.to_f32() * moved);
                if error < best.1 {
                    best = (moved, error);
                }
            }
            *part = best.0;
        }
    }

    /// The common step that fits the codes best.
    fn fitted(&self, x: &[[f32; 16]], step: f16, parts: &[f32; NUM_SMALL]) -> f16 {
        let (mut xa, mut aa) = (0.0, 0.0);
        for (part, x) in parts.iter().zip(x) {
            let codes = symmetric_codes(x, step.to_f32() * part, self.code.0, self.code.1);
            for (&x, code) in x.iter().zip(codes) {
                let a = part * code;
                xa += x * a;
                aa += a * a;
            }
        }
        match aa > 0.0 {
            true => f16::from_f32(xa / aa),
            false => step,
        }
    }

    /// The codes of each part, counted from the lowest one.
    fn codes(&self, x: &[[f32; 16]], step: f16, parts: &[f32; NUM_SMALL]) -> [[u8; 16]; NUM_SMALL] {
        std::array::from_fn(|part| {
            let scale = step.to_f32() * parts[part];
            let codes = symmetric_codes(&x[part], scale, self.code.0, self.code.1);
            codes.map(|code| (code - self.code.0) as u8)
        })
    }
}
