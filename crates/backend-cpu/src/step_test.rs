//! Whole steps through a one-layer model: what a batch may say, and what it gets.

use std::sync::Arc;

use hotspare_batch::{
    Batch, Row, RowError, RowOutput, SamplingParams, TOKEN_FROM_DEVICE, TokenMask,
};
use hotspare_model::ops::{AttentionSpec, KvCacheSpec, Ops, OpsError, Parallelism, RopeTable};
use hotspare_model::weights::WeightDtype;
use proptest::prelude::*;

use crate::testing::{Random, RowPlan, batch, ops, slot_init, weights};
use crate::{CpuBuffer, CpuKvCache, CpuLinear, CpuOps, CpuVector};

const VOCAB: usize = 100;
const HIDDEN: usize = 32;
const NUM_BLOCKS: usize = 24;
const BLOCK_SIZE: usize = 16;
const MAX_POSITION: usize = 300;
static SPEC: AttentionSpec = AttentionSpec {
    num_heads: 2,
    num_kv_heads: 1,
    head_dim: 16,
    scale: 0.25,
    sliding_window: None,
    logits_soft_cap: None,
    sinks: Vec::new(),
};

struct TinyModel {
    ops: CpuOps,
    table: CpuLinear,
    qkv: CpuLinear,
    norm: CpuVector,
    rope: Arc<RopeTable>,
    kv: CpuKvCache,
    buffers: [CpuBuffer; 6],
}

impl TinyModel {
    fn new(num_threads: usize) -> Self {
        let mut random = Random(31);
        let mut ops = ops(num_threads);
        let mut linear = |ops: &mut CpuOps, n| {
            let view = weights(&mut random, WeightDtype::Bf16, &[n, HIDDEN], 0).0;
            ops.new_linear(vec![view], Parallelism::Replicated).unwrap()
        };
        let (table, qkv) = (linear(&mut ops, VOCAB), linear(&mut ops, 64));
        let norm = weights(&mut random, WeightDtype::F32, &[HIDDEN], 0).0;
        let widths = [HIDDEN, HIDDEN, 64, 32, HIDDEN, VOCAB];
        let angles = random.floats(MAX_POSITION * 8);
        Self {
            norm: ops.new_vector(vec![norm], 0.0).unwrap(),
            rope: Arc::new(RopeTable {
                rotary_dim: 16,
                is_interleaved: false,
                cos: angles.iter().map(|a| a.cos()).collect(),
                sin: angles.iter().map(|a| a.sin()).collect(),
            }),
            kv: ops
                .new_kv_cache(&KvCacheSpec {
                    num_layers: 1,
                    num_blocks: NUM_BLOCKS,
                    block_size: BLOCK_SIZE,
                    num_kv_heads: 1,
                    head_dim: 16,
                    dtype: WeightDtype::F16,
                })
                .unwrap(),
            buffers: widths.map(|width| ops.new_buffer(512, width).unwrap()),
            ops,
            table,
            qkv,
        }
    }

    fn step(&mut self, batch: &Batch) -> Result<Vec<RowOutput>, OpsError> {
        let Self {
            ops,
            table,
            qkv,
            norm,
            rope,
            kv,
            buffers,
        } = self;
        let [residual, normed, qkv_rows, attended, last, logits] = buffers;
        ops.begin(batch);
        ops.embed(table, 1.0, residual);
        ops.rms_norm(residual, norm, 1e-5, normed);
        ops.linear(normed, qkv, qkv_rows);
        ops.rope_kv_write(qkv_rows, rope, &SPEC, 0, kv);
        ops.attention(qkv_rows, &SPEC, 0, kv, attended);
        ops.add_rms_norm(attended, residual, norm, 1e-5, normed);
        ops.gather_logits_rows(normed, last);
        ops.linear(last, table, logits);
        ops.sample(logits)
    }
}

fn prompt(len: usize) -> Vec<u32> {
    (0..len as u32).map(|i| i * 37 % VOCAB as u32).collect()
}

/// A batch in which slot 0 reads a prompt.
fn prefill(tokens: &[u32]) -> Batch {
    let blocks: Vec<u32> = (0..16).collect();
    let plan = RowPlan {
        slot: 0,
        num_computed: 0,
        tokens,
        blocks: &blocks,
    };
    let mut batch = batch(&[plan], BLOCK_SIZE);
    batch.slot_inits = vec![slot_init(0, tokens)];
    batch
}

#[test]
fn the_last_drawn_token_is_taken_from_the_device() {
    let tokens = prompt(20);
    let blocks: Vec<u32> = (0..16).collect();
    let mut known = tokens.clone();
    let mut model = TinyModel::new(1);
    let mut output = model.step(&prefill(&tokens)).unwrap();
    for _ in 0..6 {
        assert_eq!(output[0].token_ids.len(), 1);
        known.extend(&output[0].token_ids);
        // The same prompt and output, read in one step by another model.
        let mut other = TinyModel::new(1);
        let expected = other.step(&prefill(&known)).unwrap();
        let token = [TOKEN_FROM_DEVICE];
        let num_computed = known.len() - 1;
        let plan = RowPlan {
            slot: 0,
            num_computed,
            tokens: &token,
            blocks: &blocks,
        };
        output = model.step(&batch(&[plan], BLOCK_SIZE)).unwrap();
        assert_eq!(output[0].token_ids, expected[0].token_ids);
    }
    let timings = model.ops.take_timings();
    assert!(timings.total_ns >= timings.linear_ns + timings.attention_ns + timings.sample_ns);
    assert!(timings.linear_ns > 0 && timings.attention_ns > 0 && timings.sample_ns > 0);
    assert_eq!(
        model.ops.take_timings(),
        hotspare_batch::StepTimings::default()
    );
}

#[test]
fn a_row_that_does_not_sample_says_nothing_and_others_are_not_moved() {
    let mut model = TinyModel::new(1);
    let tokens = prompt(9);
    let alone = model.step(&prefill(&tokens)).unwrap();
    let plans = [(0u32, 0u32), (1, 4), (2, 8)].map(|(slot, block)| (slot, [block, block + 1]));
    let plans: Vec<RowPlan<'_>> = plans
        .iter()
        .map(|(slot, blocks)| RowPlan {
            slot: *slot,
            num_computed: 0,
            tokens: &tokens,
            blocks,
        })
        .collect();
    let mut three = batch(&plans, BLOCK_SIZE);
    three.slot_inits = (0..3).map(|slot| slot_init(slot, &tokens)).collect();
    three.rows[1].samples = false;
    let outputs = model.step(&three).unwrap();
    assert_eq!(
        outputs[1],
        RowOutput {
            slot: 1,
            ..RowOutput::default()
        }
    );
    assert_eq!(outputs[0].token_ids, alone[0].token_ids);
    assert_eq!(outputs[2].token_ids, alone[0].token_ids);
}

#[test]
fn prompt_logprobs_are_those_of_the_tokens_that_follow() {
    let tokens = prompt(21);
    let params = SamplingParams {
        num_prompt_logprobs: Some(2),
        ..SamplingParams::greedy()
    };
    let run = |cut: usize| {
        let mut model = TinyModel::new(1);
        let blocks: Vec<u32> = (3..9).collect();
        let mut entries = Vec::new();
        for (start, end) in [(0, cut), (cut, tokens.len())] {
            let tokens_of = &tokens[start..end];
            if tokens_of.is_empty() {
                continue;
            }
            let plan = RowPlan {
                slot: 3,
                num_computed: start,
                tokens: tokens_of,
                blocks: &blocks,
            };
            let mut batch = batch(&[plan], BLOCK_SIZE);
            batch.rows[0].wants_prompt_logprobs = true;
            batch.rows[0].samples = end == tokens.len();
            batch.rows[0].next_prompt_token = tokens.get(end).copied();
            if start == 0 {
                batch.slot_inits = vec![slot_init(3, &tokens)];
                batch.slot_inits[0].sampling = Arc::new(params.clone());
            }
            let output = model.step(&batch).unwrap().remove(0);
            assert_eq!(output.token_ids.len(), usize::from(end == tokens.len()));
            entries.extend(output.prompt_logprobs);
        }
        entries
    };
    let whole = run(0);
    assert_eq!(whole.len(), tokens.len() - 1);
    for (entry, token) in whole.iter().zip(&tokens[1..]) {
        assert_eq!(entry.token, *token);
        assert!(entry.logprob < 0.0 && entry.top.len() == 2);
        assert!(entry.top[0].1 >= entry.logprob);
    }
    assert_eq!(whole, run(13), "chunks do not show");
}

#[test]
fn a_row_draws_what_its_mask_allows() {
    let tokens = prompt(5);
    let mut batch = prefill(&tokens);
    let free = TinyModel::new(1).step(&batch).unwrap()[0].token_ids[0];
    let allowed = (free + 1) % VOCAB as u32;
    let mut words = vec![0; VOCAB.div_ceil(32)];
    words[allowed as usize / 32] = 1 << (allowed % 32);
    batch.token_masks = vec![TokenMask {
        row: 0,
        words: words.into(),
    }];
    batch.check_integrity(BLOCK_SIZE);
    let masked = TinyModel::new(1).step(&batch).unwrap();
    assert_eq!(masked[0].token_ids[..], [allowed]);
}

#[test]
fn a_token_or_position_that_does_not_exist_fails_its_own_sequence() {
    let good = prompt(5);
    let expected = TinyModel::new(1).step(&prefill(&good)).unwrap();
    let far = vec![1; 3];
    let cases: [(&[u32], usize); 3] = [
        (&[1, VOCAB as u32], 0),
        (&[7, TOKEN_FROM_DEVICE - 1], 0),
        (&far, MAX_POSITION - 1),
    ];
    for (bad, num_computed) in cases {
        let mut model = TinyModel::new(1);
        let blocks: Vec<u32> = (2..22).collect();
        let plans = [
            RowPlan {
                slot: 0,
                num_computed: 0,
                tokens: &good,
                blocks: &[0],
            },
            RowPlan {
                slot: 1,
                num_computed,
                tokens: bad,
                blocks: &blocks,
            },
        ];
        let mut batch = batch(&plans, BLOCK_SIZE);
        batch.slot_inits = vec![slot_init(0, &good), slot_init(1, &[1])];
        let outputs = model.step(&batch).unwrap();
        assert_eq!(outputs[0], expected[0]);
        let position = (num_computed + bad.len() - 1) as u32;
        assert_eq!(outputs[1].error, Some(RowError::InvalidLogits { position }));
        assert!(outputs[1].token_ids.is_empty());
    }
}

#[test]
fn what_does_not_fit_the_device_is_its_fault_and_the_next_step_works() {
    let tokens = prompt(5);
    let mut cases = Vec::new();
    let mut case = |what: &str, change: &dyn Fn(&mut Batch)| {
        let mut batch = prefill(&tokens);
        change(&mut batch);
        cases.push((what.to_owned(), batch));
    };
    case("block 24 of a pool of 24", &|b| {
        b.block_tables[0] = NUM_BLOCKS as u32
    });
    case("slot 32 of 32", &|b| b.rows[0].slot = 32);
    case("slot 99 does not exist", &|b| b.slot_inits[0].slot = 99);
    case("0 blocks for a context of 5", &|b| {
        b.block_tables.clear();
        b.rows[0].blocks = 0..0;
    });
    case("two rows of slot 0", &|b| {
        let row = b.rows[0].clone();
        b.rows.push(Row {
            tokens: 5..10,
            blocks: 1..2,
            ..row
        });
        b.token_ids.extend([1; 5]);
        b.block_tables.push(5);
    });
    case("a batch of 513 tokens", &|b| {
        b.token_ids = vec![0; 513];
        b.rows[0].tokens = 0..513;
        b.block_tables = vec![0; 33];
        b.rows[0].blocks = 0..33;
    });
    let mut model = TinyModel::new(1);
    let expected = model.step(&prefill(&tokens)).unwrap();
    for (what, batch) in cases {
        let error = model.step(&batch).unwrap_err();
        assert!(matches!(error, OpsError::Device(_)), "{error}");
        assert!(
            error.to_string().contains(&what),
            "{error} does not say {what}"
        );
        assert_eq!(model.step(&prefill(&tokens)).unwrap(), expected);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_batch_that_is_whole_panics(
        rows in prop::collection::vec(
            (0u32..40, 0u32..330, 1u32..30, any::<[bool; 4]>(), 0u32..26), 0..12,
        ),
        num_threads in 1usize..3,
    ) {
        let mut batch = Batch::default();
        for (slot, computed, num_tokens, [samples, prompt, init, next], block) in rows {
            let (token, first) = (batch.token_ids.len() as u32, batch.block_tables.len() as u32);
            let num_blocks = (computed + num_tokens).div_ceil(BLOCK_SIZE as u32);
            batch.token_ids.extend((0..num_tokens).map(|i| match i % 11 {
                10 => TOKEN_FROM_DEVICE,
                i => i * slot,
            }));
            batch.block_tables.extend((0..num_blocks).map(|i| (block + i) % 25));
            batch.rows.push(Row {
                slot,
                num_computed_tokens: computed,
                tokens: token..token + num_tokens,
                blocks: first..first + num_blocks,
                samples,
                wants_prompt_logprobs: prompt,
                next_prompt_token: next.then_some(slot * 9),
            });
            if init {
                batch.slot_inits.push(slot_init(slot, &[slot]));
            }
        }
        batch.check_integrity(BLOCK_SIZE);
        match TinyModel::new(num_threads).step(&batch) {
            Ok(outputs) => prop_assert_eq!(outputs.len(), batch.rows.len()),
            Err(error) => prop_assert!(matches!(error, OpsError::Device(_))),
        }
    }
}
