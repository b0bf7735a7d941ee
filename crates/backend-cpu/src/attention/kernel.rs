//! Online softmax over splits of up to sixty-four keys, for the query heads that share a K/V head.
//!
//! For each split: scores of all keys, their maximum, exponentials, then values, with the earlier
//! result scaled once. Several tokens of a run take turns at each split.
//!
//! Invariant: the operations on one (token, head) and their order are the same whatever else is
//! computed.
// Indices over constant bounds keep small arrays in registers, and say which operand is which.
#![allow(clippy::needless_range_loop)]

use super::{AttentionCall, Item, MAX_RUN_TOKENS, item_blocks};
use crate::kv_cache::MAX_HEAD_DIM;
use crate::simd::{LANES, Simd, isa_entry};

/// Tiles of a split.
const SPLIT_TILES: usize = 4;
/// Keys of a split.
const SPLIT_KEYS: usize = SPLIT_TILES * LANES;
/// Query heads computed together, at most.
const MAX_HEADS: usize = 4;

isa_entry! { pub(super) fn run(call: &AttentionCall<'_>, item: &Item, out: &mut [f32]) = run_any }

/// What one token has accumulated, for up to `MAX_HEADS` heads.
#[derive(Clone, Copy)]
#[repr(align(64))]
struct State {
    /// Not yet divided by `sum`.
    values: [[[f32; LANES]; MAX_HEAD_DIM / LANES]; MAX_HEADS],
    max: [f32; MAX_HEADS],
    /// Sums of exponentials, lane by lane.
    sum: [[f32; LANES]; MAX_HEADS],
}

impl State {
    const EMPTY: Self = Self {
        values: [[[0.0; LANES]; MAX_HEAD_DIM / LANES]; MAX_HEADS],
        max: [f32::NEG_INFINITY; MAX_HEADS],
        sum: [[0.0; LANES]; MAX_HEADS],
    };
}

/// One tile of a split.
#[derive(Clone, Copy)]
struct TileRef<'a> {
    /// Position of its first key.
    start: usize,
    keys: &'a [[f32; LANES]],
    values: &'a [[f32; LANES]],
}

/// Heads of one token at one split.
struct Work<'a, 't> {
    call: &'a AttentionCall<'a>,
    token: usize,
    position: usize,
    first_head: usize,
    tiles: &'t [TileRef<'a>],
}

#[inline(always)]
fn run_any<S: Simd>(s: S, call: &AttentionCall<'_>, item: &Item, out: &mut [f32]) {
    if item.tokens.len() == 1 {
        run_item(s, call, item, out, &mut [State::EMPTY]);
    } else {
        run_item(s, call, item, out, &mut [State::EMPTY; MAX_RUN_TOKENS]);
    }
}

#[inline(always)]
fn run_item<S: Simd>(
    s: S,
    call: &AttentionCall<'_>,
    item: &Item,
    out: &mut [f32],
    states: &mut [State],
) {
    let group = call.group();
    let out_stride = out.len() / item.tokens.len();
    for (nth, kv_head) in item.kv_heads.clone().enumerate() {
        let mut done = 0;
        while done < group {
            let heads = match group - done {
                1 => 1,
                2 | 3 => 2,
                _ => MAX_HEADS,
            };
            let first_head = kv_head * group + done;
            match heads {
                1 => run_heads::<S, 1>(s, call, item, kv_head, first_head, states),
                2 => run_heads::<S, 2>(s, call, item, kv_head, first_head, states),
                _ => run_heads::<S, MAX_HEADS>(s, call, item, kv_head, first_head, states),
            }
            let at = (nth * group + done) * call.spec.head_dim;
            for (state, row) in states.iter().zip(out.chunks_exact_mut(out_stride)) {
                let heads = row[at..].chunks_exact_mut(call.spec.head_dim).take(heads);
                for (h, out) in heads.enumerate() {
                    finish(s, state, h, out);
                }
            }
            done += heads;
        }
    }
}

/// All tokens of the item, `R` heads from `first_head` on.
#[inline(always)]
fn run_heads<S: Simd, const R: usize>(
    s: S,
    call: &AttentionCall<'_>,
    item: &Item,
    kv_head: usize,
    first_head: usize,
    states: &mut [State],
) {
    let g = &call.geometry;
    let num_chunks = g.padded_head_dim / LANES;
    for state in states.iter_mut() {
        state.max = [f32::NEG_INFINITY; MAX_HEADS];
        state.sum = [[0.0; LANES]; MAX_HEADS];
        for values in &mut state.values[..R] {
            values[..num_chunks].fill([0.0; LANES]);
        }
    }
    let blocks = item_blocks(call, item);
    let last = item.position + item.tokens.len() - 1;
    let first_tile = g.tile_of(call.visible(item.position).start);
    let end_tile = g.tile_of(last) + 1;
    let mut split = first_tile / SPLIT_TILES * SPLIT_TILES;
    while split < end_tile {
        let mut tiles = [TileRef {
            start: 0,
            keys: &[],
            values: &[],
        }; SPLIT_TILES];
        let (from, to) = (split.max(first_tile), end_tile.min(split + SPLIT_TILES));
        for (slot, tile) in (from..to).enumerate() {
            let block = blocks[tile / g.tiles_per_block];
            let in_block = tile % g.tiles_per_block;
            tiles[slot] = TileRef {
                start: g.tile_start(tile),
                keys: call.layer.key_tile(g, block, kv_head, in_block),
                values: call
                    .layer
                    .value_tile(g, block, kv_head, in_block)
                    .as_chunks()
                    .0,
            };
        }
        for (i, state) in states.iter_mut().enumerate().take(item.tokens.len()) {
            let work = Work {
                call,
                token: item.tokens.start + i,
                position: item.position + i,
                first_head,
                tiles: &tiles[..to - from],
            };
            attend_split::<S, R>(s, &work, state);
        }
        split += SPLIT_TILES;
    }
}

/// Adds one split's keys and values to a token's state.
#[inline(always)]
fn attend_split<S: Simd, const R: usize>(s: S, work: &Work<'_, '_>, state: &mut State) {
    let (call, spec) = (work.call, work.call.spec);
    let visible = call.visible(work.position);
    let num_chunks = call.geometry.padded_head_dim / LANES;
    let queries: [&[f32]; R] = std::array::from_fn(|r| call.query(work.token, work.first_head + r));
    let mut weights = [[[0.0f32; LANES]; SPLIT_TILES]; R];
    let mut maxima = [s.splat(f32::NEG_INFINITY); R];
    // Keys of each tile that the token sees.
    let mut seen = [(0, 0); SPLIT_TILES];
    let mut any = false;
    for (t, tile) in work.tiles.iter().enumerate() {
        let num_keys = tile.values.len() / num_chunks;
        let start = visible.start.clamp(tile.start, tile.start + num_keys) - tile.start;
        let end = visible.end.clamp(tile.start, tile.start + num_keys) - tile.start;
        seen[t] = (start, end);
        if start == end {
            continue;
        }
        any = true;
        let scores = tile_scores::<S, R>(s, &queries, tile.keys);
        for r in 0..R {
            let mut score = s.mul(scores[r], s.splat(spec.scale));
            if let Some(cap) = spec.logits_soft_cap {
                score = s.mul(s.splat(cap), s.tanh(s.div(score, s.splat(cap))));
            }
            if start > 0 || end < LANES {
                score = s.keep_lanes(score, start, end, f32::NEG_INFINITY);
            }
            s.store(&mut weights[r][t], score);
            maxima[r] = s.max(score, maxima[r]);
        }
    }
    if !any {
        return;
    }
    let mut factors = [s.splat(0.0); R];
    for r in 0..R {
        let before = state.max[r];
        let split_max = s.max_lane(maxima[r]);
        let max = if split_max > before {
            split_max
        } else {
            before
        };
        state.max[r] = max;
        factors[r] = s.exp(s.sub(s.splat(before), s.splat(max)));
        let mut sum = s.mul(s.load(&state.sum[r]), factors[r]);
        for (weights, &(start, end)) in weights[r].iter_mut().zip(&seen) {
            if start < end {
                let e = s.exp(s.sub(s.load(weights), s.splat(max)));
                s.store(weights, e);
                sum = s.add(sum, e);
            }
        }
        s.store(&mut state.sum[r], sum);
    }
    let mut chunk = 0;
    while chunk < num_chunks {
        chunk += match num_chunks - chunk {
            1 => add_values::<S, R, 1>(s, work, &weights, &seen, &factors, chunk, state),
            2 | 3 => add_values::<S, R, 2>(s, work, &weights, &seen, &factors, chunk, state),
            _ => add_values::<S, R, 4>(s, work, &weights, &seen, &factors, chunk, state),
        };
    }
}

/// `q · k` of sixteen keys for `R` queries: four partial sums over the dimensions, for more
/// independent chains than the latency of an addition.
#[inline(always)]
fn tile_scores<S: Simd, const R: usize>(
    s: S,
    queries: &[&[f32]; R],
    keys: &[[f32; LANES]],
) -> [S::F; R] {
    let mut acc = [[s.splat(0.0); 4]; R];
    let (fours, rest) = keys.as_chunks::<4>();
    // Slices of equal length, so that the loop needs no bounds checks.
    let query_fours: [&[[f32; 4]]; R] =
        std::array::from_fn(|r| &queries[r].as_chunks::<4>().0[..fours.len()]);
    for i in 0..fours.len() {
        for part in 0..4 {
            let k = s.load(&fours[i][part]);
            for r in 0..R {
                acc[r][part] = s.fma(s.splat(query_fours[r][i][part]), k, acc[r][part]);
            }
        }
    }
    for (part, keys) in rest.iter().enumerate() {
        let k = s.load(keys);
        for r in 0..R {
            let q = queries[r][4 * fours.len() + part];
            acc[r][part] = s.fma(s.splat(q), k, acc[r][part]);
        }
    }
    let mut scores = [s.splat(0.0); R];
    for (score, acc) in scores.iter_mut().zip(&acc) {
        *score = s.add(s.add(acc[0], acc[2]), s.add(acc[1], acc[3]));
    }
    scores
}

/// Scales `C` vectors of the state, from `chunk` on, and adds the split's weighted values. Returns
/// `C`.
#[inline(always)]
fn add_values<S: Simd, const R: usize, const C: usize>(
    s: S,
    work: &Work<'_, '_>,
    weights: &[[[f32; LANES]; SPLIT_TILES]; R],
    seen: &[(usize, usize); SPLIT_TILES],
    factors: &[S::F; R],
    chunk: usize,
    state: &mut State,
) -> usize {
    let num_chunks = work.call.geometry.padded_head_dim / LANES;
    let mut acc = [[s.splat(0.0); C]; R];
    for r in 0..R {
        for c in 0..C {
            acc[r][c] = s.mul(s.load(&state.values[r][chunk + c]), factors[r]);
        }
    }
    for (t, tile) in work.tiles.iter().enumerate() {
        let (start, end) = seen[t];
        for key in start..end.min(LANES) {
            let row = &tile.values[key * num_chunks + chunk..][..C];
            for c in 0..C {
                let v = s.load(&row[c]);
                for r in 0..R {
                    acc[r][c] = s.fma(s.splat(weights[r][t][key]), v, acc[r][c]);
                }
            }
        }
    }
    for r in 0..R {
        for c in 0..C {
            s.store(&mut state.values[r][chunk + c], acc[r][c]);
        }
    }
    C
}

/// Divides by the sum of exponentials.
#[inline(always)]
fn finish<S: Simd>(s: S, state: &State, head: usize, out: &mut [f32]) {
    let sum = s.splat(s.sum(s.load(&state.sum[head])));
    let (chunks, tail) = out.as_chunks_mut::<LANES>();
    let num_chunks = chunks.len();
    for (chunk, values) in chunks.iter_mut().zip(&state.values[head]) {
        s.store(chunk, s.div(s.load(values), sum));
    }
    if !tail.is_empty() {
        s.store_partial(tail, s.div(s.load(&state.values[head][num_chunks]), sum));
    }
}

const _: () = assert!(
    SPLIT_KEYS == 64,
    "a split's K and V of a head of 64 fit the nearest cache"
);
