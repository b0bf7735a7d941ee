//! Paged, ragged, causal attention with grouped heads: which piece of work goes where.
//!
//! A row of decode is one item, or one per K/V head where rows are few; a prefill chunk is cut into
//! runs of a few tokens that pass over the keys together, so that K and V come from the far caches
//! once a run.
//!
//! Invariant: a token's bits depend on its own q and on K and V at positions 0 up to its own:
//! splits of keys are counted from position 0 and merged in order, in decode, prefill and replay
//! alike.

#[cfg(test)]
mod attention_test;
mod kernel;

use std::cell::RefCell;
use std::ops::Range;

use hotspare_batch::BlockId;
use hotspare_model::ops::AttentionSpec;

use self::kernel::{Element, Scratch};
use crate::buffer::CpuBuffer;
use crate::kv_cache::{CpuKvCache, KvGeometry, KvPool};
use crate::simd::Isa;
use crate::step::Step;
use crate::workers::{ItemSize, Workers};

/// Tokens of a prefill chunk that pass over the keys together.
pub(crate) const MAX_RUN_TOKENS: usize = 8;

/// Rows a thread from which on one row's heads are not divided.
const MIN_ROWS_PER_THREAD: usize = 4;

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::new(Scratch::new());
}

/// Everything that all items of one call share.
pub(crate) struct AttentionCall<'a, E> {
    pub(crate) spec: &'a AttentionSpec,
    pub(crate) geometry: KvGeometry,
    pub(crate) pool: &'a KvPool<E>,
    /// `[num_tokens, (num_heads + 2 num_kv_heads) * head_dim]`, q first, rotated.
    pub(crate) qkv: &'a [f32],
    pub(crate) step: &'a Step,
}

impl<E> AttentionCall<'_, E> {
    /// Query heads that share a K/V head.
    pub(crate) fn group(&self) -> usize {
        self.spec.num_heads / self.spec.num_kv_heads
    }

    /// The query of `head` of `token`.
    pub(crate) fn query(&self, token: usize, head: usize) -> &[f32] {
        let d = self.spec.head_dim;
        let width = (self.spec.num_heads + 2 * self.spec.num_kv_heads) * d;
        &self.qkv[token * width + head * d..][..d]
    }

    /// Positions that the token at `position` sees.
    pub(crate) fn visible(&self, position: usize) -> Range<usize> {
        let end = position + 1;
        end.saturating_sub(self.spec.sliding_window.unwrap_or(end))..end
    }
}

/// Tokens of one row, and the K/V heads to compute for them.
#[derive(Clone, Debug)]
pub(crate) struct Item {
    /// Tokens of the step, all of one row.
    pub(crate) tokens: Range<usize>,
    /// Position of the first.
    pub(crate) position: usize,
    /// The row's block table in the step's.
    pub(crate) blocks: Range<usize>,
    pub(crate) kv_heads: Range<usize>,
}

/// Whether buffer, cache, step and spec are about the same thing.
pub(crate) fn check(
    qkv: &CpuBuffer,
    spec: &AttentionSpec,
    layer: usize,
    kv: &CpuKvCache,
    step: &Step,
) -> Result<(), String> {
    let g = kv.geometry();
    let width = (spec.num_heads + 2 * spec.num_kv_heads) * spec.head_dim;
    let fits = qkv.width() == width
        && qkv.num_rows() == step.token_ids().len()
        && g.head_dim == spec.head_dim
        && g.num_kv_heads == spec.num_kv_heads
        && spec.num_heads.is_multiple_of(spec.num_kv_heads)
        && (spec.sinks.is_empty() || spec.sinks.len() == spec.num_heads)
        && layer < kv.num_layers();
    if fits {
        Ok(())
    } else {
        Err(format!(
            "attention: {spec:?} of layer {layer} does not fit {g:?}"
        ))
    }
}

/// Computes attention for every token of the step. `items` is scratch.
pub(crate) fn attend<E: Element>(
    isa: Isa,
    workers: &Workers,
    call: &AttentionCall<'_, E>,
    items: &mut Vec<Item>,
    out: &mut [f32],
) {
    let spec = call.spec;
    plan(call.step, spec.num_kv_heads, workers.num_threads(), items);
    let group_len = call.group() * spec.head_dim;
    let size = |item: &Item| ItemSize {
        len: item.tokens.len() * item.kv_heads.len() * group_len,
        cost: item.tokens.len()
            * item.kv_heads.len()
            * (64 + call.visible(item.position + item.tokens.len() - 1).len()),
    };
    // About 34 multiply-adds a nanosecond, two for each key and dimension.
    let work_ns = items.iter().map(|item| size(item).cost).sum::<usize>() * group_len / 17;
    workers.items(items, out, work_ns, &size, &|item, out| {
        SCRATCH.with_borrow_mut(|scratch| E::run(isa, call, item, out, scratch));
    });
}

/// Items in the order of the output: tokens, then heads. Where there are rows enough for all
/// threads, a token's heads stay together: each brings the next one's keys near.
fn plan(step: &Step, num_kv_heads: usize, num_threads: usize, items: &mut Vec<Item>) {
    let heads_together = match step.rows().len() >= MIN_ROWS_PER_THREAD * num_threads {
        true => num_kv_heads,
        false => 1,
    };
    items.clear();
    for row in step.rows() {
        let blocks = row.blocks.start as usize..row.blocks.end as usize;
        let (first, num_tokens) = (row.tokens.start as usize, row.num_tokens());
        let position = row.num_computed_tokens as usize;
        if num_tokens == 1 {
            let heads = (0..num_kv_heads).step_by(heads_together);
            items.extend(heads.map(|head| Item {
                tokens: first..first + 1,
                position,
                blocks: blocks.clone(),
                kv_heads: head..head + heads_together,
            }));
            continue;
        }
        items.extend((0..num_tokens).step_by(MAX_RUN_TOKENS).map(|at| Item {
            tokens: first + at..first + num_tokens.min(at + MAX_RUN_TOKENS),
            position: position + at,
            blocks: blocks.clone(),
            kv_heads: 0..num_kv_heads,
        }));
    }
}

/// The blocks of an item.
pub(crate) fn item_blocks<'a, E>(call: &AttentionCall<'a, E>, item: &Item) -> &'a [BlockId] {
    &call.step.block_tables()[item.blocks.clone()]
}
