//! Rotary position embedding: dimension `i` turns with `i + rotary_dim / 2`, or, where the table is
//! interleaved, `2i` with `2i + 1`.
//!
//! Invariant: a head's bits depend on that head and its position alone.

use hotspare_model::ops::RopeTable;

use crate::simd::{LANES, Simd, isa_entry};

/// What is rotated, and by which angles.
pub(crate) struct RopeRows<'a> {
    pub(crate) table: &'a RopeTable,
    pub(crate) head_dim: usize,
    /// Leading heads of a row that are rotated: those of q and k.
    pub(crate) num_rotated_heads: usize,
    /// Floats of a row.
    pub(crate) width: usize,
    /// The position of each row.
    pub(crate) positions: &'a [u32],
}

isa_entry! {
    /// Rotates the q and k heads of every row in place. A position the table does not have makes
    /// the row's heads NaN, which fails that sequence and no other.
    pub(crate) fn rotate_rows(args: &RopeRows<'_>, rows: &mut [f32]) = rotate_all
}

#[inline(always)]
fn rotate_all<S: Simd>(s: S, args: &RopeRows<'_>, rows: &mut [f32]) {
    let half = args.table.rotary_dim / 2;
    for (row, &position) in rows.chunks_exact_mut(args.width).zip(args.positions) {
        let at = (position as usize).saturating_mul(half);
        let angles = at..at.saturating_add(half);
        let heads = row
            .chunks_exact_mut(args.head_dim)
            .take(args.num_rotated_heads);
        let cos = args.table.cos.get(angles.clone());
        let (Some(cos), Some(sin)) = (cos, args.table.sin.get(angles)) else {
            heads.for_each(|head| head.fill(f32::NAN));
            continue;
        };
        for head in heads {
            if args.table.is_interleaved {
                rotate_neighbours(s, &mut head[..2 * half], cos, sin);
                continue;
            }
            let (first, second) = head[..2 * half].split_at_mut(half);
            rotate_head(s, first, second, cos, sin);
        }
    }
}

#[inline(always)]
fn rotate_head<S: Simd>(s: S, first: &mut [f32], second: &mut [f32], cos: &[f32], sin: &[f32]) {
    let (a, a_tail) = first.as_chunks_mut::<LANES>();
    let (b, b_tail) = second.as_chunks_mut::<LANES>();
    let (c, c_tail) = cos.as_chunks::<LANES>();
    let (d, d_tail) = sin.as_chunks::<LANES>();
    for (((a, b), c), d) in a.iter_mut().zip(b).zip(c).zip(d) {
        let (x, y) = rotate(s, [s.load(a), s.load(b)], s.load(c), s.load(d));
        s.store(a, x);
        s.store(b, y);
    }
    if !a_tail.is_empty() {
        let pair = [s.load_partial(a_tail), s.load_partial(b_tail)];
        let (x, y) = rotate(s, pair, s.load_partial(c_tail), s.load_partial(d_tail));
        s.store_partial(a_tail, x);
        s.store_partial(b_tail, y);
    }
}

/// Sixteen pairs at a time; the last ones, where there are fewer, with zeros.
#[inline(always)]
fn rotate_neighbours<S: Simd>(s: S, head: &mut [f32], cos: &[f32], sin: &[f32]) {
    let angles = cos.chunks(LANES).zip(sin.chunks(LANES));
    for (pairs, (cos, sin)) in head.chunks_mut(2 * LANES).zip(angles) {
        let (mut a, mut b) = ([0.0; LANES], [0.0; LANES]);
        let (pairs, _) = pairs.as_chunks_mut::<2>();
        for (i, pair) in pairs.iter().enumerate() {
            [a[i], b[i]] = *pair;
        }
        let (x, y) = rotate(
            s,
            [s.load(&a), s.load(&b)],
            s.load_partial(cos),
            s.load_partial(sin),
        );
        s.store(&mut a, x);
        s.store(&mut b, y);
        for (i, pair) in pairs.iter_mut().enumerate() {
            *pair = [a[i], b[i]];
        }
    }
}

#[inline(always)]
fn rotate<S: Simd>(s: S, [a, b]: [S::F; 2], cos: S::F, sin: S::F) -> (S::F, S::F) {
    (s.fnma(b, sin, s.mul(a, cos)), s.fma(a, sin, s.mul(b, cos)))
}
