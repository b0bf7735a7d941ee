//! Graphs that are captured at load: which, in what order, and what a capture that fails costs.
//!
//! Invariant: with or without a graph a step draws the same tokens.

use hotspare_batch::{Executor, TokenId};
use hotspare_model::PipelinedRunner;

use super::CudaOps;
use super::buckets::graph_keys;
use super::failing_device::{Failing, Failure, assets, model};
use super::graphs::MAX_GRAPHS;
use crate::model_checks::Settings;
use crate::model_checks::harness::load;
use crate::model_checks::requests::Loop;
use crate::{Device, Dtype, Emulator};

const NUM_STEPS: usize = 4;

fn settings(uses_graphs: bool) -> Settings {
    Settings {
        uses_graphs,
        max_num_seqs: 6,
        ..Settings::new(Dtype::F16)
    }
}

/// The tokens of a few steps of three sequences.
fn tokens<D: Device>(runner: &mut PipelinedRunner<CudaOps<D>>) -> Vec<TokenId> {
    let mut steps = Loop::new(&[&[1, 40, 77], &[9], &[5, 6]], NUM_STEPS);
    let mut tokens = Vec::new();
    for _ in 0..NUM_STEPS {
        runner.submit(steps.batch()).expect("it runs");
        let output = runner.wait().expect("it runs");
        for row in output.rows {
            assert_eq!(row.error, None);
            tokens.extend(row.token_ids);
        }
    }
    tokens
}

fn single_tokens() -> Option<Vec<TokenId>> {
    Some(tokens(&mut model(Emulator::new(0), settings(false))?))
}

#[test]
fn every_bucket_is_captured_at_load_largest_first() {
    let Some(expected) = single_tokens() else {
        return;
    };
    let mut runner = model(Emulator::new(1), settings(true)).unwrap();
    assert_eq!(tokens(&mut runner), expected);
    let mut inner = runner.into_runner();
    let ops = inner.ops_mut();
    let keys = graph_keys(&ops.work.as_ref().unwrap().shape, MAX_GRAPHS);
    // 1, 2, 4 and 6 rows, of contexts of one split and of more.
    assert!(keys.len() >= 4 && keys.len().is_multiple_of(4), "{keys:?}");
    let captured = ops.graphs.keys_in_order();
    assert_eq!(captured.len(), keys.len());
    assert!(captured.is_sorted_by(|a, b| a > b), "{captured:?}");
    // Each decode step was one; none was captured meanwhile.
    assert_eq!(ops.device().num_replays(), NUM_STEPS - 1);
    assert_eq!(ops.device().num_graphs(), keys.len());
}

#[test]
fn a_capture_that_fails_costs_its_graph() {
    let Some(expected) = single_tokens() else {
        return;
    };
    let num_all = {
        let mut runner = model(Failing::new(Failure::Misuse), settings(true)).unwrap();
        assert_eq!(tokens(&mut runner), expected);
        let mut inner = runner.into_runner();
        inner.ops_mut().device().inner.num_graphs()
    };
    for failure in [Failure::Misuse, Failure::Memory] {
        // In the second capture; in all.
        for (num_fails, num_left) in [(1, num_all - 1), (usize::MAX, 0)] {
            let mut device = Failing::new(failure);
            device.fail_at(calls_of_load() + 40, num_fails);
            let mut inner = model(device, settings(true)).unwrap().into_runner();
            let device = &mut inner.ops_mut().device;
            assert!(!device.is_capturing);
            device.fails_at = usize::MAX;
            // Those before the failure stay.
            let num_graphs = device.inner.num_graphs();
            assert!(
                num_graphs.abs_diff(num_left) <= 1,
                "{num_graphs} of {num_all}"
            );
            assert!(num_graphs < num_all);
            let mut runner = PipelinedRunner::new(inner);
            assert_eq!(tokens(&mut runner), expected, "{failure:?} {num_fails}");
        }
    }
}

/// Calls that loading makes before it captures what it keeps.
fn calls_of_load() -> usize {
    let runner = model(Failing::new(Failure::Misuse), settings(true));
    let mut inner = runner.expect("the test data is there").into_runner();
    inner.ops_mut().device().num_calls_at_drop
}

#[test]
fn a_device_that_is_lost_while_capturing_ends_the_start() {
    let Some(path) = assets("tiny/llama") else {
        return;
    };
    let mut device = Failing::new(Failure::Kernel);
    device.fail_at(calls_of_load() + 40, usize::MAX);
    let Err(error) = load(device, &path, settings(true)) else {
        panic!("it loaded");
    };
    assert!(error.to_string().contains("an illegal address"), "{error}");
}

#[test]
fn without_memory_for_graphs_there_are_none() {
    let Some(expected) = single_tokens() else {
        return;
    };
    // Much less than the driver may want for graphs, and enough for the model.
    let device = Emulator::with_memory(0, 40 << 20);
    let mut runner = model(device, settings(true)).unwrap();
    assert_eq!(tokens(&mut runner), expected);
    let mut inner = runner.into_runner();
    assert_eq!(inner.ops_mut().device().num_graphs(), 0);
}
