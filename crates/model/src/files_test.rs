//! Opening directories, loading weights, and what is said when they are damaged.

use std::fs::{self, File};
use std::path::Path;

use safetensors::tensor::Dtype;
use serde_json::{Value, json};

use crate::ops::StepLimits;
use crate::testing::{NaiveOps, TinyModel};
use crate::weights::WeightDtype;
use crate::{
    ContentHash, FileIdentity, HashCache, LoadOptions, LoadProgress, ModelError, ModelRunner,
    ModelSource, WeightStore,
};

fn options() -> LoadOptions {
    LoadOptions {
        limits: StepLimits {
            max_num_batched_tokens: 64,
            max_num_seqs: 4,
            max_model_len: 64,
        },
        num_blocks: 16,
        block_size: 4,
        kv_dtype: WeightDtype::F32,
        quantization: None,
    }
}

fn load(model: &TinyModel) -> Result<ModelRunner<NaiveOps>, ModelError> {
    let directory = model.write();
    let source = ModelSource::resolve(directory.path().to_str().unwrap())?;
    ModelRunner::load(NaiveOps::new(4), &source.open()?, &options(), &mut |_| {})
}

fn hash(directory: &std::path::Path) -> ContentHash {
    let source = ModelSource::resolve(directory.to_str().unwrap()).unwrap();
    source.open().unwrap().content_hash(None, &mut |_, _| {})
}

#[test]
fn loads_one_file_or_shards_and_reports_progress() {
    let model = TinyModel::new();
    for directory in [model.write(), model.write_shards()] {
        let source = ModelSource::resolve(directory.path().to_str().unwrap()).unwrap();
        let files = source.open().unwrap();
        assert!(files.tokenizer_json.is_none());
        let mut reports: Vec<LoadProgress> = Vec::new();
        let mut report = |progress| reports.push(progress);
        ModelRunner::load(NaiveOps::new(4), &files, &options(), &mut report).unwrap();
        let mut tensors = reports
            .iter()
            .filter(|r| r.total == model.tensors.len() as u64);
        assert_eq!(
            tensors.next_back().unwrap().done,
            model.tensors.len() as u64
        );
        assert_eq!(reports.last().unwrap().done, reports.last().unwrap().total);
    }
}

#[test]
fn missing_wrong_and_odd_tensors_are_named() {
    let name = "model.layers.1.mlp.up_proj.weight";
    let mut missing = TinyModel::new();
    missing.tensors.remove(name);
    let error = load(&missing).err().unwrap();
    assert!(
        matches!(&error, ModelError::MissingTensor { name: n } if n == name),
        "{error}"
    );

    let mut reshaped = TinyModel::new();
    reshaped.add(name, &[8, 12]);
    let error = load(&reshaped).err().unwrap().to_string();
    assert!(error.contains(name) && error.contains("[8, 12]") && error.contains("[12, 8]"));

    // Angles of so wide a head would take gigabytes.
    let mut wide = TinyModel::new();
    wide.config["head_dim"] = json!(1 << 24);
    let error = load(&wide).err().unwrap().to_string();
    let name_of_q = "model.layers.0.self_attn.q_proj.weight";
    assert!(error.contains(name_of_q), "{error}");

    let mut integers = TinyModel::new();
    integers.tensors.get_mut(name).unwrap().0 = Dtype::I32;
    let error = load(&integers).err().unwrap().to_string();
    assert!(error.contains(name) && error.contains("I32"), "{error}");

    let mut untied = TinyModel::new();
    untied.config["tie_word_embeddings"] = json!(false);
    let error = load(&untied).err().unwrap().to_string();
    assert!(error.contains("lm_head.weight"), "{error}");
    untied.add("lm_head.weight", &[24, 8]);
    load(&untied).unwrap();
}

/// A bias or norm that the config says nothing of is arithmetic that would be left out.
#[test]
fn tensors_of_a_layer_that_the_family_lacks_are_refused() {
    for name in [
        "model.layers.0.self_attn.q_proj.bias",
        "model.layers.1.self_attn.q_norm.weight",
        "model.layers.1.self_attn.sinks",
    ] {
        let mut model = TinyModel::new();
        model.add(name, &[8]);
        let error = load(&model).err().unwrap();
        assert!(
            matches!(&error, ModelError::UnexpectedTensor { name: n } if n == name),
            "{error}"
        );
    }
    for name in [
        "model.layers.0.self_attn.rotary_emb.inv_freq",
        "model.layers.2.self_attn.q_proj.bias",
        "lm_head.weight",
        "score.weight",
    ] {
        let mut model = TinyModel::new();
        model.add(name, &[8]);
        load(&model).unwrap();
    }
}

#[test]
fn damaged_and_absent_files_are_named() {
    let model = TinyModel::new();
    let open = |directory: &tempfile::TempDir| {
        ModelSource::resolve(directory.path().to_str().unwrap())
            .unwrap()
            .open()
    };
    let directory = model.write();
    let weights = directory.path().join("model.safetensors");
    let bytes = fs::read(&weights).unwrap();
    for len in [0, 7, 100, bytes.len() - 1] {
        fs::write(&weights, &bytes[..len]).unwrap();
        let files = open(&directory).unwrap();
        let error = files.weights().err().unwrap().to_string();
        assert!(error.contains("model.safetensors"), "{len}: {error}");
    }
    fs::remove_file(&weights).unwrap();
    let error = open(&directory).err().unwrap().to_string();
    assert!(error.contains("model.safetensors"), "{error}");
    fs::remove_file(directory.path().join("config.json")).unwrap();
    let error = open(&directory).err().unwrap().to_string();
    assert!(error.contains("config.json"), "{error}");
    let error = ModelSource::resolve("/no/such/model")
        .unwrap_err()
        .to_string();
    assert!(error.contains("/no/such/model"), "{error}");
}

#[test]
fn a_shard_index_cannot_leave_the_directory() {
    let directory = TinyModel::new().write_shards();
    let index = directory.path().join("model.safetensors.index.json");
    let source = ModelSource::resolve(directory.path().to_str().unwrap()).unwrap();
    for (content, expected) in [
        (
            json!({"weight_map": {"w": "../x.safetensors"}}),
            "tensor `w`",
        ),
        (json!({"weight_map": {"w": ".."}}), "tensor `w`"),
        (json!({"weight_map": {"w": 3}}), "tensor `w`"),
        (json!({"weight_map": {}}), "empty"),
        (json!({"weight_map": []}), "weight_map"),
        (json!([]), "weight_map"),
        (
            json!({"weight_map": {"w": "absent.safetensors"}}),
            "absent.safetensors",
        ),
    ] {
        fs::write(&index, content.to_string()).unwrap();
        let error = source.open().err().unwrap().to_string();
        assert!(error.contains(expected), "{content}: {error}");
    }
}

/// The weights of shards that `change` has had its way with.
fn sharded(change: impl FnOnce(&Path, &mut Value)) -> Result<WeightStore, ModelError> {
    let directory = TinyModel::new().write_shards();
    let path = directory.path().join("model.safetensors.index.json");
    let mut index: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    change(directory.path(), &mut index["weight_map"]);
    fs::write(&path, index.to_string()).unwrap();
    let source = ModelSource::resolve(directory.path().to_str().unwrap())?;
    source.open()?.weights()
}

#[test]
fn shards_have_to_hold_what_the_index_says() {
    let [first, second] = [1, 2].map(|n| format!("model-0000{n}-of-00002.safetensors"));
    let in_first = "model.layers.0.mlp.up_proj.weight";
    let whole = sharded(|_, _| {}).unwrap();
    let num_tensors = TinyModel::new().tensors.len();
    assert_eq!(whole.num_tensors(), num_tensors);
    // Files that the index does not name are not looked at.
    let extra = sharded(|directory, _| {
        fs::write(
            directory.join("model-00003-of-00002.safetensors"),
            "no weights",
        )
        .unwrap();
        let (from, to) = (directory.join(&first), directory.join("copy.safetensors"));
        fs::copy(from, to).unwrap();
    });
    assert_eq!(extra.unwrap().num_tensors(), num_tensors);
    let refused = |change: &dyn Fn(&Path, &mut Value), expected: &[&str]| {
        let error = sharded(change).err().unwrap().to_string();
        for part in expected {
            assert!(error.contains(part), "{error}");
        }
    };
    refused(
        &|directory, _| fs::remove_file(directory.join(&second)).unwrap(),
        &[&second],
    );
    refused(
        &|_, map| map["model.layers.9.extra.weight"] = json!(first),
        &[&first, "model.layers.9.extra.weight", "is not in it"],
    );
    refused(
        &|_, map| map[in_first] = json!(second),
        &[&second, in_first, "is in model-00001"],
    );
    refused(
        &|directory, _| {
            fs::copy(directory.join(&first), directory.join(&second))
                .map(drop)
                .unwrap();
        },
        &[&second, "is in another file too"],
    );
    for name in ["../x", "/etc/passwd", "a/b", "a\\b", "..", "", "a\0b"] {
        refused(
            &|_, map| map[in_first] = json!(name),
            &[in_first, "no file name"],
        );
    }
}

/// Layer 0's experts as transformers 5 holds them, and what happens when they have another shape.
#[test]
fn stacked_experts_are_checked_like_others() {
    let moe = |gate_up: &[usize], down: &[usize]| {
        let mut model = TinyModel::new();
        model.config["architectures"] = json!(["MixtralForCausalLM"]);
        model.config["num_local_experts"] = json!(3);
        model.config["num_experts_per_tok"] = json!(2);
        model.tensors.retain(|name, _| !name.contains(".mlp."));
        for layer in 0..2 {
            let block = format!("model.layers.{layer}.mlp");
            model.add(&format!("{block}.gate.weight"), &[3, 8]);
            model.add(&format!("{block}.experts.gate_up_proj"), gate_up);
            model.add(&format!("{block}.experts.down_proj"), down);
        }
        load(&model)
    };
    moe(&[3, 24, 8], &[3, 8, 12]).unwrap();
    for (gate_up, down, expected) in [
        ([3, 8, 24], [3, 8, 12], "[3, 24, 8]"),
        ([2, 24, 8], [3, 8, 12], "[3, 24, 8]"),
        ([3, 24, 8], [3, 12, 8], "[3, 8, 12]"),
    ] {
        let error = moe(&gate_up, &down).err().unwrap().to_string();
        assert!(error.contains(expected), "{error}");
    }
}

/// A text model inside another is found under its prefix, and the other's tensors are no part.
#[test]
fn a_text_model_inside_another_loads() {
    for prefix in ["language_model.model.", "model.language_model."] {
        let mut model = TinyModel::new();
        model.config = json!({"architectures": ["Mistral3ForConditionalGeneration"],
            "text_config": model.config});
        model.config["text_config"]["model_type"] = json!("mistral");
        model.config["text_config"]["tie_word_embeddings"] = json!(false);
        let rename = |name: &str| format!("{prefix}{}", name.strip_prefix("model.").unwrap());
        let tensors = std::mem::take(&mut model.tensors);
        let tensors = tensors.into_iter().map(|(name, t)| (rename(&name), t));
        model.tensors = tensors.collect();
        model.add("vision_tower.ln_pre.weight", &[3]);
        let error = load(&model).err().unwrap().to_string();
        assert!(error.contains("`language_model.lm_head.weight`"), "{error}");
        for output in ["language_model.lm_head.weight", "lm_head.weight"] {
            let mut model = TinyModel {
                config: model.config.clone(),
                tensors: model.tensors.clone(),
            };
            model.add(output, &[24, 8]);
            load(&model).unwrap();
            let directory = model.write();
            let source = ModelSource::resolve(directory.path().to_str().unwrap()).unwrap();
            let weights = source.open().unwrap().weights().unwrap();
            assert_eq!(weights.num_tensors(), model.tensors.len() - 1);
            assert!(weights.contains("lm_head.weight"));
        }
    }
}

#[test]
fn the_content_hash_covers_every_file() {
    let model = TinyModel::new();
    let directory = model.write();
    let base = hash(directory.path());
    assert_eq!(base, hash(model.write().path()));
    let mut seen = vec![base];
    for name in [
        "tokenizer.json",
        "chat_template.jinja",
        "generation_config.json",
    ] {
        fs::write(directory.path().join(name), "{}").unwrap();
        seen.push(hash(directory.path()));
    }
    let mut other = TinyModel::new();
    other.tensors.get_mut("model.norm.weight").unwrap().2[3] ^= 1;
    seen.push(hash(other.write().path()));
    let mut other = TinyModel::new();
    other.config["rope_theta"] = json!(500.0);
    seen.push(hash(other.write().path()));
    for i in 0..seen.len() {
        assert!(!seen[..i].contains(&seen[i]), "{i}");
    }
}

#[test]
fn impossible_options_are_refused() {
    let directory = TinyModel::new().write();
    let source = ModelSource::resolve(directory.path().to_str().unwrap()).unwrap();
    let files = source.open().unwrap();
    let refuse = |change: fn(&mut LoadOptions), expected: &str| {
        let mut options = options();
        change(&mut options);
        let result = ModelRunner::load(NaiveOps::new(4), &files, &options, &mut |_| {});
        let error = result.err().unwrap().to_string();
        assert!(error.contains(expected), "{error}");
    };
    refuse(|o| o.num_blocks = 0, "num_blocks");
    refuse(|o| o.block_size = 0, "block_size");
    refuse(|o| o.limits.max_num_seqs = 0, "max_num_seqs");
    refuse(
        |o| o.limits.max_num_batched_tokens = 0,
        "max_num_batched_tokens",
    );
    refuse(|o| o.limits.max_model_len = 65, "max_model_len 65");
}

#[test]
fn equal_files_hash_alike_wherever_they_lie_and_a_cache_changes_nothing() {
    let (one, other) = (TinyModel::new().write(), TinyModel::new().write());
    let hash = |directory: &Path, cache: Option<&HashCache>| {
        let files = ModelSource::resolve(directory.to_str().unwrap()).unwrap();
        let mut steps = Vec::new();
        let hash = files
            .open()
            .unwrap()
            .content_hash(cache, &mut |done, total| {
                steps.push((done, total));
            });
        let (done, total) = *steps.last().unwrap();
        assert_eq!(done, total);
        hash
    };
    let plain = hash(one.path(), None);
    assert_eq!(hash(other.path(), None), plain);
    let cache_dir = tempfile::tempdir().unwrap();
    let cache = HashCache::impatient(cache_dir.path());
    for _ in 0..2 {
        assert_eq!(hash(one.path(), Some(&cache)), plain);
        assert_eq!(hash(other.path(), Some(&cache)), plain);
    }
    let entries = std::fs::read_dir(cache_dir.path().join("hashes")).unwrap();
    assert_eq!(entries.count(), 2, "one for each weight file");
    let (shards, same) = (
        TinyModel::new().write_shards(),
        TinyModel::new().write_shards(),
    );
    let of_shards = hash(shards.path(), Some(&cache));
    assert_eq!(hash(shards.path(), Some(&cache)), of_shards);
    assert_eq!(hash(same.path(), None), of_shards);
    // What the cache says is believed: the file is not read again.
    let weights = one.path().join("model.safetensors");
    let identity = FileIdentity::of(&File::open(&weights).unwrap(), &weights).unwrap();
    cache.put(&identity, &blake3::hash(b"something else"));
    assert_ne!(hash(one.path(), Some(&cache)), plain);
    // A changed weight is another model.
    let mut bytes = std::fs::read(&weights).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&weights, bytes).unwrap();
    let changed = hash(one.path(), Some(&cache));
    assert_ne!(changed, plain);
    assert_eq!(changed, hash(one.path(), None));
}
