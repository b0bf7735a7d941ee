//! Memory of graphs, on an emulator whose graphs hold some: how it is measured, set aside and kept.
//!
//! Invariant: weights, workspaces, KV cache and graphs together stay within the share that was
//! given; the sizes that are left out are the least important.

use hotspare_batch::{Executor, TokenId};
use hotspare_model::PipelinedRunner;

use super::CudaOps;
use super::buckets::{GraphKey, graph_keys};
use super::failing_device::{Failing, Failure, assets, model};
use super::graph_budget::NUM_SAMPLES;
use super::graphs::MAX_GRAPHS;
use crate::model_checks::Settings;
use crate::model_checks::harness::load;
use crate::model_checks::requests::Loop;
use crate::{DEFAULT_MAX_GRAPH_BYTES, Device, Dtype, Emulator, KvBudget};

/// Three layers of a head of 16 dimensions for keys and for values, 16 tokens, two bytes.
const BYTES_PER_BLOCK: usize = 16 * 384;
const MAX_BLOCKS: usize = 96;
/// So that more than the least free memory is left.
const MEMORY_BYTES: usize = 4 << 30;
/// About a megabyte for each graph of the small model.
const LAUNCH_BYTES: usize = 40_000;

fn settings(kv_budget: KvBudget) -> Settings {
    Settings {
        uses_graphs: true,
        max_num_seqs: 6,
        kv_budget,
        ..Settings::new(Dtype::F16)
    }
}

/// An emulator whose graphs hold so many bytes a launch, in pieces.
fn device(launch_bytes: usize, chunk_bytes: usize) -> Emulator {
    let mut device = Emulator::with_memory(0, MEMORY_BYTES);
    device.graph_bytes_per_launch = launch_bytes;
    device.graph_chunk_bytes = chunk_bytes;
    device
}

/// What a loaded model holds.
#[derive(Debug)]
struct Held {
    num_blocks: usize,
    num_graphs: usize,
    used_bytes: usize,
    max_graph_bytes: usize,
    keys: Vec<GraphKey>,
    all_keys: Vec<GraphKey>,
}

fn held<D: Device>(runner: PipelinedRunner<CudaOps<D>>) -> Held {
    let num_blocks = runner.info().num_blocks;
    let mut inner = runner.into_runner();
    let ops = inner.ops_mut();
    let memory = ops.device().memory().expect("it is well");
    let mut keys = ops.graphs.keys_in_order();
    keys.sort_by_key(GraphKey::importance);
    Held {
        num_blocks,
        num_graphs: ops.graphs.len(),
        used_bytes: memory.total_bytes - memory.free_bytes,
        max_graph_bytes: ops.graph_budget.max_bytes,
        keys,
        all_keys: graph_keys(&ops.work.as_ref().expect("it is loaded").shape, MAX_GRAPHS),
    }
}

/// What everything but cache and graphs takes.
fn other_bytes() -> Option<usize> {
    let settings = Settings {
        uses_graphs: false,
        ..settings(KvBudget::Exact)
    };
    let held = held(model(device(0, 1), settings)?);
    assert_eq!((held.num_blocks, held.num_graphs), (MAX_BLOCKS, 0));
    Some(held.used_bytes - MAX_BLOCKS * BYTES_PER_BLOCK)
}

#[test]
fn cache_and_graphs_share_what_is_left() {
    let Some(others) = other_bytes() else {
        return;
    };
    for (launch_bytes, chunk_bytes) in [(0, 1), (LAUNCH_BYTES, 1), (LAUNCH_BYTES, 2 << 20)] {
        let new_device = || device(launch_bytes, chunk_bytes);
        let all = settings(KvBudget::Utilization(0.9));
        let roomy = held(model(new_device(), all).unwrap());
        assert_eq!(roomy.num_blocks, MAX_BLOCKS);
        assert_eq!(roomy.keys, roomy.all_keys);
        // A share in which there is room for forty blocks beside the graphs.
        let graphs = roomy.max_graph_bytes;
        let allowed = others + graphs + 40 * BYTES_PER_BLOCK + 100;
        let share = KvBudget::Utilization(allowed as f64 / MEMORY_BYTES as f64);
        let tight = held(model(new_device(), settings(share)).unwrap());
        assert_eq!(tight.num_blocks, 40, "{tight:?}");
        assert_eq!(tight.keys, tight.all_keys);
        assert!(tight.used_bytes <= allowed, "{tight:?} of {allowed}");
        // Most of it is what graphs hold.
        let held_by_graphs = tight.used_bytes - others - 40 * BYTES_PER_BLOCK;
        match launch_bytes {
            0 => assert_eq!(held_by_graphs, 0),
            _ => assert!(2 * held_by_graphs >= graphs, "{held_by_graphs} of {graphs}"),
        }
        // Without graphs the cache has it.
        let without = Settings {
            uses_graphs: false,
            ..settings(share)
        };
        let without = held(model(new_device(), without).unwrap());
        let expected = (40 + graphs / BYTES_PER_BLOCK).min(MAX_BLOCKS);
        assert!(without.num_blocks >= expected && without.num_blocks > 40);
    }
}

#[test]
fn the_bound_cuts_the_number_of_graphs() {
    if assets("tiny/llama").is_none() {
        return;
    }
    for (kv_budget, bound, expected) in [
        (KvBudget::Exact, 0, 0..=0),
        (KvBudget::Exact, 5 << 20, 2..=4),
        (KvBudget::Utilization(0.9), 5 << 20, 2..=4),
        (KvBudget::Bytes(50 * BYTES_PER_BLOCK), 5 << 20, 2..=4),
        (KvBudget::Exact, DEFAULT_MAX_GRAPH_BYTES, 8..=8),
    ] {
        let settings = Settings {
            max_graph_bytes: bound,
            ..settings(kv_budget)
        };
        let held = held(model(device(LAUNCH_BYTES, 1), settings).unwrap());
        assert!(expected.contains(&held.num_graphs), "{bound}: {held:?}");
        // Short contexts and few rows first.
        assert_eq!(held.keys, held.all_keys[..held.num_graphs]);
        assert!(held.max_graph_bytes <= bound);
        let num_blocks = match kv_budget {
            KvBudget::Bytes(_) => 50,
            _ => MAX_BLOCKS,
        };
        assert_eq!(held.num_blocks, num_blocks);
    }
}

/// The tokens of a few steps of three sequences.
fn tokens<D: Device>(runner: &mut PipelinedRunner<CudaOps<D>>) -> Vec<TokenId> {
    let mut steps = Loop::new(&[&[1, 40, 77], &[9], &[5, 6]], 4);
    let mut tokens = Vec::new();
    for _ in 0..4 {
        runner.submit(steps.batch()).expect("it runs");
        let output = runner.wait().expect("it runs");
        tokens.extend(output.rows.into_iter().flat_map(|row| row.token_ids));
    }
    tokens
}

#[test]
fn graphs_that_are_larger_than_the_samples_stay_within_what_was_set_aside() {
    let Some(others) = other_bytes() else {
        return;
    };
    let roomy = settings(KvBudget::Utilization(0.9));
    let reserved = held(model(device(LAUNCH_BYTES, 1), roomy).unwrap()).max_graph_bytes;
    let allowed = others + reserved + MAX_BLOCKS * BYTES_PER_BLOCK + 100;
    let share = KvBudget::Utilization(allowed as f64 / MEMORY_BYTES as f64);
    let expected = {
        let without = Settings {
            uses_graphs: false,
            ..settings(share)
        };
        tokens(&mut model(device(0, 1), without).unwrap())
    };
    for (times, expected_graphs) in [(2, 5..=7), (4, 2..=4), (1000, 0..=0)] {
        for chunk_bytes in [1, 2 << 20] {
            let mut failing = Failing::new(Failure::Misuse);
            failing.inner = device(LAUNCH_BYTES, chunk_bytes);
            failing.later_graph_bytes_per_launch = Some(times * LAUNCH_BYTES);
            let mut runner = model(failing, settings(share)).unwrap();
            assert_eq!(tokens(&mut runner), expected, "{times}");
            let held = held(runner);
            assert!(held.used_bytes <= allowed, "{times}: {held:?} of {allowed}");
            assert_eq!(held.num_blocks, MAX_BLOCKS);
            if chunk_bytes == 1 {
                let num_graphs = held.num_graphs;
                assert!(expected_graphs.contains(&num_graphs), "{times}: {held:?}");
                // The most important ones, though they were captured last.
                assert_eq!(held.keys, held.all_keys[..num_graphs], "{times}");
            }
        }
    }
}

#[test]
fn a_cache_that_does_not_fit_beside_graphs_says_so() {
    let (Some(others), Some(path)) = (other_bytes(), assets("tiny/llama")) else {
        return;
    };
    // Enough for all of the cache without graphs.
    let allowed = others + MAX_BLOCKS * BYTES_PER_BLOCK;
    let share = KvBudget::Utilization(allowed as f64 / MEMORY_BYTES as f64);
    let Err(error) = load(device(LAUNCH_BYTES, 1), &path, settings(share)) else {
        panic!("it fits");
    };
    let error = error.to_string();
    assert!(error.contains("--max-cuda-graph-memory-bytes"), "{error}");
    assert!(error.contains("CUDA graphs get "), "{error}");
    let smaller = Settings {
        max_graph_bytes: 0,
        ..settings(share)
    };
    assert!(load(device(LAUNCH_BYTES, 1), &path, smaller).is_ok());
}

#[test]
fn samples_have_about_as_many_launches_as_steps() {
    for family in ["llama", "qwen2", "qwen3", "gemma2", "mixtral", "phi3"] {
        let Some(path) = assets(&format!("tiny/{family}")) else {
            return;
        };
        let runner = load(device(0, 1), &path, settings(KvBudget::Exact));
        let mut inner = runner.unwrap_or_else(|e| panic!("{e}")).into_runner();
        let ops = inner.ops_mut();
        let planned = ops.num_step_launches + super::graph_budget::NUM_OTHER_LAUNCHES;
        let real = ops.device().max_graph_launches();
        assert!(real > 10, "{family}: {real}");
        let most = real + real / 4 + 4;
        assert!(
            (real..=most).contains(&planned),
            "{family}: {planned}, {real}"
        );
    }
}

#[test]
fn a_sample_that_fails_costs_no_graph() {
    let Some(runner) = model(
        Failing::new(Failure::Misuse),
        Settings {
            uses_graphs: false,
            ..settings(KvBudget::Exact)
        },
    ) else {
        return;
    };
    let calls_before = runner.into_runner().ops_mut().device().num_calls;
    let mut device = Failing::new(Failure::Misuse);
    device.fail_at(calls_before + 40, 1);
    let mut inner = model(device, settings(KvBudget::Exact))
        .unwrap()
        .into_runner();
    let ops = inner.ops_mut();
    assert_eq!(ops.graphs.len(), ops.graph_budget.keys.len());
    assert_eq!(ops.device().inner.num_graphs(), 8);
    // Fewer were measured.
    let num_launches = ops.num_step_launches;
    let num_calls = ops.device().num_calls_at_drop - calls_before;
    assert!(num_calls >= 40 && num_calls < NUM_SAMPLES * num_launches);

    let mut device = Failing::new(Failure::Kernel);
    device.fail_at(calls_before + 40, usize::MAX);
    let path = assets("tiny/llama").unwrap();
    let Err(error) = load(device, &path, settings(KvBudget::Exact)) else {
        panic!("it loaded");
    };
    assert!(error.to_string().contains("an illegal address"), "{error}");
}
