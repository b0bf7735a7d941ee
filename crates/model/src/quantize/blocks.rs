//! Encoders of the simple blocks: 32 elements, one scale, and in the `_1` types a minimum.
//!
//! They round as ggml's reference code does, so that a file quantized here is the file llama.cpp
//! would write: scales come from the element farthest from zero (or the range), codes from the
//! scale before it is rounded to a half.
//!
//! Invariant: a block's bytes are a function of its values.

use half::f16;

/// Elements of a simple block.
const LEN: usize = 32;

/// Encodes block after block. Lengths are whole blocks.
pub(super) fn encode_all<const LEN: usize, const BYTES: usize>(
    values: &[f32],
    out: &mut [u8],
    encode: impl Fn(&[f32; LEN], &mut [u8; BYTES]),
) {
    let blocks = values.as_chunks::<LEN>().0.iter();
    for (values, out) in blocks.zip(out.as_chunks_mut::<BYTES>().0) {
        encode(values, out);
    }
}

/// Writes a half at `at`.
#[inline]
pub(super) fn put_half(out: &mut [u8], at: usize, value: f16) {
    out[at..at + 2].copy_from_slice(&value.to_le_bytes());
}

/// To the nearest integer, halves away from zero: the largest number below a half is added, so that
/// it does not itself reach one.
#[inline]
fn round_away(x: f32) -> i8 {
    const BELOW_HALF: f32 = 0.499_999_97;
    (x + BELOW_HALF.copysign(x)) as i8
}

/// `1 / x`, zero for zero. Of a subnormal the quotient would be infinite: such a block is zero.
#[inline]
fn inverse(x: f32) -> f32 {
    if x.abs() >= f32::MIN_POSITIVE {
        1.0 / x
    } else {
        0.0
    }
}

/// The element farthest from zero, with its sign; of equals the first.
fn peak(values: &[f32; LEN]) -> f32 {
    let farther = |peak: f32, &x: &f32| if x.abs() > peak.abs() { x } else { peak };
    values.iter().fold(0.0, farther)
}

/// Smallest and largest element.
fn range(values: &[f32; LEN]) -> (f32, f32) {
    let mut ends = (f32::MAX, f32::MIN);
    for &x in values {
        ends = (ends.0.min(x), ends.1.max(x));
    }
    ends
}

/// Eight bits: 127 steps to the element farthest from zero.
pub(super) fn q8_0(values: &[f32; LEN], out: &mut [u8; 34]) {
    let scale = peak(values).abs() / 127.0;
    let inverse = inverse(scale);
    put_half(out, 0, f16::from_f32(scale));
    for (out, &x) in out[2..].iter_mut().zip(values) {
        *out = round_away(x * inverse) as u8;
    }
}

/// Codes of `BITS` bits around `1 << (BITS - 1)`: the farthest element is the lowest code.
fn symmetric<const BITS: u32>(values: &[f32; LEN]) -> (f16, [u8; LEN]) {
    let middle = (1 << (BITS - 1)) as f32;
    let scale = peak(values) / -middle;
    let inverse = inverse(scale);
    let code = |x: f32| ((x * inverse + (middle + 0.5)) as u8).min((1 << BITS) - 1);
    (f16::from_f32(scale), values.map(code))
}

/// Codes of `BITS` bits from the smallest element to the largest: scale, minimum, codes.
fn affine<const BITS: u32>(values: &[f32; LEN]) -> (f16, f16, [u8; LEN]) {
    let (low, high) = range(values);
    let top = ((1 << BITS) - 1) as f32;
    let scale = (high - low) / top;
    let inverse = inverse(scale);
    let code = |x: f32| (((x - low) * inverse + 0.5) as u8).min((1 << BITS) - 1);
    (f16::from_f32(scale), f16::from_f32(low), values.map(code))
}

/// Low nibbles of element `j` and `j + 16` in byte `j`.
fn put_nibbles(out: &mut [u8], codes: &[u8; LEN]) {
    let (first, second) = codes.split_at(LEN / 2);
    for (out, (a, b)) in out.iter_mut().zip(first.iter().zip(second)) {
        *out = (a & 15) | (b & 15) << 4;
    }
}

/// The fifth bit of each code.
fn fifth_bits(codes: &[u8; LEN]) -> [u8; 4] {
    let bits = codes.iter().enumerate();
    let bits = bits.fold(0u32, |bits, (j, &code)| bits | u32::from(code >> 4) << j);
    bits.to_le_bytes()
}

/// Four bits and a scale.
pub(super) fn q4_0(values: &[f32; LEN], out: &mut [u8; 18]) {
    let (scale, codes) = symmetric::<4>(values);
    put_half(out, 0, scale);
    put_nibbles(&mut out[2..], &codes);
}

/// Four bits, a scale and a minimum.
pub(super) fn q4_1(values: &[f32; LEN], out: &mut [u8; 20]) {
    let (scale, low, codes) = affine::<4>(values);
    put_half(out, 0, scale);
    put_half(out, 2, low);
    put_nibbles(&mut out[4..], &codes);
}

/// Five bits and a scale.
pub(super) fn q5_0(values: &[f32; LEN], out: &mut [u8; 22]) {
    let (scale, codes) = symmetric::<5>(values);
    put_half(out, 0, scale);
    out[2..6].copy_from_slice(&fifth_bits(&codes));
    put_nibbles(&mut out[6..], &codes);
}

/// Five bits, a scale and a minimum.
pub(super) fn q5_1(values: &[f32; LEN], out: &mut [u8; 24]) {
    let (scale, low, codes) = affine::<5>(values);
    put_half(out, 0, scale);
    put_half(out, 2, low);
    out[4..8].copy_from_slice(&fifth_bits(&codes));
    put_nibbles(&mut out[8..], &codes);
}
