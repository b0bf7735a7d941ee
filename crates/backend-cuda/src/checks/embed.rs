//! Rows of weight matrices in every format.
//!
//! Invariant: in f32 the floats are the CPU's, bit for bit.

use half::f16;
use hotspare_model::ops::{AttentionSpec, Ops};
use hotspare_model::weights::WeightDtype;

use super::oracle::{Oracle, RowPlan, batch};
use super::support::Tolerance;
use super::support::{Random, Rows, compare, same_bits, upload};
use crate::kernels::{Embed, ResolveTokens, WeightFormat, Weights};
use crate::{Address, Dtype, LaunchError, Launcher};

/// Where the half floats of a block are: scales, which random bytes would make NaN.
fn half_places(dtype: WeightDtype) -> &'static [usize] {
    match dtype {
        WeightDtype::F32 | WeightDtype::F16 | WeightDtype::Bf16 => &[],
        WeightDtype::Q4_0 | WeightDtype::Q5_0 | WeightDtype::Q8_0 => &[0],
        WeightDtype::Q4_1 | WeightDtype::Q5_1 | WeightDtype::Q4K | WeightDtype::Q5K => &[0, 2],
        WeightDtype::Q2K => &[80, 82],
        WeightDtype::Q3K => &[108],
        WeightDtype::Q6K => &[208],
    }
}

/// Random weights of any format.
pub(crate) fn random_weights(random: &mut Random, dtype: WeightDtype, len: usize) -> Vec<u8> {
    let dense = match dtype {
        WeightDtype::F32 => Some(Dtype::F32),
        WeightDtype::F16 => Some(Dtype::F16),
        WeightDtype::Bf16 => Some(Dtype::Bf16),
        _ => None,
    };
    if let Some(dense) = dense {
        return dense.encode(&random.floats(dense, len));
    }
    let num_bytes = len / dtype.block_len() * dtype.block_bytes();
    let mut bytes: Vec<u8> = (0..num_bytes).map(|_| random.next() as u8).collect();
    for block in bytes.chunks_exact_mut(dtype.block_bytes()) {
        for &place in half_places(dtype) {
            let scale = f16::from_f32(random.float() * 0.02);
            block[place..place + 2].copy_from_slice(&scale.to_le_bytes());
        }
    }
    bytes
}

/// Attention that only says how large a cache is.
fn no_attention() -> AttentionSpec {
    AttentionSpec {
        num_heads: 1,
        num_kv_heads: 1,
        head_dim: 8,
        scale: 1.0,
        sliding_window: None,
        logits_soft_cap: None,
        sinks: Vec::new(),
    }
}

/// The floats that `bytes`, `[num_rows, width]`, stand for, by the CPU's embedding.
pub(crate) fn widened(
    bytes: &[u8],
    dtype: WeightDtype,
    [num_rows, width]: [usize; 2],
    ids: &[u32],
    scale: f32,
) -> Result<Vec<f32>, LaunchError> {
    let mut oracle = Oracle::new()?;
    let table = oracle.linear(bytes.to_vec(), dtype, &[num_rows, width])?;
    // A block for the whole row: the embedding has no use for it.
    let block_size = ids.len();
    let plan = RowPlan {
        num_computed: 0,
        num_tokens: ids.len(),
        blocks: vec![0],
    };
    oracle.kv_cache_of(&no_attention(), 1, block_size)?;
    oracle.ops.begin(&batch(&[plan], ids.to_vec(), block_size));
    let mut out = oracle.empty(ids.len(), width)?;
    oracle.ops.embed(&table, scale, &mut out);
    Ok(out.rows().to_vec())
}

/// Tables of every format, an unknown id among the tokens, a table in two parts.
pub(crate) fn embed(launcher: &mut dyn Launcher, seed: u64) -> Result<(), LaunchError> {
    let mut random = Random::new("embed", seed);
    for weight_dtype in WeightDtype::ALL {
        let dtype = random.choose(&Dtype::ALL);
        let (num_rows, num_ids) = (random.within(2, 9), random.within(1, 6));
        let width = match weight_dtype.block_len() {
            1 => random.choose(&[3, 64, 200]),
            len => len * random.within(1, 3),
        };
        let bytes = random_weights(&mut random, weight_dtype, num_rows * width);
        let mut ids: Vec<u32> = (0..num_ids)
            .map(|_| random.below(num_rows) as u32)
            .collect();
        ids.push(num_rows as u32 + 3);
        let scale = random.choose(&[1.0, 8.0]);
        let expected = widened(&bytes, weight_dtype, [num_rows, width], &ids, scale)?;
        let out = Rows::poisoned(launcher, dtype, ids.len(), width)?;
        let row_bytes = bytes.len() / num_rows;
        let data = upload(launcher, &bytes)?;
        let first_part = random.within(1, num_rows);
        let token_ids = upload(launcher, &ids)?;
        for part in [0..first_part, first_part..num_rows] {
            let args = Embed {
                table: Weights {
                    data: data.offset(part.start * row_bytes),
                    scales: Address::NULL,
                    row_bytes: row_bytes as u64,
                    scale_row_bytes: 0,
                },
                token_ids,
                out: out.at,
                group_offsets: Address::NULL,
                format: WeightFormat::Plain(weight_dtype).code(),
                first_row: part.start as u32,
                num_table_rows: part.len() as u32,
                width: width as u32,
                stride: out.stride() as u32,
                scale,
                is_last: u32::from(part.end == num_rows),
                rows_per_group: 0,
            };
            args.launch(launcher, dtype, ids.len())?;
        }
        let what = format!("embed {} as {dtype:?}, width {width}", weight_dtype.name());
        compare(
            &what,
            &out.read(launcher)?,
            &expected,
            Tolerance::rounded(dtype),
        )?;
    }
    Ok(())
}

/// Whole matrices to f32: the CPU's bits.
pub(crate) fn dequantize(launcher: &mut dyn Launcher, seed: u64) -> Result<(), LaunchError> {
    let mut random = Random::new("dequantize", seed);
    for weight_dtype in WeightDtype::ALL {
        let (num_rows, width) = (random.within(1, 3), weight_dtype.block_len() * 2);
        let bytes = random_weights(&mut random, weight_dtype, num_rows * width);
        let ids: Vec<u32> = (0..num_rows as u32).collect();
        let expected = widened(&bytes, weight_dtype, [num_rows, width], &ids, 1.0)?;
        let out = Rows::poisoned(launcher, Dtype::F32, num_rows, width)?;
        let args = Embed {
            table: Weights {
                data: upload(launcher, &bytes)?,
                scales: Address::NULL,
                row_bytes: (bytes.len() / num_rows) as u64,
                scale_row_bytes: 0,
            },
            token_ids: Address::NULL,
            out: out.at,
            group_offsets: Address::NULL,
            format: WeightFormat::Plain(weight_dtype).code(),
            first_row: 0,
            num_table_rows: num_rows as u32,
            width: width as u32,
            stride: out.stride() as u32,
            scale: 1.0,
            is_last: 1,
            rows_per_group: 0,
        };
        args.launch(launcher, Dtype::F32, num_rows)?;
        same_bits(weight_dtype.name(), &out.read(launcher)?, &expected)?;
    }
    Ok(())
}

/// Ids of a step from the slots that drew them; others stay.
pub(crate) fn resolve_tokens(launcher: &mut dyn Launcher, seed: u64) -> Result<(), LaunchError> {
    let mut random = Random::new("resolve_tokens", seed);
    for num_tokens in [1, 128, random.within(2, 300)] {
        let last: Vec<u32> = (0..9).map(|_| random.next() as u32).collect();
        let mut ids: Vec<u32> = (0..num_tokens).map(|_| random.next() as u32).collect();
        let from: Vec<u32> = (0..num_tokens)
            .map(|_| random.choose(&[ResolveTokens::NO_SLOT, 0, 3, 8]))
            .collect();
        let token_ids = upload(launcher, &ids)?;
        let args = ResolveTokens {
            token_ids,
            from_slots: upload(launcher, &from)?,
            last_tokens: upload(launcher, &last)?,
            num_tokens: num_tokens as u32,
            unused: 0,
        };
        args.launch(launcher)?;
        let mut found = vec![0u32; num_tokens];
        launcher.read(token_ids, bytemuck::cast_slice_mut(&mut found))?;
        for (id, &slot) in ids.iter_mut().zip(&from) {
            *id = last.get(slot as usize).copied().unwrap_or(*id);
        }
        if found != ids {
            let what = format!("resolve_tokens of {num_tokens}: {found:?}, not {ids:?}");
            return Err(LaunchError::Wrong(what));
        }
        launcher.free_all();
    }
    Ok(())
}
