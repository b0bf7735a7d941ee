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

isa_entry! {
    /// As `silu_mul` with the tanh form of GELU.
    pub(crate) fn gelu_tanh_mul(gate_up: &[f32], width: usize, out: &mut [f32]) =
        gelu_tanh_mul_rows
}

isa_entry! {
    /// Adds `bias` to each row.
    pub(crate) fn add_bias(bias: &[f32], rows: &mut [f32]) = add_bias_rows
}

isa_entry! {
    /// `sum += x * factor`.
    pub(crate) fn add_scaled(x: &[f32], factor: f32, sum: &mut [f32]) = add_scaled_row
}

isa_entry! {
    /// `x = cap * tanh(x / cap)`.
    pub(crate) fn soft_cap(cap: f32, x: &mut [f32]) = soft_cap_all
}

/// Heads to normalise inside rows of q, k and v.
pub(crate) struct HeadNorm<'a> {
    pub(crate) num_heads: usize,
    pub(crate) num_kv_heads: usize,
    /// Floats of a row.
    pub(crate) width: usize,
    /// As wide as a head, like `k_weight`.
    pub(crate) q_weight: &'a [f32],
    pub(crate) k_weight: &'a [f32],
    pub(crate) eps: f32,
}

isa_entry! {
    /// Normalises each head of q and of k in place.
    pub(crate) fn head_rms_norm(args: &HeadNorm<'_>, rows: &mut [f32]) = head_rms_norm_rows
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

/// `1 / sqrt(mean(x * x) + eps)`.
#[inline(always)]
fn inverse_rms<S: Simd>(s: S, x: &[f32], eps: f32) -> f32 {
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
    1.0 / (mean + eps).sqrt()
}

#[inline(always)]
fn normalise<S: Simd>(s: S, x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) {
    let scale = s.splat(inverse_rms(s, x, eps));
    let (chunks, tail) = x.as_chunks::<LANES>();
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

/// An operation on two vectors. A trait and not a closure: only what is always inlined into an
/// entry point is compiled for its instruction set.
trait Pairwise: Copy {
    fn apply<S: Simd>(self, s: S, x: S::F, y: S::F) -> S::F;
}

/// `silu(x) * y`.
#[derive(Clone, Copy)]
struct SiluMul;

impl Pairwise for SiluMul {
    #[inline(always)]
    fn apply<S: Simd>(self, s: S, x: S::F, y: S::F) -> S::F {
        s.mul(s.silu(x), y)
    }
}

/// `gelu_tanh(x) * y`.
#[derive(Clone, Copy)]
struct GeluTanhMul;

impl Pairwise for GeluTanhMul {
    #[inline(always)]
    fn apply<S: Simd>(self, s: S, x: S::F, y: S::F) -> S::F {
        s.mul(s.gelu_tanh(x), y)
    }
}

/// `x + y * factor`, rounded once.
#[derive(Clone, Copy)]
struct AddScaled(f32);

impl Pairwise for AddScaled {
    #[inline(always)]
    fn apply<S: Simd>(self, s: S, x: S::F, y: S::F) -> S::F {
        s.fma(y, s.splat(self.0), x)
    }
}

/// `x * factor * y`.
#[derive(Clone, Copy)]
struct ScaledMul(f32);

impl Pairwise for ScaledMul {
    #[inline(always)]
    fn apply<S: Simd>(self, s: S, x: S::F, y: S::F) -> S::F {
        s.mul(s.mul(x, s.splat(self.0)), y)
    }
}

/// `x + y`.
#[derive(Clone, Copy)]
struct Add;

impl Pairwise for Add {
    #[inline(always)]
    fn apply<S: Simd>(self, s: S, x: S::F, y: S::F) -> S::F {
        s.add(x, y)
    }
}

#[inline(always)]
fn silu_mul_rows<S: Simd>(s: S, gate_up: &[f32], width: usize, out: &mut [f32]) {
    gated_rows(s, gate_up, width, out, SiluMul);
}

#[inline(always)]
fn gelu_tanh_mul_rows<S: Simd>(s: S, gate_up: &[f32], width: usize, out: &mut [f32]) {
    gated_rows(s, gate_up, width, out, GeluTanhMul);
}

#[inline(always)]
fn gated_rows<S: Simd>(s: S, gate_up: &[f32], width: usize, out: &mut [f32], op: impl Pairwise) {
    for (row, out) in gate_up
        .chunks_exact(2 * width)
        .zip(out.chunks_exact_mut(width))
    {
        let (gate, up) = row.split_at(width);
        let (gates, gate_tail) = gate.as_chunks::<LANES>();
        let (ups, up_tail) = up.as_chunks::<LANES>();
        let (outs, out_tail) = out.as_chunks_mut::<LANES>();
        for ((gate, up), out) in gates.iter().zip(ups).zip(outs) {
            s.store(out, op.apply(s, s.load(gate), s.load(up)));
        }
        if !gate_tail.is_empty() {
            let v = op.apply(s, s.load_partial(gate_tail), s.load_partial(up_tail));
            s.store_partial(out_tail, v);
        }
    }
}

/// Replaces each vector `x[i]` by what `op` makes of `x[i]` and `y[i]`; the slices are of one
/// length.
#[inline(always)]
fn combine<S: Simd>(s: S, x: &mut [f32], y: &[f32], op: impl Pairwise) {
    let (xs, x_tail) = x.as_chunks_mut::<LANES>();
    let (ys, y_tail) = y.as_chunks::<LANES>();
    for (x, y) in xs.iter_mut().zip(ys) {
        let v = op.apply(s, s.load(x), s.load(y));
        s.store(x, v);
    }
    if !x_tail.is_empty() {
        let v = op.apply(s, s.load_partial(x_tail), s.load_partial(y_tail));
        s.store_partial(x_tail, v);
    }
}

#[inline(always)]
fn add_bias_rows<S: Simd>(s: S, bias: &[f32], rows: &mut [f32]) {
    for row in rows.chunks_exact_mut(bias.len()) {
        combine(s, row, bias, Add);
    }
}

#[inline(always)]
fn add_scaled_row<S: Simd>(s: S, x: &[f32], factor: f32, sum: &mut [f32]) {
    combine(s, sum, x, AddScaled(factor));
}

#[inline(always)]
fn soft_cap_all<S: Simd>(s: S, cap: f32, x: &mut [f32]) {
    let (chunks, tail) = x.as_chunks_mut::<LANES>();
    for chunk in chunks {
        let v = capped(s, cap, s.load(chunk));
        s.store(chunk, v);
    }
    if !tail.is_empty() {
        let v = capped(s, cap, s.load_partial(tail));
        s.store_partial(tail, v);
    }
}

#[inline(always)]
fn capped<S: Simd>(s: S, cap: f32, x: S::F) -> S::F {
    let cap = s.splat(cap);
    s.mul(cap, s.tanh(s.div(x, cap)))
}

#[inline(always)]
fn head_rms_norm_rows<S: Simd>(s: S, args: &HeadNorm<'_>, rows: &mut [f32]) {
    let head_dim = args.q_weight.len();
    for row in rows.chunks_exact_mut(args.width) {
        let heads = row.chunks_exact_mut(head_dim).enumerate();
        for (index, head) in heads.take(args.num_heads + args.num_kv_heads) {
            let weight = if index < args.num_heads {
                args.q_weight
            } else {
                args.k_weight
            };
            let scale = inverse_rms(s, head, args.eps);
            combine(s, head, weight, ScaledMul(scale));
        }
    }
}
