//! Online softmax over splits of up to sixty-four keys, for the query heads that share a K/V head.
//!
//! For each split: scores of all keys, their maximum, exponentials, then values, with the earlier
//! result scaled once. Several tokens of a run take turns at each split.
//!
//! Invariant: the operations on one (token, head) and their order are the same whatever else is
//! computed.
// Indices over constant bounds keep small arrays in registers, and say which operand is which.
#![allow(clippy::needless_range_loop)]

use half::f16;
use hotspare_batch::BlockId;

use super::{AttentionCall, Item, MAX_RUN_TOKENS, item_blocks};
use crate::kv_cache::{KvElement, MAX_HEAD_DIM, SCALE_LEN};
use crate::simd::{Isa, LANES, Simd, isa_entry};

/// Tiles of a split.
const SPLIT_TILES: usize = 4;
/// Keys of a split.
const SPLIT_KEYS: usize = SPLIT_TILES * LANES;
/// Query heads computed together, at most.
const MAX_HEADS: usize = 4;

/// An element type of K and V that the kernel is compiled for.
pub(crate) trait Element: KvElement {
    /// Computes one item.
    fn run(
        isa: Isa,
        call: &AttentionCall<'_, Self>,
        item: &Item,
        out: &mut [f32],
        scratch: &mut Scratch,
    );
}

/// Compiles the kernel for an element type, as the entry point of that name.
macro_rules! element {
    ($element:ty, $entry:ident) => {
        isa_entry! {
            fn $entry(
                call: &AttentionCall<'_, $element>,
                item: &Item,
                out: &mut [f32],
                scratch: &mut Scratch,
            ) = run_any
        }

        impl Element for $element {
            fn run(
                isa: Isa,
                call: &AttentionCall<'_, Self>,
                item: &Item,
                out: &mut [f32],
                scratch: &mut Scratch,
            ) {
                $entry(isa, call, item, out, scratch);
            }
        }
    };
}

element!(f32, run_f32);
element!(f16, run_f16);
element!(i8, run_q8);

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
struct TileRef<'a, E> {
    /// Position of its first key.
    start: usize,
    num_keys: usize,
    keys: &'a [[E; LANES]],
    values: &'a [[E; LANES]],
    key_scales: &'a [[f16; LANES]],
    value_scales: &'a [[f16; LANES]],
}

impl<'a, E: KvElement> TileRef<'a, E> {
    const EMPTY: Self = Self {
        start: 0,
        num_keys: 0,
        keys: &[],
        values: &[],
        key_scales: &[],
        value_scales: &[],
    };

    /// Tile `tile` of a sequence.
    #[inline(always)]
    fn new(call: &AttentionCall<'a, E>, blocks: &[BlockId], kv_head: usize, tile: usize) -> Self {
        let (g, pool) = (&call.geometry, call.pool);
        let block = blocks[tile / g.tiles_per_block];
        let in_block = tile % g.tiles_per_block;
        let [key_scales, value_scales] = pool.scale_tiles(g, block, kv_head, in_block);
        Self {
            start: g.tile_start(tile),
            num_keys: g.tile_keys(tile),
            keys: pool.key_tile(g, block, kv_head, in_block),
            values: pool.value_tile(g, block, kv_head, in_block).as_chunks().0,
            key_scales,
            value_scales,
        }
    }
}

/// Heads of one token at one split.
struct Work<'a, 't, E> {
    call: &'a AttentionCall<'a, E>,
    token: usize,
    position: usize,
    first_head: usize,
    /// Whether no other token of the run passes over the same keys.
    is_alone: bool,
    tiles: &'t [TileRef<'a, E>],
    /// Tiles to be brought near meanwhile; none where an earlier token does that.
    ahead: &'t [TileRef<'a, E>],
}

/// What the tokens of an item have accumulated. It is as large as the largest item needs, and
/// therefore kept: setting it up would take longer than a short item.
pub(crate) struct Scratch(Box<[State]>);

impl Scratch {
    /// For any item.
    pub(crate) fn new() -> Self {
        Self(vec![State::EMPTY; MAX_RUN_TOKENS].into_boxed_slice())
    }
}

#[inline(always)]
fn run_any<S: Simd, E: KvElement>(
    s: S,
    call: &AttentionCall<'_, E>,
    item: &Item,
    out: &mut [f32],
    scratch: &mut Scratch,
) {
    let states = &mut scratch.0[..item.tokens.len()];
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
            let next_kv_head = kv_head + 1;
            let heads_of = Heads {
                kv_head,
                first_head: kv_head * group + done,
                next_kv_head: (done + heads == group && item.kv_heads.contains(&next_kv_head))
                    .then_some(next_kv_head),
            };
            match heads {
                1 => run_heads::<S, E, 1>(s, call, item, heads_of, states),
                2 => run_heads::<S, E, 2>(s, call, item, heads_of, states),
                _ => run_heads::<S, E, MAX_HEADS>(s, call, item, heads_of, states),
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

/// Heads computed together.
#[derive(Clone, Copy)]
struct Heads {
    /// Whose keys they share.
    kv_head: usize,
    first_head: usize,
    /// Whose keys come next, if other ones do.
    next_kv_head: Option<usize>,
}

/// All tokens of the item, `R` heads.
#[inline(always)]
fn run_heads<S: Simd, E: KvElement, const R: usize>(
    s: S,
    call: &AttentionCall<'_, E>,
    item: &Item,
    heads: Heads,
    states: &mut [State],
) {
    let g = &call.geometry;
    let first_head = heads.first_head;
    let num_chunks = g.padded_head_dim / LANES;
    for state in states.iter_mut() {
        state.max = [f32::NEG_INFINITY; MAX_HEADS];
        state.sum = [[0.0; LANES]; MAX_HEADS];
        for values in &mut state.values[..R] {
            values[..num_chunks].fill([0.0; LANES]);
        }
        // A sink is a key that came before all others, whose value is zero.
        for (h, &sink) in call.spec.sinks.iter().skip(first_head).take(R).enumerate() {
            (state.max[h], state.sum[h][0]) = (sink, 1.0);
        }
    }
    let blocks = item_blocks(call, item);
    let last = item.position + item.tokens.len() - 1;
    let first_tile = g.tile_of(call.visible(item.position).start);
    let end_tile = g.tile_of(last) + 1;
    // What follows a tile by a split's length, in this head or else in the next.
    let ahead_of = |tile: usize| {
        let tile = tile + SPLIT_TILES;
        if tile < end_tile {
            return TileRef::new(call, blocks, heads.kv_head, tile);
        }
        match (heads.next_kv_head, first_tile + tile - end_tile) {
            (Some(kv_head), tile) if tile < end_tile => TileRef::new(call, blocks, kv_head, tile),
            _ => TileRef::EMPTY,
        }
    };
    let mut split = first_tile / SPLIT_TILES * SPLIT_TILES;
    while split < end_tile {
        let range = split.max(first_tile)..end_tile.min(split + SPLIT_TILES);
        let num_tiles = range.len();
        let (mut tiles, mut ahead) = ([TileRef::EMPTY; SPLIT_TILES], [TileRef::EMPTY; SPLIT_TILES]);
        for ((slot, ahead), tile) in tiles.iter_mut().zip(&mut ahead).zip(range) {
            *slot = TileRef::new(call, blocks, heads.kv_head, tile);
            *ahead = ahead_of(tile);
        }
        for (i, state) in states.iter_mut().enumerate().take(item.tokens.len()) {
            let work = Work {
                call,
                token: item.tokens.start + i,
                position: item.position + i,
                first_head,
                is_alone: item.tokens.len() == 1,
                tiles: &tiles[..num_tiles],
                ahead: if i == 0 { &ahead } else { &[] },
            };
            attend_split::<S, E, R>(s, &work, state);
        }
        split += SPLIT_TILES;
    }
}

/// Scores of a split's keys, then their exponentials: head, tile, key.
type Weights<const R: usize> = [[[f32; LANES]; SPLIT_TILES]; R];

/// Adds one split's keys and values to a token's state.
#[inline(always)]
fn attend_split<S: Simd, E: KvElement, const R: usize>(
    s: S,
    work: &Work<'_, '_, E>,
    state: &mut State,
) {
    let visible = work.call.visible(work.position);
    // Keys of each tile that the token sees; the tiles in which it sees any follow one another.
    let mut seen = [(0, 0); SPLIT_TILES];
    let (mut first, mut end) = (SPLIT_TILES, 0);
    for (t, tile) in work.tiles.iter().enumerate() {
        let range = tile.start..tile.start + tile.num_keys;
        let key = |position: usize| position.clamp(range.start, range.end) - range.start;
        seen[t] = (key(visible.start), key(visible.end));
        if seen[t].0 < seen[t].1 {
            (first, end) = (first.min(t), t + 1);
        }
    }
    if first >= end {
        return;
    }
    let mut weights: Weights<R> = [[[0.0; LANES]; SPLIT_TILES]; R];
    let mut t = first;
    while t < end {
        t += match end - t {
            4.. if S::HAS_32_REGISTERS && !work.is_alone => {
                scores::<S, E, R, 4>(s, work, t, &mut weights)
            }
            2.. if S::HAS_32_REGISTERS || R <= 2 => scores::<S, E, R, 2>(s, work, t, &mut weights),
            _ => scores::<S, E, R, 1>(s, work, t, &mut weights),
        };
    }
    let mut factors = [s.splat(0.0); R];
    for r in 0..R {
        shape_scores(s, work, &seen[first..end], &mut weights[r][first..end]);
        let (max, sum) = (&mut state.max[r], &mut state.sum[r]);
        factors[r] = exponentials(s, &mut weights[r][first..end], max, sum);
    }
    let num_chunks = work.call.geometry.padded_head_dim / LANES;
    let mut chunk = 0;
    while chunk < num_chunks {
        chunk += match num_chunks - chunk {
            1 => add_values::<S, E, R, 1>(s, work, &weights, &seen, &factors, chunk, state),
            2 | 3 => add_values::<S, E, R, 2>(s, work, &weights, &seen, &factors, chunk, state),
            _ => add_values::<S, E, R, 4>(s, work, &weights, &seen, &factors, chunk, state),
        };
    }
}

/// `q · k` for `R` queries and the keys of `T` tiles from `first` on, dimension after dimension.
/// Each loaded query element serves all tiles, each key vector all queries. Returns `T`.
#[inline(always)]
fn scores<S: Simd, E: KvElement, const R: usize, const T: usize>(
    s: S,
    work: &Work<'_, '_, E>,
    first: usize,
    weights: &mut Weights<R>,
) -> usize {
    // Slices of equal length, so that the loop needs no bounds checks.
    let head_dim = work.call.spec.head_dim;
    let queries: [&[f32]; R] =
        std::array::from_fn(|r| &work.call.query(work.token, work.first_head + r)[..head_dim]);
    let keys: [&[[E; LANES]]; T] = std::array::from_fn(|t| &work.tiles[first + t].keys[..head_dim]);
    let ahead: [&[[E; LANES]]; T] =
        std::array::from_fn(|t| work.ahead.get(first + t).map_or(&[][..], |tile| tile.keys));
    let mut acc = [[s.splat(0.0); T]; R];
    let mut scales = [s.splat(1.0); T];
    for i in 0..head_dim {
        if E::HAS_SCALES && i % SCALE_LEN == 0 {
            for t in 0..T {
                scales[t] = f16::load(s, &work.tiles[first + t].key_scales[i / SCALE_LEN]);
            }
        }
        for t in 0..T {
            if let Some(line) = ahead[t].get(i) {
                s.prefetch(line.as_ptr().cast());
            }
        }
        let mut k = [s.splat(0.0); T];
        for t in 0..T {
            k[t] = E::load(s, &keys[t][i]);
            if E::HAS_SCALES {
                k[t] = s.mul(k[t], scales[t]);
            }
        }
        for r in 0..R {
            let q = s.splat(queries[r][i]);
            for t in 0..T {
                acc[r][t] = s.fma(q, k[t], acc[r][t]);
            }
        }
    }
    for r in 0..R {
        for t in 0..T {
            s.store(&mut weights[r][first + t], acc[r][t]);
        }
    }
    T
}

/// Scales and caps the scores of one head, and puts minus infinity where a key is not seen.
#[inline(always)]
fn shape_scores<S: Simd, E: KvElement>(
    s: S,
    work: &Work<'_, '_, E>,
    seen: &[(usize, usize)],
    weights: &mut [[f32; LANES]],
) {
    let spec = work.call.spec;
    for (weights, &(start, end)) in weights.iter_mut().zip(seen) {
        let mut score = s.mul(s.load(weights), s.splat(spec.scale));
        if let Some(cap) = spec.logits_soft_cap {
            score = s.mul(s.splat(cap), s.tanh(s.div(score, s.splat(cap))));
        }
        if start > 0 || end < LANES {
            score = s.keep_lanes(score, start, end, f32::NEG_INFINITY);
        }
        s.store(weights, score);
    }
}

/// Turns one head's scores into exponentials relative to the new maximum, adds them to `sum`, and
/// returns the factor by which what was accumulated before shrinks.
#[inline(always)]
fn exponentials<S: Simd>(
    s: S,
    weights: &mut [[f32; LANES]],
    max: &mut f32,
    sum: &mut [f32; LANES],
) -> S::F {
    let mut largest = s.splat(f32::NEG_INFINITY);
    for weights in weights.iter() {
        largest = s.max(s.load(weights), largest);
    }
    let (before, largest) = (*max, s.max_lane(largest));
    *max = if largest > before { largest } else { before };
    let factor = s.exp(s.sub(s.splat(before), s.splat(*max)));
    let mut total = s.mul(s.load(sum), factor);
    for weights in weights {
        let e = s.exp(s.sub(s.load(weights), s.splat(*max)));
        s.store(weights, e);
        total = s.add(total, e);
    }
    s.store(sum, total);
    factor
}

/// Scales `C` vectors of the state, from `chunk` on, and adds the split's weighted values. Returns
/// `C`.
#[inline(always)]
fn add_values<S: Simd, E: KvElement, const R: usize, const C: usize>(
    s: S,
    work: &Work<'_, '_, E>,
    weights: &Weights<R>,
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
        let mut scales = [[1.0; LANES]; C];
        if E::HAS_SCALES {
            for c in 0..C {
                let of_keys = &tile.value_scales[(chunk + c) * LANES / SCALE_LEN];
                s.store(&mut scales[c], f16::load(s, of_keys));
            }
        }
        let ahead = work.ahead.get(t).map_or(&[][..], |tile| tile.values);
        for key in start..end.min(LANES) {
            let at = key * num_chunks + chunk;
            let row = &tile.values[at..][..C];
            if let Some(ahead) = ahead.get(at..at + C) {
                for line in ahead {
                    s.prefetch(line.as_ptr().cast());
                }
            }
            for c in 0..C {
                let mut v = E::load(s, &row[c]);
                if E::HAS_SCALES {
                    v = s.mul(v, s.splat(scales[c][key]));
                }
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
