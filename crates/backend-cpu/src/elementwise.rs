//! Norms and activations: operations in which a row needs nothing but itself.
//!
//! Invariant: a row's bits depend on that row alone; sums over a row use sixteen lanes and one
//! tree.

use crate::simd::{LANES, Simd, isa_entry};

/// Rows of a norm.
pub(crate) struct NormRows<'a> {
    /// What is normalised, or what is added to `residual` first.
    pub(crate) x: &'a [f32],
    pub(crate) weight: &'a [f32],
    pub(crate) eps: f32,
}

isa_entry! {
    /// `out = rms_norm(x) * weight`, row by row.
    pub(crate) fn rms_norm(args: &NormRows<'_>, out: &mut [f32]) = rms_norm_rows
}

isa_entry! {
    /// `residual += x; out = rms_norm(residual) * weight`, row by row.
    pub(crate) fn add_rms_norm(args: &NormRows<'_>, residual: &mut [f32], out: &mut [f32]) =
        add_rms_norm_rows
}

isa_entry! {
    /// `out = silu(gate) * up`; a row of `gate_up` is gate, then up, each `width` wide.
    pub(crate) fn silu_mul(gate_up: &[f32], width: usize, out: &mut [f32]) = silu_mul_rows
}

#[inline(always)]
fn rms_norm_rows<S: Simd>(s: S, args: &NormRows<'_>, out: &mut [f32]) {
    let width = args.weight.len();
    for (x, out) in args.x.chunks_exact(width).zip(out.chunks_exact_mut(width)) {
        normalise(s, x, args.weight, args.eps, out);
    }
}

#[inline(always)]
fn add_rms_norm_rows<S: Simd>(s: S, args: &NormRows<'_>, residual: &mut [f32], out: &mut [f32]) {
    let width = args.weight.len();
    let rows = args
        .x
        .chunks_exact(width)
        .zip(residual.chunks_exact_mut(width));
    for ((x, residual), out) in rows.zip(out.chunks_exact_mut(width)) {
        let (x, x_tail) = x.as_chunks::<LANES>();
        let (sums, sums_tail) = residual.as_chunks_mut::<LANES>();
        for (x, sum) in x.iter().zip(sums) {
            let v = s.add(s.load(x), s.load(sum));
            s.store(sum, v);
        }
        for (x, sum) in x_tail.iter().zip(sums_tail) {
            *sum += x;
        }
        normalise(s, residual, args.weight, args.eps, out);
    }
}

#[inline(always)]
fn normalise<S: Simd>(s: S, x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) {
    let (chunks, tail) = x.as_chunks::<LANES>();
    let mut squares = s.splat(0.0);
    for chunk in chunks {
        let v = s.load(chunk);
        squares = s.fma(v, v, squares);
    }
    if !tail.is_empty() {
        let v = s.load_partial(tail);
        squares = s.fma(v, v, squares);
    }
    let mean = s.sum(squares) / x.len() as f32;
    let scale = s.splat(1.0 / (mean + eps).sqrt());
    let (weights, weight_tail) = weight.as_chunks::<LANES>();
    let (outs, out_tail) = out.as_chunks_mut::<LANES>();
    for ((chunk, w), out) in chunks.iter().zip(weights).zip(outs) {
        let v = s.mul(s.mul(s.load(chunk), scale), s.load(w));
        s.store(out, v);
    }
    if !tail.is_empty() {
        let v = s.mul(
            s.mul(s.load_partial(tail), scale),
            s.load_partial(weight_tail),
        );
        s.store_partial(out_tail, v);
    }
}

#[inline(always)]
fn silu_mul_rows<S: Simd>(s: S, gate_up: &[f32], width: usize, out: &mut [f32]) {
    for (row, out) in gate_up
        .chunks_exact(2 * width)
        .zip(out.chunks_exact_mut(width))
    {
        let (gate, up) = row.split_at(width);
        let (gates, gate_tail) = gate.as_chunks::<LANES>();
        let (ups, up_tail) = up.as_chunks::<LANES>();
        let (outs, out_tail) = out.as_chunks_mut::<LANES>();
        for ((gate, up), out) in gates.iter().zip(ups).zip(outs) {
            let v = s.mul(s.silu(s.load(gate)), s.load(up));
            s.store(out, v);
        }
        if !gate_tail.is_empty() {
            let v = s.mul(s.silu(s.load_partial(gate_tail)), s.load_partial(up_tail));
            s.store_partial(out_tail, v);
        }
    }
}
