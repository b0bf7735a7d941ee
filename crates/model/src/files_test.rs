//! Opening directories, loading weights, and what is said when they are damaged.

use std::fs::{self, File};
use std::path::Path;

use safetensors::tensor::Dtype;
use serde_json::json;

use crate::ops::StepLimits;
use crate::testing::{NaiveOps, TinyModel};
use crate::weights::WeightDtype;
use crate::{
    ContentHash, FileIdentity, HashCache, LoadOptions, LoadProgress, ModelError, ModelRunner,
    ModelSource,
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
