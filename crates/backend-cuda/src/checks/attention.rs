//! Attention: against the CPU, and a row's bits against themselves in other plans.
//!
//! The cache is filled by `rope_kv_write` with whole sequences; attention is then computed for the
//! last tokens of each, cut in every way there is.
//!
//! Invariant: blocks that no row may read hold NaN.

use std::sync::Arc;

use hotspare_model::ops::{AttentionSpec, Ops, RopeTable};

use super::oracle::{Oracle, RowPlan, batch};
use super::rope::places;
use super::support::{Random, Rows, Tolerance, compare, poisoned, same_bits, upload};
use crate::attention_plan::{AttentionPlan, PlanShape, Sequence};
use crate::kernels::{Attention, AttentionItem, RopeKvWrite, Variant};
use crate::{Address, Dtype, LaunchError, Launcher};

/// Tokens that are in the cache before the step, and tokens of the step, of each sequence.
const LENGTHS: [(usize, usize); 6] = [(0, 1), (0, 37), (300, 1), (255, 3), (515, 2), (63, 20)];
/// A head's width for each kernel: of all its dimensions, or of some.
const CLASSES: [usize; 6] = [16, 32, 64, 80, 128, 256];

/// A step of several sequences.
struct Case {
    dtype: Dtype,
    kv_dtype: Dtype,
    spec: AttentionSpec,
    block_size: usize,
    plans: Vec<RowPlan>,
    /// Of all tokens of all sequences.
    qkv: Vec<f32>,
    /// Tokens of the step in each sequence.
    num_new: Vec<usize>,
}

impl Case {
    fn new(random: &mut Random, dtype: Dtype, kv_dtype: Dtype, head_dim: usize) -> Self {
        let num_kv_heads = random.within(1, 2);
        let num_heads = num_kv_heads * random.choose(&[1, 2, 3, 5]);
        let maybe = |random: &mut Random| random.below(2) == 1;
        let sinks = if maybe(random) { num_heads } else { 0 };
        let spec = AttentionSpec {
            num_heads,
            num_kv_heads,
            head_dim,
            scale: 2.0 / (head_dim as f32).sqrt(),
            sliding_window: maybe(random).then(|| random.choose(&[1, 20, 100, 270])),
            logits_soft_cap: maybe(random).then_some(2.0),
            sinks: random.floats(Dtype::F32, sinks),
        };
        let num_sequences = random.within(2, 3);
        let lengths: Vec<_> = (0..num_sequences)
            .map(|_| random.choose(&LENGTHS))
            .collect();
        Self::with(random, [dtype, kv_dtype], spec, &lengths)
    }

    /// Sequences of `lengths`; rows of the first dtype over a cache of the second.
    fn with(
        random: &mut Random,
        [dtype, kv_dtype]: [Dtype; 2],
        spec: AttentionSpec,
        lengths: &[(usize, usize)],
    ) -> Self {
        let block_size = random.choose(&[16, 16, 24]);
        let total = |(before, new): &(usize, usize)| before + new;
        let num_blocks: usize = lengths.iter().map(|l| total(l).div_ceil(block_size)).sum();
        let mut blocks = random.permutation(num_blocks).into_iter();
        let plan = |length: &(usize, usize)| RowPlan {
            num_computed: 0,
            num_tokens: total(length),
            blocks: blocks
                .by_ref()
                .take(total(length).div_ceil(block_size))
                .collect(),
        };
        let plans: Vec<RowPlan> = lengths.iter().map(plan).collect();
        let num_tokens: usize = lengths.iter().map(total).sum();
        let width = (spec.num_heads + 2 * spec.num_kv_heads) * spec.head_dim;
        // Numbers that rows and cache hold exactly.
        let qkv = random.floats(kv_dtype, num_tokens * width);
        Self {
            dtype,
            kv_dtype,
            spec,
            block_size,
            plans,
            qkv: qkv.into_iter().map(|x| dtype.round(x)).collect(),
            num_new: lengths.iter().map(|&(_, new)| new).collect(),
        }
    }

    fn width(&self) -> usize {
        (self.spec.num_heads + 2 * self.spec.num_kv_heads) * self.spec.head_dim
    }

    fn num_blocks(&self) -> usize {
        self.plans.iter().map(|plan| plan.blocks.len()).sum()
    }

    /// The CPU's attention of every token of every sequence.
    fn expected(&self) -> Result<Vec<f32>, LaunchError> {
        let mut oracle = Oracle::new()?;
        let num_tokens = self.qkv.len() / self.width();
        let mut cache = oracle.kv_cache_of(&self.spec, self.num_blocks(), self.block_size)?;
        oracle
            .ops
            .begin(&batch(&self.plans, vec![0; num_tokens], self.block_size));
        let mut qkv = oracle.buffer(self.width(), &self.qkv)?;
        let spec = &self.spec;
        oracle
            .ops
            .rope_kv_write(&mut qkv, &Arc::new(no_rope()), spec, 0, &mut cache);
        let mut out = oracle.empty(num_tokens, spec.num_heads * spec.head_dim)?;
        oracle.ops.attention(&qkv, spec, 0, &cache, &mut out);
        Ok(out.rows().to_vec())
    }

    /// The step's sequences; tokens are counted over all of them, old ones included.
    fn sequences(&self) -> Vec<Sequence> {
        let (mut token, mut table_start) = (0, 0);
        let plans = self.plans.iter().zip(&self.num_new);
        let sequence = |(plan, &num_new): (&RowPlan, &usize)| {
            token += plan.num_tokens;
            table_start += plan.blocks.len();
            Sequence {
                first_token: token - num_new,
                num_tokens: num_new,
                position: plan.num_tokens - num_new,
                table_start: table_start - plan.blocks.len(),
            }
        };
        plans.map(sequence).collect()
    }

    /// Block tables in which blocks before every window are `dead`.
    fn tables(&self, dead: u32) -> Vec<u32> {
        let mut tables = Vec::new();
        for (plan, &num_new) in self.plans.iter().zip(&self.num_new) {
            let first = plan.num_tokens - num_new;
            let window = self.spec.sliding_window;
            let seen = window.map_or(0, |window| (first + 1).saturating_sub(window));
            let num_dead = seen / self.block_size;
            tables.extend(std::iter::repeat_n(dead, num_dead));
            tables.extend(&plan.blocks[num_dead..]);
        }
        tables
    }

    fn shape(&self) -> PlanShape {
        PlanShape {
            group: self.spec.num_heads / self.spec.num_kv_heads,
            head_dim: self.spec.head_dim,
            window: self.spec.sliding_window,
        }
    }
}

/// The table that turns nothing.
fn no_rope() -> RopeTable {
    RopeTable {
        rotary_dim: 0,
        is_interleaved: false,
        cos: Vec::new(),
        sin: Vec::new(),
    }
}

/// Fills the cache on the device and says what attention's arguments are, but for items.
fn prepare(launcher: &mut dyn Launcher, case: &Case) -> Result<Attention, LaunchError> {
    let (spec, block_size) = (&case.spec, case.block_size);
    let rows = Rows::new(launcher, case.dtype, case.width(), &case.qkv)?;
    // One block more, which keeps its poison.
    let cache_rows = (case.num_blocks() + 1) * spec.num_kv_heads * block_size;
    let [k_cache, v_cache] = [
        Rows::poisoned(launcher, case.kv_dtype, cache_rows, spec.head_dim)?,
        Rows::poisoned(launcher, case.kv_dtype, cache_rows, spec.head_dim)?,
    ];
    let (positions, kv_slots) = places(&case.plans, block_size);
    let block_stride = (spec.num_kv_heads * block_size * k_cache.stride()) as u64;
    let write = RopeKvWrite {
        qkv: rows.at,
        positions: upload(launcher, &positions)?,
        kv_slots: upload(launcher, &kv_slots)?,
        cos: Address::NULL,
        sin: Address::NULL,
        k_cache: k_cache.at,
        v_cache: v_cache.at,
        block_stride,
        num_positions: u32::MAX,
        num_heads: spec.num_heads as u32,
        num_kv_heads: spec.num_kv_heads as u32,
        head_dim: spec.head_dim as u32,
        head_stride: k_cache.stride() as u32,
        block_size: block_size as u32,
        rotary_dim: 0,
        is_interleaved: 0,
        stride: rows.stride() as u32,
        unused: 0,
    };
    write.launch(launcher, case.dtype, case.kv_dtype, rows.num_rows)?;
    let sinks = match spec.sinks.is_empty() {
        true => Address::NULL,
        false => upload(launcher, &spec.sinks)?,
    };
    Ok(Attention {
        qkv: rows.at,
        out: Address::NULL,
        k_cache: k_cache.at,
        v_cache: v_cache.at,
        block_tables: upload(launcher, &case.tables(case.num_blocks() as u32))?,
        items: Address::NULL,
        partials: Address::NULL,
        sinks,
        block_stride,
        num_heads: spec.num_heads as u32,
        num_kv_heads: spec.num_kv_heads as u32,
        head_dim: spec.head_dim as u32,
        head_stride: k_cache.stride() as u32,
        block_size: block_size as u32,
        qkv_stride: rows.stride() as u32,
        out_stride: case.dtype.stride(spec.num_heads * spec.head_dim) as u32,
        partial_rows: 64,
        window: spec.sliding_window.unwrap_or(0) as u32,
        dtype: case.dtype.code(),
        scale: spec.scale,
        soft_cap: spec.logits_soft_cap.unwrap_or(0.0),
    })
}

/// Runs a plan; the outputs of all tokens, NaN for those that no item computes.
fn run(
    launcher: &mut dyn Launcher,
    case: &Case,
    attention: &Attention,
    plan: &AttentionPlan,
) -> Result<Vec<f32>, LaunchError> {
    let num_tokens = case.qkv.len() / case.width();
    let width = case.spec.num_heads * case.spec.head_dim;
    let out = Rows::poisoned(launcher, case.dtype, num_tokens, width)?;
    let partial_len = case.spec.num_kv_heads * 64 * (case.spec.head_dim + 2);
    let partials = poisoned(launcher, 4 * partial_len * plan.num_partials)?;
    let mut attention = Attention {
        out: out.at,
        partials,
        ..*attention
    };
    // A place for an item that has none, as in a captured graph.
    let nothing: AttentionItem = bytemuck::Zeroable::zeroed();
    for (items, variant) in [
        (&plan.decode, Variant::Decode),
        (&plan.prefill, Variant::Prefill),
    ] {
        let mut items = items.clone();
        items.push(nothing);
        attention.items = upload(launcher, &items)?;
        attention.launch(launcher, case.kv_dtype, variant, items.len())?;
    }
    if !plan.merges.is_empty() {
        attention.items = upload(launcher, &plan.merges)?;
        attention.merge(launcher, plan.merges.len())?;
    }
    out.read(launcher)
}

/// Every width of head, ragged batches, windows, caps, sinks; all plans give the same bits.
pub(crate) fn attention(launcher: &mut dyn Launcher, seed: u64) -> Result<(), LaunchError> {
    let mut random = Random::new("attention", seed);
    let dims: [usize; 9] = [8, 16, 20, 32, 64, 80, 112, 128, 256];
    // A third of the widths for each seed.
    for &head_dim in dims.iter().skip(seed as usize % 3).step_by(3) {
        let kv_dtype = random.choose(&Dtype::HALVES);
        let dtype = random.choose(&[kv_dtype, kv_dtype, Dtype::F32]);
        let case = Case::new(&mut random, dtype, kv_dtype, head_dim);
        check_case(launcher, &case)?;
        launcher.free_all();
    }
    match seed {
        0..6 => every_class(launcher, &mut random, seed),
        _ => Ok(()),
    }
}

/// The pair of dtypes that `seed` numbers (there are six) with every kernel: contexts of several
/// splits, with and without a window that is wider than one.
fn every_class(
    launcher: &mut dyn Launcher,
    random: &mut Random,
    seed: u64,
) -> Result<(), LaunchError> {
    let dtype = Dtype::ALL[seed as usize % 3];
    let kv_dtype = Dtype::HALVES[seed as usize / 3 % 2];
    for (i, head_dim) in CLASSES.into_iter().enumerate() {
        let spec = AttentionSpec {
            num_heads: 2,
            num_kv_heads: 1,
            head_dim,
            scale: 1.0 / (head_dim as f32).sqrt(),
            sliding_window: ((i as u64 + seed) % 2 == 1).then_some(300),
            logits_soft_cap: None,
            sinks: Vec::new(),
        };
        let case = Case::with(random, [dtype, kv_dtype], spec, &[(515, 1), (260, 10)]);
        check_case(launcher, &case)?;
        launcher.free_all();
    }
    Ok(())
}

fn check_case(launcher: &mut dyn Launcher, case: &Case) -> Result<(), LaunchError> {
    let attention = prepare(launcher, case)?;
    let (shape, sequences) = (case.shape(), case.sequences());
    let mut plan = AttentionPlan::default();
    plan.make(&sequences, &shape);
    let chosen = run(launcher, case, &attention, &plan)?;
    let what = format!(
        "attention {:?} kv {:?} block {} {:?} {:?}",
        case.dtype, case.kv_dtype, case.block_size, case.spec, sequences
    );
    for variant in [Variant::Decode, Variant::Prefill] {
        for splits_apart in [false, true] {
            plan.clear();
            for sequence in &sequences {
                plan.add(sequence, &shape, variant, splits_apart);
            }
            let found = run(launcher, case, &attention, &plan)?;
            same_bits(
                &format!("{what}: {variant:?}, apart {splits_apart}"),
                &found,
                &chosen,
            )?;
        }
    }
    // Each token in a step of its own, the last ones first.
    let width = case.spec.num_heads * case.spec.head_dim;
    for sequence in sequences.iter().rev() {
        plan.clear();
        for token in 0..sequence.num_tokens.min(3) {
            let single = Sequence {
                first_token: sequence.first_token + token,
                num_tokens: 1,
                position: sequence.position + token,
                ..*sequence
            };
            plan.add(&single, &shape, Variant::Decode, token == 1);
        }
        let found = run(launcher, case, &attention, &plan)?;
        let tokens = sequence.first_token * width
            ..(sequence.first_token + sequence.num_tokens.min(3)) * width;
        same_bits(
            &format!("{what}: alone"),
            &found[tokens.clone()],
            &chosen[tokens],
        )?;
    }
    let mut expected = case.expected()?;
    let is_new = |token| {
        let holds = |s: &Sequence| (s.first_token..s.first_token + s.num_tokens).contains(&token);
        sequences.iter().any(holds)
    };
    for (token, row) in expected.chunks_exact_mut(width).enumerate() {
        if !is_new(token) {
            row.fill(f32::NAN);
        }
    }
    // Weights are rounded to the cache's format before they multiply values, results to the rows'.
    let tolerance = match [case.dtype, case.kv_dtype].contains(&Dtype::Bf16) {
        true => Tolerance {
            absolute: 6e-3,
            relative: 9e-3,
        },
        false => Tolerance {
            absolute: 8e-4,
            relative: 1.5e-3,
        },
    };
    compare(&what, &chosen, &expected, tolerance)
}
