//! What of a step goes to the device's library, and what does not; the emulator has one whose
//! products are plain sums over column-major matrices.
//!
//! Invariant: without a library, or with one that fails at the start, every bit is that of
//! `--numerics invariant`.

use std::sync::Arc;

use hotspare_batch::{
    Batch, Executor, ExecutorError, Row, SamplingParams, SlotInit, StepRunner, StopParams,
};
use hotspare_model::ModelRunner;

use super::CudaOps;
use super::failing_device::assets;
use crate::model_checks::Settings;
use crate::model_checks::harness::load;
use crate::{Dtype, EmulatedFault, Emulator, Numerics};

/// A row: its slot, tokens computed before, tokens of the step.
type RowOf = (u32, usize, usize);

const BLOCKS_PER_SLOT: u32 = 18;

/// A batch of these rows, each of which draws.
fn batch(rows: &[RowOf]) -> Batch {
    let mut batch = Batch::default();
    for &(slot, start, len) in rows {
        let (token, block) = (batch.token_ids.len(), batch.block_tables.len());
        let ids = (start..start + len).map(|i| (i * 7 + slot as usize * 31) as u32 % 200 + 1);
        batch.token_ids.extend(ids);
        let blocks = slot * BLOCKS_PER_SLOT..(slot + 1) * BLOCKS_PER_SLOT;
        batch.block_tables.extend(blocks);
        if start == 0 {
            batch.slot_inits.push(SlotInit {
                slot,
                token_ids: Arc::from([1]),
                num_prompt_tokens: 1,
                sampling: Arc::new(SamplingParams::greedy()),
                stop: Arc::new(StopParams::default()),
            });
        }
        batch.rows.push(Row {
            slot,
            num_computed_tokens: start as u32,
            tokens: token as u32..batch.token_ids.len() as u32,
            blocks: block as u32..batch.block_tables.len() as u32,
            samples: true,
            wants_prompt_logprobs: false,
            next_prompt_token: None,
        });
    }
    batch
}

/// A model, with a library that has `fault`, or without one.
fn runner(
    name: &str,
    library: Option<Option<EmulatedFault>>,
    dtype: Dtype,
) -> Option<ModelRunner<CudaOps<Emulator>>> {
    let mut device = Emulator::new(3);
    device.library.is_present = library.is_some();
    device.library.fault = library.flatten();
    let settings = Settings {
        numerics: Numerics::Fast,
        uses_graphs: true,
        ..Settings::new(dtype)
    };
    let path = assets(name)?;
    let runner = load(device, &path, settings).unwrap_or_else(|error| panic!("{error}"));
    Some(runner.into_runner())
}

fn logits(runner: &mut ModelRunner<CudaOps<Emulator>>, rows: &[RowOf]) -> Vec<f32> {
    let mut logits = Vec::new();
    let output = runner.run_with_logits(&batch(rows), &mut logits);
    let output = output.expect("it runs");
    assert!(output.rows.iter().all(|row| row.error.is_none()));
    logits
}

/// Products that went to the library so far: number and rows of the last.
fn products(runner: &mut ModelRunner<CudaOps<Emulator>>) -> (usize, usize) {
    let library = &runner.ops_mut().device().library;
    let last = library.products.last();
    (library.products.len(), last.map_or(0, |p| p.num_rows))
}

fn assert_close(found: &[f32], expected: &[f32], what: &str) {
    assert_eq!(found.len(), expected.len());
    let largest = expected.iter().fold(0f32, |max, x| max.max(x.abs()));
    for (i, (x, y)) in found.iter().zip(expected).enumerate() {
        assert!(
            (x - y).abs() <= 0.02 * largest,
            "{what}: logit {i} is {x}, own kernels' {y}"
        );
    }
}

#[test]
fn large_products_of_prompts_go_to_the_library() {
    // With biases on q, k and v, which are added behind the product.
    for dtype in Dtype::HALVES {
        let Some(mut fast) = runner("tiny/qwen2", Some(None), dtype) else {
            return;
        };
        let mut own = runner("tiny/qwen2", None, dtype).unwrap();
        assert!(fast.numerics_id().contains("-fast-reference-"));
        assert!(own.numerics_id().contains("-invariant-"));
        let num_planned = fast.ops_mut().device().library.plans.len();
        let found = logits(&mut fast, &[(0, 0, 200)]);
        assert_close(&found, &logits(&mut own, &[(0, 0, 200)]), "a prompt");
        let (per_step, rows) = products(&mut fast);
        // q, k, v; o; gate, up; down of each layer.
        assert!(per_step > 0 && per_step.is_multiple_of(4), "{per_step}");
        assert_eq!(rows, 200);
        // Decode steps, and few rows, do not.
        for rows in [&[(0, 200, 1)][..], &[(1, 0, 127)]] {
            let found = logits(&mut fast, rows);
            assert_close(&found, &logits(&mut own, rows), "few rows");
            assert_eq!(products(&mut fast).0, per_step, "{rows:?}");
        }
        // All rows of a mixed step do.
        let rows = [(0, 201, 1), (2, 0, 127)];
        let found = logits(&mut fast, &rows);
        assert_close(&found, &logits(&mut own, &rows), "a mixed step");
        assert_eq!(products(&mut fast), (2 * per_step, 128));
        // Nothing was planned after the start.
        assert_eq!(fast.ops_mut().device().library.plans.len(), num_planned);
        assert_eq!(products(&mut own).0, 0);
    }
}

#[test]
fn quantized_weights_are_widened_before() {
    let name = "gguf/llama-tiny.q8_0.gguf";
    let Some(mut fast) = runner(name, Some(None), Dtype::F16) else {
        return;
    };
    let mut own = runner(name, None, Dtype::F16).unwrap();
    let found = logits(&mut fast, &[(0, 0, 130)]);
    assert_close(&found, &logits(&mut own, &[(0, 0, 130)]), "a prompt");
    assert!(products(&mut fast).0 > 0);
    assert!(fast.numerics_id().contains("-fast-reference-"));
}

#[test]
fn a_library_that_fails_at_the_start_changes_no_bit() {
    let Some(mut own) = runner("tiny/qwen2", None, Dtype::F16) else {
        return;
    };
    let expected = logits(&mut own, &[(0, 0, 200)]);
    for fault in [
        EmulatedFault::Open,
        EmulatedFault::Plan,
        EmulatedFault::NoPlan,
    ] {
        let mut runner = runner("tiny/qwen2", Some(Some(fault)), Dtype::F16).unwrap();
        assert_eq!(runner.numerics_id(), own.numerics_id(), "{fault:?}");
        assert_eq!(logits(&mut runner, &[(0, 0, 200)]), expected, "{fault:?}");
        assert_eq!(products(&mut runner).0, 0);
        // Graphs are captured none the less.
        assert!(runner.ops_mut().device().num_graphs() > 0);
    }
    // f32 products have no library.
    let plain = runner("tiny/qwen2", Some(None), Dtype::F32).unwrap();
    assert!(plain.numerics_id().contains("-invariant-"));
}

#[test]
fn rows_that_a_plan_does_not_suit_are_own_kernels() {
    let fault = Some(Some(EmulatedFault::Refuse));
    let Some(mut refusing) = runner("tiny/qwen2", fault, Dtype::F16) else {
        return;
    };
    let mut own = runner("tiny/qwen2", None, Dtype::F16).unwrap();
    let rows = [(0, 0, 150)];
    assert_eq!(logits(&mut refusing, &rows), logits(&mut own, &rows));
}

#[test]
fn a_library_without_memory_is_left() {
    let fault = Some(Some(EmulatedFault::Memory));
    let Some(mut poor) = runner("tiny/qwen2", fault, Dtype::F16) else {
        return;
    };
    let mut own = runner("tiny/qwen2", None, Dtype::F16).unwrap();
    for slot in [0, 1] {
        let rows = [(slot, 0, 150)];
        assert_eq!(logits(&mut poor, &rows), logits(&mut own, &rows));
    }
    assert!(poor.numerics_id().contains("-invariant-"));
}

#[test]
fn a_product_that_fails_is_a_failure_of_the_device() {
    let fault = Some(Some(EmulatedFault::Run));
    let Some(mut runner) = runner("tiny/qwen2", fault, Dtype::F16) else {
        return;
    };
    for _ in 0..2 {
        let Err(ExecutorError::Device(what)) = runner.run(&batch(&[(0, 0, 150)])) else {
            panic!("it ran");
        };
        assert!(
            what.contains("kernel reference: execution failed"),
            "{what}"
        );
    }
}

#[test]
fn steps_in_flight_take_the_library_too() {
    let Some(inner) = runner("tiny/qwen2", Some(None), Dtype::F16) else {
        return;
    };
    let mut runner = hotspare_model::PipelinedRunner::new(inner);
    runner.submit(batch(&[(0, 0, 140)])).unwrap();
    runner.submit(batch(&[(1, 0, 140)])).unwrap();
    let tokens = [runner.wait().unwrap(), runner.wait().unwrap()].map(|output| {
        assert_eq!(output.rows.len(), 1);
        output.rows[0].token_ids.len()
    });
    assert_eq!(tokens, [1, 1]);
    let mut inner = runner.into_runner();
    assert!(products(&mut inner).0.is_multiple_of(8));
}
