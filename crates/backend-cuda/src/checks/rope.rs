//! Rotation and the write to the cache.
//!
//! The CPU's cache has a layout of its own, so the cache is compared with what the CPU's rotated
//! rows say it has to hold.
//!
//! Invariant: what no row writes keeps its poison.

use std::sync::Arc;

use hotspare_model::ops::{AttentionSpec, Ops, RopeTable};

use super::oracle::{Oracle, RowPlan, batch};
use super::support::{Random, Rows, Tolerance, compare, upload};
use crate::kernels::RopeKvWrite;
use crate::{Dtype, LaunchError, Launcher};

const NUM_BLOCKS: usize = 6;

/// Angles that are no geometric series: any table has to do.
pub(crate) fn random_table(
    random: &mut Random,
    rotary_dim: usize,
    num_positions: usize,
) -> RopeTable {
    let angles = (0..num_positions * rotary_dim / 2).map(|_| random.float() * 3.0);
    let angles: Vec<f32> = angles.collect();
    RopeTable {
        rotary_dim,
        is_interleaved: random.below(2) == 1,
        cos: angles.iter().map(|x| x.cos()).collect(),
        sin: angles.iter().map(|x| x.sin()).collect(),
    }
}

/// Partial and interleaved rotation, ragged rows, padding rows.
pub(crate) fn rope_kv_write(launcher: &mut dyn Launcher, seed: u64) -> Result<(), LaunchError> {
    let mut random = Random::new("rope_kv_write", seed);
    for dtype in Dtype::ALL {
        for kv_dtype in Dtype::HALVES {
            check_case(launcher, &mut random, dtype, kv_dtype)?;
        }
    }
    Ok(())
}

/// One case's input.
struct Case {
    dtype: Dtype,
    kv_dtype: Dtype,
    spec: AttentionSpec,
    block_size: usize,
    plans: [RowPlan; 3],
    table: Arc<RopeTable>,
    qkv: Vec<f32>,
}

impl Case {
    fn new(random: &mut Random, dtype: Dtype, kv_dtype: Dtype) -> Self {
        let head_dim = random.choose(&[8, 20, 64, 80, 128, 256]);
        let rotary_dim = 2 * random.within(0, head_dim / 2);
        let num_kv_heads = random.within(1, 3);
        let spec = AttentionSpec {
            num_heads: num_kv_heads * random.within(1, 3),
            num_kv_heads,
            head_dim,
            scale: 1.0,
            sliding_window: None,
            logits_soft_cap: None,
            sinks: Vec::new(),
        };
        let block_size = random.choose(&[16, 5]);
        let blocks = random.permutation(NUM_BLOCKS);
        let plans = [
            (0, 3, 0..2),
            (block_size, 1, 2..4),
            (block_size - 2, 4, 4..6),
        ];
        let plans = plans.map(|(num_computed, num_tokens, range)| RowPlan {
            num_computed,
            num_tokens,
            blocks: blocks[range].to_vec(),
        });
        let width = (spec.num_heads + 2 * num_kv_heads) * head_dim;
        let num_rows: usize = plans.iter().map(|plan| plan.num_tokens).sum();
        let mut qkv = random.floats(dtype, num_rows * width);
        // A value that f16 does not hold.
        qkv[width - 1] = dtype.round(if dtype == Dtype::F16 { 6e4 } else { 1e6 });
        Self {
            dtype,
            kv_dtype,
            spec,
            block_size,
            plans,
            table: Arc::new(random_table(random, rotary_dim, 2 * block_size)),
            qkv,
        }
    }

    fn width(&self) -> usize {
        (self.spec.num_heads + 2 * self.spec.num_kv_heads) * self.spec.head_dim
    }

    fn num_rows(&self) -> usize {
        self.qkv.len() / self.width()
    }

    /// The CPU's rotated rows.
    fn expected(&self) -> Result<Vec<f32>, LaunchError> {
        let mut oracle = Oracle::new()?;
        let step = batch(&self.plans, vec![0; self.num_rows()], self.block_size);
        let mut cache = oracle.kv_cache_of(&self.spec, NUM_BLOCKS, self.block_size)?;
        oracle.ops.begin(&step);
        let mut rows = oracle.buffer(self.width(), &self.qkv)?;
        oracle
            .ops
            .rope_kv_write(&mut rows, &self.table, &self.spec, 0, &mut cache);
        Ok(rows.rows().to_vec())
    }
}

fn check_case(
    launcher: &mut dyn Launcher,
    random: &mut Random,
    dtype: Dtype,
    kv_dtype: Dtype,
) -> Result<(), LaunchError> {
    let case = Case::new(random, dtype, kv_dtype);
    let (spec, table, block_size) = (&case.spec, &case.table, case.block_size);
    let num_kv_heads = spec.num_kv_heads;
    let rows = Rows::new(launcher, dtype, case.width(), &case.qkv)?;
    let (positions, mut kv_slots) = places(&case.plans, block_size);
    // The last row is padding: rotated like any other, written nowhere.
    kv_slots[case.num_rows() - 1] = -1;
    let cache_rows = NUM_BLOCKS * num_kv_heads * block_size;
    let [k_cache, v_cache] = [
        Rows::poisoned(launcher, kv_dtype, cache_rows, spec.head_dim)?,
        Rows::poisoned(launcher, kv_dtype, cache_rows, spec.head_dim)?,
    ];
    let args = RopeKvWrite {
        qkv: rows.at,
        positions: upload(launcher, &positions)?,
        kv_slots: upload(launcher, &kv_slots)?,
        cos: upload(launcher, &table.cos)?,
        sin: upload(launcher, &table.sin)?,
        k_cache: k_cache.at,
        v_cache: v_cache.at,
        block_stride: (num_kv_heads * block_size * k_cache.stride()) as u64,
        num_positions: 2 * block_size as u32,
        num_heads: spec.num_heads as u32,
        num_kv_heads: num_kv_heads as u32,
        head_dim: spec.head_dim as u32,
        head_stride: k_cache.stride() as u32,
        block_size: block_size as u32,
        rotary_dim: table.rotary_dim as u32,
        is_interleaved: u32::from(table.is_interleaved),
        stride: rows.stride() as u32,
        unused: 0,
    };
    args.launch(launcher, dtype, case.kv_dtype, case.num_rows())?;
    let rotary = table.rotary_dim;
    let what = format!(
        "rope {:?} kv {kv_dtype:?} rotary {rotary} {spec:?}",
        case.dtype
    );
    let found = rows.read(launcher)?;
    compare(&what, &found, &case.expected()?, Tolerance::rounded(dtype))?;
    let (keys, values) = cached(&found, spec, &kv_slots, block_size, kv_dtype);
    compare(
        &format!("{what}: K"),
        &k_cache.read_with_padding(launcher)?,
        &keys,
        Tolerance::EXACT,
    )?;
    compare(
        &format!("{what}: V"),
        &v_cache.read_with_padding(launcher)?,
        &values,
        Tolerance::EXACT,
    )
}

/// Position and cache slot of each token of `plans`.
pub(crate) fn places(plans: &[RowPlan], block_size: usize) -> (Vec<u32>, Vec<i32>) {
    let mut places = (Vec::new(), Vec::new());
    for plan in plans {
        for position in plan.num_computed..plan.num_computed + plan.num_tokens {
            let block = plan.blocks[position / block_size] as usize;
            places.0.push(position as u32);
            places
                .1
                .push((block * block_size + position % block_size) as i32);
        }
    }
    places
}

/// What the caches have to hold after the rows `qkv`: NaN where nothing was written, zero behind
/// each head that was.
fn cached(
    qkv: &[f32],
    spec: &AttentionSpec,
    kv_slots: &[i32],
    block_size: usize,
    kv_dtype: Dtype,
) -> (Vec<f32>, Vec<f32>) {
    let (d, heads) = (spec.head_dim, spec.num_kv_heads);
    let stride = kv_dtype.stride(d);
    let len = NUM_BLOCKS * heads * block_size * stride;
    let (mut keys, mut values) = (vec![f32::NAN; len], vec![f32::NAN; len]);
    let width = (spec.num_heads + 2 * heads) * d;
    let round = |x: f32| match kv_dtype {
        Dtype::F16 => kv_dtype.round(x.clamp(-65504.0, 65504.0)),
        _ => kv_dtype.round(x),
    };
    for (row, &slot) in qkv.chunks_exact(width).zip(kv_slots) {
        let Ok(slot) = usize::try_from(slot) else {
            continue;
        };
        for head in 0..heads {
            let to = ((slot / block_size * heads + head) * block_size + slot % block_size) * stride;
            keys[to + d..to + stride].fill(0.0);
            values[to + d..to + stride].fill(0.0);
            for i in 0..d {
                keys[to + i] = round(row[(spec.num_heads + head) * d + i]);
                values[to + i] = round(row[(spec.num_heads + heads + head) * d + i]);
            }
        }
    }
    (keys, values)
}
