//! Models in several GGUF files, and files whose tensors are laid out as few are: one for each
//! expert, one for q, k and v.

use std::path::Path;
use std::sync::Arc;

use tempfile::TempDir;

use crate::gguf::shard_names;
use crate::gguf_test::logits;
use crate::testing::{GgufWriter, TinyModel};
use crate::{GgufFile, ModelError, ModelFiles, ModelSource, WeightStore};

fn open(path: &Path) -> Result<ModelFiles, ModelError> {
    ModelSource::resolve(path.to_str().unwrap())?.open()
}

/// The tiny model in three files, the first of which has no tensors but all fields.
fn shards() -> Vec<GgufWriter> {
    let whole = GgufWriter::of(&TinyModel::new());
    let num_tensors = whole.tensors.len() as u32;
    let mut shards = vec![GgufWriter::default(); 3];
    shards[0].fields = whole.fields;
    for (i, tensor) in whole.tensors.into_iter().enumerate() {
        shards[1 + i % 2].tensors.push(tensor);
    }
    let number = |(i, shard): (usize, GgufWriter)| {
        shard
            .u32("split.no", i as u32)
            .u32("split.count", 3)
            .u32("split.tensors.count", num_tensors)
    };
    shards.into_iter().enumerate().map(number).collect()
}

fn write(shards: &[GgufWriter]) -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    for (i, shard) in shards.iter().enumerate() {
        let name = format!("m-{:05}-of-00003.gguf", i + 1);
        std::fs::write(directory.path().join(name), shard.bytes()).unwrap();
    }
    directory
}

fn first(directory: &TempDir) -> std::path::PathBuf {
    directory.path().join("m-00001-of-00003.gguf")
}

fn refusal(shards: &[GgufWriter]) -> String {
    let directory = write(shards);
    open(&first(&directory)).err().unwrap().to_string()
}

#[test]
fn names_of_shards_are_read_and_made() {
    let names = shard_names("a-of-b-00002-of-00003.gguf").unwrap();
    assert_eq!(names.len(), 3);
    assert_eq!(names[2], "a-of-b-00003-of-00003.gguf");
    for name in [
        "a.gguf",
        "a-00001-of-00003",
        "a-1-of-3.gguf",
        "a-00004-of-00003.gguf",
        "a-00000-of-00003.gguf",
        "a-00001-of-00000.gguf",
        "a-00001-of-99999.gguf",
        "a-+0001-of-00003.gguf",
    ] {
        assert_eq!(shard_names(name), None, "{name}");
    }
}

#[test]
fn all_files_of_a_model_are_loaded() {
    let whole = GgufWriter::of(&TinyModel::new());
    let file = GgufFile::parse("a.gguf", Arc::new(whole.bytes())).unwrap();
    let expected = WeightStore::from_gguf(&file);
    let directory = write(&shards());
    let files = open(&first(&directory)).unwrap();
    let config = files.config().unwrap();
    assert_eq!(
        config.hidden_size,
        file.config().unwrap().hidden_size,
        "the config of the first file"
    );
    let weights = files.weights().unwrap();
    assert_eq!(weights.num_tensors(), whole.tensors.len());
    let (mut num_bytes, model) = (0, TinyModel::new());
    for (name, (_, shape, bytes)) in &model.tensors {
        let found = weights.view(name, shape).unwrap();
        assert!(
            found.bytes() == expected.view(name, shape).unwrap().bytes(),
            "{name}"
        );
        num_bytes += bytes.len();
    }
    assert_eq!(weights.num_bytes(), num_bytes);
    // Every file counts in the hash, wherever they lie and whatever they are called.
    let hash = |files: &ModelFiles| files.content_hash(None, &mut |_, _| {});
    let before = hash(&files);
    let elsewhere = write(&shards());
    assert_eq!(hash(&open(&first(&elsewhere)).unwrap()), before);
    let mut changed = shards();
    changed[2].tensors[0].3[0] ^= 1;
    assert_ne!(hash(&open(&first(&write(&changed))).unwrap()), before);
}

#[test]
fn what_is_missing_or_does_not_fit_is_named() {
    let directory = write(&shards());
    let second = directory.path().join("m-00002-of-00003.gguf");
    let error = open(&second).err().unwrap().to_string();
    assert!(error.contains("name m-00001-of-00003.gguf"), "{error}");
    let renamed = directory.path().join("m.gguf");
    std::fs::copy(first(&directory), &renamed).unwrap();
    let error = open(&renamed).err().unwrap().to_string();
    assert!(error.contains("NAME-00001-of-00003.gguf"), "{error}");
    std::fs::remove_file(&second).unwrap();
    let error = open(&first(&directory)).err().unwrap().to_string();
    assert!(
        error.contains("m-00002-of-00003.gguf is missing"),
        "{error}"
    );

    let mut swapped = shards();
    swapped.swap(1, 2);
    let error = refusal(&swapped);
    assert!(error.contains("`split.no` is 2, and not 1"), "{error}");
    for (key, value, expected) in [
        ("split.count", 4, "`split.count` is 4, and not 3"),
        (
            "split.tensors.count",
            7,
            "`split.tensors.count` is 7, and not 20",
        ),
    ] {
        let mut other = shards();
        other[2] = other[2].clone().without(key).u32(key, value);
        let error = refusal(&other);
        assert!(error.contains(expected), "{error}");
        assert!(error.contains("m-00003-of-00003.gguf"), "{error}");
    }
    let mut without = shards();
    without[1] = without[1].clone().without("split.no");
    let error = refusal(&without);
    assert!(
        error.contains("`split.no` is missing, and not 1"),
        "{error}"
    );
    let mut fewer = shards();
    let lost = fewer[2].tensors.pop().unwrap();
    let error = refusal(&fewer);
    assert!(error.contains("is 20, but the files have 19"), "{error}");
    let again = fewer[1].tensors[0].clone();
    let name = again.0.clone();
    fewer[2].tensors.push(again);
    let error = refusal(&fewer);
    assert!(
        error.contains(&name) && error.contains("another file"),
        "{error}"
    );
    assert_ne!(name, lost.0);
    let mut many = shards();
    many[0] = many[0]
        .clone()
        .without("split.count")
        .u32("split.count", 5000);
    assert!(refusal(&many).contains("more than 1024"));
}

/// A tiny Mixtral of two experts.
fn experts() -> TinyModel {
    let mut model = TinyModel::new();
    model.tensors.retain(|name, _| !name.contains(".mlp."));
    for layer in 0..2 {
        let prefix = format!("model.layers.{layer}.block_sparse_moe");
        model.add(&format!("{prefix}.gate.weight"), &[2, 8]);
        for expert in 0..2 {
            for (part, shape) in [("w1", [12, 8]), ("w2", [8, 12]), ("w3", [12, 8])] {
                model.add(&format!("{prefix}.experts.{expert}.{part}.weight"), &shape);
            }
        }
    }
    model
}

/// As a converter of before experts were stacked wrote it.
fn old_file(model: &TinyModel) -> GgufWriter {
    let mut writer = GgufWriter::of(model)
        .u32("llama.expert_count", 2)
        .u32("llama.expert_used_count", 2);
    for ((name, ..), of) in writer.tensors.iter_mut().zip(model.tensors.keys()) {
        if let Some(rest) = of.split(".experts.").nth(1) {
            let index = rest.split('.').next().unwrap();
            *name = name.replace("_exps.", &format!(".{index}."));
        }
    }
    writer
}

#[test]
fn experts_with_tensors_of_their_own_are_found() {
    let model = experts();
    let file = GgufFile::parse("a.gguf", Arc::new(old_file(&model).bytes())).unwrap();
    assert!(file.tensor("blk.1.ffn_gate.1.weight").is_some());
    let config = file.config().unwrap();
    assert_eq!(config.moe.as_ref().unwrap().num_experts, 2);
    let weights = WeightStore::from_gguf(&file);
    for (name, (_, shape, bytes)) in &model.tensors {
        if name.contains(".experts.") {
            assert!(
                weights.view(name, shape).unwrap().bytes() == bytes,
                "{name}"
            );
        }
    }
    for extra in [
        "blk.0.ffn_gate.2.weight",
        "blk.0.ffn_gate.01.weight",
        "blk.0.ffn_other.0.weight",
    ] {
        let writer = old_file(&model).tensor(extra, &[8, 12], 0, vec![0; 384]);
        let file = GgufFile::parse("a.gguf", Arc::new(writer.bytes())).unwrap();
        let error = file.config().unwrap_err().to_string();
        assert!(error.contains(extra), "{error}");
    }
    // Both forms at once would leave open which one counts.
    let stacked =
        old_file(&model).tensor("blk.0.ffn_gate_exps.weight", &[8, 12, 2], 0, vec![0; 768]);
    let file = GgufFile::parse("a.gguf", Arc::new(stacked.bytes())).unwrap();
    assert!(
        file.config()
            .unwrap_err()
            .to_string()
            .contains("blk.0.ffn_gate.")
    );
}

#[test]
fn q_k_and_v_may_be_one_tensor() {
    let plain = GgufWriter::of(&TinyModel::new());
    let mut fused = plain.clone();
    for layer in 0..2 {
        let name = |part: &str| format!("blk.{layer}.attn_{part}.weight");
        let (mut bytes, mut num_rows, mut width) = (Vec::new(), 0, 0);
        for part in ["q", "k", "v"] {
            let name = name(part);
            let at = fused.tensors.iter().position(|tensor| tensor.0 == name);
            let tensor = fused.tensors.remove(at.unwrap());
            (width, num_rows) = (tensor.1[0], num_rows + tensor.1[1]);
            bytes.extend(tensor.3);
        }
        fused = fused.tensor(&name("qkv"), &[width, num_rows], 0, bytes);
    }
    let directory = tempfile::tempdir().unwrap();
    let [expected, found] = [("plain.gguf", &plain), ("fused.gguf", &fused)].map(|(name, file)| {
        let path = directory.path().join(name);
        std::fs::write(&path, file.bytes()).unwrap();
        logits(&path)
    });
    assert!(expected.iter().any(|&x| x != 0.0));
    assert_eq!(found, expected);
    // Only one form may be there.
    let both = fused.tensor("blk.0.attn_q.weight", &[8, 8], 0, vec![0; 256]);
    let file = GgufFile::parse("a.gguf", Arc::new(both.bytes())).unwrap();
    let error = file.config().unwrap_err().to_string();
    assert!(error.contains("blk.0.attn_q.weight"), "{error}");
}
