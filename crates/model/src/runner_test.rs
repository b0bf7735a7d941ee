//! The model's code over the naive backend, against golden files; and the runner's own checks.

use std::sync::Arc;

use hotspare_batch::{
    Batch, ExecutorError, Row, SamplingParams, SlotInit, StepRunner, TOKEN_FROM_DEVICE, TokenId,
};
use serde_json::{Value, json};

use crate::ops::StepLimits;
use crate::testing::{NaiveOps, TINY_FAMILIES, TinyModel, assets};
use crate::weights::WeightDtype;
use crate::{LoadOptions, ModelRunner, ModelSource};

const BLOCK_SIZE: usize = 4;

fn options(max_model_len: usize) -> LoadOptions {
    LoadOptions {
        limits: StepLimits {
            max_num_batched_tokens: 128,
            max_num_seqs: 2,
            max_model_len,
        },
        num_blocks: 64,
        block_size: BLOCK_SIZE,
        kv_dtype: WeightDtype::F32,
        quantization: None,
    }
}

fn runner(path: &std::path::Path, max_model_len: usize) -> ModelRunner<NaiveOps> {
    let files = ModelSource::resolve(path.to_str().unwrap())
        .unwrap()
        .open()
        .unwrap();
    ModelRunner::load(
        NaiveOps::new(2),
        &files,
        &options(max_model_len),
        &mut |_| {},
    )
    .unwrap()
}

/// A batch of one greedy row: `ids` after `num_computed` others.
fn batch(ids: &[TokenId], num_computed: usize, is_first: bool) -> Batch {
    let num_blocks = (num_computed + ids.len()).div_ceil(BLOCK_SIZE) as u32;
    let init = SlotInit {
        slot: 1,
        token_ids: ids.into(),
        num_prompt_tokens: ids.len() as u32,
        sampling: Arc::new(SamplingParams::greedy()),
        stop: Arc::default(),
    };
    Batch {
        step: 3,
        slot_inits: if is_first { vec![init] } else { Vec::new() },
        rows: vec![Row {
            slot: 1,
            num_computed_tokens: num_computed as u32,
            tokens: 0..ids.len() as u32,
            blocks: 0..num_blocks,
            samples: true,
            wants_prompt_logprobs: false,
            next_prompt_token: None,
        }],
        token_ids: ids.to_vec(),
        // Blocks in falling order, so that a place in the pool is not a position.
        block_tables: (0..num_blocks).map(|block| 63 - block).collect(),
        ..Batch::default()
    }
}

fn ids(value: &Value) -> Vec<TokenId> {
    value
        .as_array()
        .unwrap()
        .iter()
        .map(|id| id.as_u64().unwrap() as TokenId)
        .collect()
}

#[test]
fn tiny_models_match_transformers() {
    for name in TINY_FAMILIES {
        let Some(path) = assets("model golden", &format!("tiny/{name}")) else {
            return;
        };
        let golden = std::fs::read(path.join("golden.json")).unwrap();
        let golden: Value = serde_json::from_slice(&golden).unwrap();
        for case in golden["cases"].as_array().unwrap() {
            let prompt = ids(&case["prompt_ids"]);
            let mut runner = runner(&path, 128);
            let mut logits = Vec::new();
            let output = runner
                .run_with_logits(&batch(&prompt, 0, true), &mut logits)
                .unwrap();
            let expected = case["last_logits"].as_array().unwrap();
            let expected: Vec<f32> = expected
                .iter()
                .map(|x| x.as_f64().unwrap() as f32)
                .collect();
            let largest = expected.iter().fold(0f32, |max, x| max.max(x.abs()));
            assert_eq!(logits.len(), expected.len());
            for (found, expected) in logits.iter().zip(&expected) {
                assert!(
                    (found - expected).abs() < 1e-4 * largest,
                    "{name}: {found} {expected}"
                );
            }
            if case["min_margin"].as_f64().unwrap() < 2e-3 {
                continue;
            }
            let mut greedy = output.rows[0].token_ids.to_vec();
            let expected = ids(&case["greedy_ids"]);
            while greedy.len() < expected.len() {
                let num_computed = prompt.len() + greedy.len() - 1;
                let output = runner.run(&batch(&[TOKEN_FROM_DEVICE], num_computed, false));
                greedy.extend_from_slice(&output.unwrap().rows[0].token_ids);
            }
            assert_eq!(greedy, expected, "{name}, prompt of {}", prompt.len());
        }
    }
}

/// Logits of the last of eleven tokens.
fn last_logits(model: &TinyModel) -> Vec<f32> {
    let directory = model.write();
    let mut runner = runner(directory.path(), 32);
    let prompt = [3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5];
    let mut logits = Vec::new();
    runner
        .run_with_logits(&batch(&prompt, 0, true), &mut logits)
        .unwrap();
    logits
}

/// A layer without rotary embedding is one whose angles are all nothing: Llama with frequencies
/// divided until no position turns by a bit.
#[test]
fn layers_without_rope_see_no_positions() {
    let mut llama = TinyModel::new();
    let rotated = last_logits(&llama);
    llama.config["rope_scaling"] = json!({"type": "linear", "factor": 1e30});
    let still = last_logits(&llama);
    let mut smol = TinyModel::new();
    smol.config["architectures"] = json!(["SmolLM3ForCausalLM"]);
    smol.config["no_rope_layers"] = json!([0, 0]);
    smol.config["rope_theta"] = json!(10_000.0);
    assert_eq!(last_logits(&smol), still);
    smol.config["no_rope_layers"] = json!([1, 1]);
    assert_eq!(last_logits(&smol), rotated);
    smol.config["no_rope_layers"] = json!([1, 0]);
    let mixed = last_logits(&smol);
    assert!(mixed != still && mixed != rotated);
}

/// Each bias that a Llama config switches on is needed, and enters the result.
#[test]
fn biases_of_llama_are_added() {
    let mut model = TinyModel::new();
    let without = last_logits(&model);
    model.config["attention_bias"] = json!(true);
    model.config["mlp_bias"] = json!(true);
    let names: Vec<String> = [
        "self_attn.q_proj",
        "self_attn.k_proj",
        "self_attn.v_proj",
        "self_attn.o_proj",
        "mlp.gate_proj",
        "mlp.up_proj",
        "mlp.down_proj",
    ]
    .iter()
    .flat_map(|part| (0..2).map(move |layer| format!("model.layers.{layer}.{part}")))
    .collect();
    let add = |model: &mut TinyModel, name: &str, is_zero: bool| {
        let width = model.tensors[&format!("{name}.weight")].1[0];
        let bias = format!("{name}.bias");
        model.add(&bias, &[width]);
        if is_zero {
            let bytes = &mut model.tensors.get_mut(&bias).unwrap().2;
            bytes.fill(0);
        }
    };
    let directory = model.write();
    let files = ModelSource::resolve(directory.path().to_str().unwrap()).unwrap();
    let loaded = ModelRunner::load(
        NaiveOps::new(2),
        &files.open().unwrap(),
        &options(32),
        &mut |_| {},
    );
    let error = loaded.err().unwrap().to_string();
    assert!(error.contains("layers.0.self_attn.q_proj.bias"), "{error}");
    for name in &names {
        add(&mut model, name, true);
    }
    assert_eq!(last_logits(&model), without);
    for name in &names {
        add(&mut model, name, false);
        // Without rotation a bias of k would shift all scores of a row alike, and not show.
        assert!(last_logits(&model) != without, "{name}");
        add(&mut model, name, true);
    }
}

/// Two engines whose contexts choose other frequencies do not claim the same bits.
#[test]
fn the_numerics_id_tells_of_the_length_where_it_matters() {
    let id = |model: &TinyModel, max_model_len| {
        let directory = model.write();
        runner(directory.path(), max_model_len).numerics_id()
    };
    let mut model = TinyModel::new();
    assert_eq!(id(&model, 20), id(&model, 64));
    model.config["rope_scaling"] = json!({"type": "dynamic", "factor": 2.0});
    assert_eq!(id(&model, 20), id(&model, 64));
    assert_ne!(id(&model, 64), id(&model, 100));
}

#[test]
fn a_batch_that_breaks_a_limit_is_refused() {
    let directory = TinyModel::new().write();
    let mut runner = runner(directory.path(), 20);
    let good = batch(&[1, 2, 3], 0, true);
    assert_eq!(runner.run(&good).unwrap().step, 3);
    let mut refuse = |change: fn(&mut Batch), expected: &str| {
        let mut bad = good.clone();
        change(&mut bad);
        match runner.run(&bad) {
            Err(ExecutorError::Misuse(what)) => assert!(what.contains(expected), "{what}"),
            other => panic!("{expected}: {other:?}"),
        }
    };
    refuse(|b| b.token_ids[1] = 24, "token id");
    refuse(|b| b.block_tables[0] = 64, "block");
    refuse(|b| b.rows[0].slot = 2, "slot");
    refuse(|b| b.slot_inits[0].slot = 9, "slot");
    refuse(|b| b.rows[0].num_computed_tokens = 2, "enough blocks");
    refuse(|b| b.rows[0].num_computed_tokens = 18, "max_model_len");
    refuse(
        |b| b.rows[0].num_computed_tokens = u32::MAX,
        "max_model_len",
    );
    refuse(|b| b.rows[0].tokens = 0..0, "without tokens");
    refuse(|b| b.rows[0].tokens = 1..3, "partition");
    refuse(|b| b.token_ids.push(1), "cover");
    refuse(|b| b.token_ids = vec![1; 129], "max_num_batched_tokens");
    refuse(|b| b.rows = vec![b.rows[0].clone(); 3], "max_num_seqs");
}
