//! Models of forms that the shared test data lacks, against what transformers computed for them:
//! other rope scalings beyond their original length, windows by config, stacked experts, layers
//! without rope, biases, text models inside others.
//!
//! `transformers/make_goldens.py` made the expected logits, and says with which versions. Weights
//! are a function of their tensor's name, computed here as there.
//!
//! Invariant: logits within 1e-4 of the largest magnitude; in chunks of three and after a cached
//! prefix the same bits.

use std::collections::BTreeMap;
use std::path::Path;

use hotspare_batch::{SamplingParams, TokenId};
use serde_json::{Value, json};

use super::harness::{BLOCK_SIZE, Harness, assert_close};

/// A tensor to write: dtype, shape, bytes.
type Tensor = (&'static str, Vec<usize>, Vec<u8>);

/// The weights of tensor `name`: FNV-1a of the name, then murmur3's finalizer of that plus the
/// element's index times the golden ratio; between -0.25 and 0.25, a norm's around 1.
fn weights(name: &str, num_elements: usize, norm_is_offset: bool) -> Vec<f32> {
    let seed = name.bytes().fold(2_166_136_261u32, |hash, byte| {
        (hash ^ u32::from(byte)).wrapping_mul(16_777_619)
    });
    let around = if name.contains("norm") && !norm_is_offset {
        1.0
    } else {
        0.0
    };
    let weight = |index: usize| {
        let mut x = seed.wrapping_add((index as u32).wrapping_mul(0x9e37_79b9));
        x = (x ^ (x >> 16)).wrapping_mul(0x85eb_ca6b);
        x = (x ^ (x >> 13)).wrapping_mul(0xc2b2_ae35);
        x ^= x >> 16;
        around + ((x >> 8) as f32 / (1 << 25) as f32 - 0.25)
    };
    (0..num_elements).map(weight).collect()
}

fn goldens() -> Value {
    serde_json::from_str(include_str!("transformers/goldens.json")).unwrap()
}

fn numbers(value: &Value) -> Vec<f32> {
    let values = value.as_array().unwrap().iter();
    values.map(|x| x.as_f64().unwrap() as f32).collect()
}

fn integers(value: &Value) -> Vec<usize> {
    let values = value.as_array().unwrap().iter();
    values.map(|x| x.as_u64().unwrap() as usize).collect()
}

/// The tensors of golden model `name`, in f32.
fn tensors(name: &str, golden: &Value) -> BTreeMap<String, Tensor> {
    let is_gemma = name.contains("gemma");
    let tensor = |(name, shape): (&String, &Value)| {
        let shape = integers(shape);
        let weights = weights(name, shape.iter().product(), is_gemma);
        let bytes = weights.into_iter().flat_map(f32::to_le_bytes).collect();
        (name.clone(), ("F32", shape, bytes))
    };
    let listed = golden["tensors"].as_object().unwrap();
    listed.iter().map(tensor).collect()
}

/// Writes a model's directory.
fn write(directory: &Path, config: &Value, tensors: &BTreeMap<String, Tensor>) {
    std::fs::write(directory.join("config.json"), config.to_string()).unwrap();
    let (mut header, mut data) = (serde_json::Map::new(), Vec::<u8>::new());
    for (name, (dtype, shape, bytes)) in tensors {
        let start = data.len();
        data.extend(bytes);
        let offsets = [start, data.len()];
        let entry = json!({"dtype": dtype, "shape": shape, "data_offsets": offsets});
        header.insert(name.clone(), entry);
    }
    let header = Value::Object(header).to_string();
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend(header.as_bytes());
    file.extend(data);
    std::fs::write(directory.join("model.safetensors"), file).unwrap();
}

/// Runs the golden prompt in so many tokens a step, after `num_cached` blocks of sequence 0.
fn run(harness: &mut Harness, prompt: &[TokenId], chunk: usize, num_cached: usize) -> usize {
    let sampling = SamplingParams::greedy();
    let index = match num_cached {
        0 => harness.add(prompt, &sampling),
        _ => harness.add_cached(prompt, &sampling, 0, num_cached),
    };
    harness.run_alone(index, chunk, 1);
    index
}

fn prompt(golden: &Value) -> Vec<TokenId> {
    let ids = integers(&golden["prompt"]).into_iter();
    ids.map(|id| id as TokenId).collect()
}

/// Asserts that sequence `index` has sequence 0's bits wherever it computed logits.
fn check_bits(harness: &Harness, index: usize, what: &str) {
    let [found, expected] = [index, 0].map(|i| &harness.sequences[i].logits);
    for (position, (found, expected)) in found.iter().zip(expected).enumerate() {
        let mut pairs = found.iter().zip(expected);
        let same = pairs.all(|(found, expected)| found.to_bits() == expected.to_bits());
        assert!(same, "{what}: the logits of position {position} differ");
    }
}

fn check_model(name: &str, golden: &Value) {
    let directory = tempfile::tempdir().unwrap();
    write(directory.path(), &golden["config"], &tensors(name, golden));
    let max_model_len = golden["max_model_len"].as_u64().unwrap() as usize;
    let mut harness = Harness::load_for(directory.path(), max_model_len);
    let prompt = prompt(golden);
    let first = run(&mut harness, &prompt, usize::MAX, 0);
    let positions = integers(&golden["positions"]);
    let expected = golden["logits"].as_array().unwrap();
    assert_eq!((positions.len(), expected.len()), (4, 4));
    for (position, expected) in positions.into_iter().zip(expected) {
        let found = &harness.sequences[first].logits[position];
        assert_close(found, &numbers(expected), &format!("{name}, {position}"));
    }
    let chunked = run(&mut harness, &prompt, 3, 0);
    check_bits(&harness, chunked, &format!("{name}, chunks of 3"));
    let num_cached = (prompt.len() - 1) / BLOCK_SIZE;
    let cached = run(&mut harness, &prompt, 7, num_cached);
    check_bits(&harness, cached, &format!("{name}, cached"));
    // A shorter prompt: no position depends on what follows it, the running length included.
    let short = run(&mut harness, &prompt[..20], usize::MAX, 0);
    check_bits(&harness, short, &format!("{name}, 20 tokens"));
}

#[test]
fn models_match_transformers() {
    let goldens = goldens();
    assert_eq!(goldens["transformers"], "5.23.0");
    let models = goldens["models"].as_object().unwrap();
    assert_eq!(models.len(), 27);
    for (name, golden) in models {
        check_model(name, golden);
    }
}

/// transformers lets these two scalings depend on the running length; here the length that is
/// served decides, at load, so that a key never depends on what follows it.
#[test]
fn scalings_by_length_are_fixed_at_load() {
    let goldens = goldens();
    for (name, short_len, is_longer) in [
        ("llama-dynamic", 32, 80),
        ("phi3-longrope-long", 32, 33),
        ("phi4-mini", 32, 128),
    ] {
        let golden = &goldens["models"][name];
        let directory = tempfile::tempdir().unwrap();
        write(directory.path(), &golden["config"], &tensors(name, golden));
        let logits = |max_model_len: usize| {
            let mut harness = Harness::load_for(directory.path(), max_model_len);
            let index = run(&mut harness, &prompt(golden)[..20], usize::MAX, 0);
            harness.sequences[index].logits[19].clone()
        };
        assert_ne!(logits(short_len), logits(is_longer), "{name}");
        assert_eq!(logits(short_len), logits(short_len - 1), "{name}");
    }
}

/// F32, BF16 and F16 tensors in one file, also among the parts of one product, are read as the
/// numbers that they are.
#[test]
fn mixed_dtypes_are_read_each_as_its_own() {
    let goldens = goldens();
    let name = "llama-biases";
    let golden = &goldens["models"][name];
    let mut wide = tensors(name, golden);
    let mut mixed = wide.clone();
    let mut num_narrow = [0, 0];
    for (number, (name, (_, shape, bytes))) in wide.iter_mut().enumerate() {
        let weights = bytes.chunks_exact(4);
        let weights = weights.map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]));
        // Numbers that both sixteen-bit formats hold: seven bits after the leading one.
        let rounded = weights.map(|x| f32::from_bits(x.to_bits() & 0xffff_0000));
        let rounded: Vec<f32> = rounded
            .map(|x| if x.abs() < 1e-3 { 0.0 } else { x })
            .collect();
        *bytes = rounded.iter().flat_map(|x| x.to_le_bytes()).collect();
        let narrow: (_, Vec<u8>) = match number % 3 {
            0 => ("F32", bytes.clone()),
            1 => {
                let halves = rounded.iter().map(|x| (x.to_bits() >> 16) as u16);
                ("BF16", halves.flat_map(u16::to_le_bytes).collect())
            }
            _ => {
                let halves = rounded.iter().map(|&x| half::f16::from_f32(x));
                ("F16", halves.flat_map(half::f16::to_le_bytes).collect())
            }
        };
        if number % 3 > 0 {
            num_narrow[number % 3 - 1] += 1;
        }
        mixed.insert(name.clone(), (narrow.0, shape.clone(), narrow.1));
    }
    assert!(num_narrow.iter().all(|&n| n > 5), "{num_narrow:?}");
    let logits = |tensors: &BTreeMap<String, Tensor>| {
        let directory = tempfile::tempdir().unwrap();
        write(directory.path(), &golden["config"], tensors);
        let mut harness = Harness::load(directory.path());
        let index = run(&mut harness, &prompt(golden), usize::MAX, 0);
        harness.sequences[index].logits.concat()
    };
    assert_close(&logits(&mixed), &logits(&wide), "mixed dtypes");
}
