//! Converts a directory with `config.json` and F32 safetensors to a GGUF file of F32 tensors.
//!
//! Reads the weights by itself, so that nothing of the server's own reader is used.
//!
//! Invariant: all weights of the directory's model end up in the file, each once.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::Path;

use serde_json::Value;

use super::permute::permute;
use super::{GgufLayout, GgufModel, GgufWriter, Source, TensorPlan};

type Weights = BTreeMap<String, (Vec<usize>, Vec<f32>)>;

/// The GGUF file of the model in `directory`; `change` may change its fields before it is written.
///
/// # Panics
/// On anything but a small model of F32 weights, whose every weight is used.
pub fn convert_directory(directory: &Path, change: impl FnOnce(&mut GgufWriter)) -> Vec<u8> {
    let config = std::fs::read(directory.join("config.json")).expect("config.json");
    let config: Value = serde_json::from_slice(&config).expect("JSON");
    let model = GgufModel::new(config).expect("a known family");
    let layout = GgufLayout::new(&model).expect("a whole config");
    let weights = read(&directory.join("model.safetensors"));
    let mut writer = layout.writer;
    writer.tensors = layout
        .tensors
        .iter()
        .map(|plan| plan.tensor.clone())
        .collect();
    writer.u32("general.file_type", 0);
    change(&mut writer);
    let mut file = Vec::new();
    let mut used: Vec<&str> = Vec::new();
    let fill = |index: usize, _: &_, out: &mut dyn Write| -> io::Result<()> {
        let plan: &TensorPlan = &layout.tensors[index];
        used.extend(names(&plan.source));
        let values = values(&weights, plan);
        values
            .iter()
            .try_for_each(|value| out.write_all(&value.to_le_bytes()))
    };
    writer
        .write(&mut file, fill)
        .expect("memory takes what is written");
    used.sort_unstable();
    let all: Vec<&str> = weights.keys().map(String::as_str).collect();
    assert_eq!(used, all, "each weight is used once");
    file
}

fn names(source: &Source) -> Vec<&str> {
    match source {
        Source::Copy(name) | Source::PlusOne(name) | Source::Permuted(name, _) => vec![name],
        Source::Stacked(names) => names.iter().map(String::as_str).collect(),
        Source::Values(_) => Vec::new(),
    }
}

fn values(weights: &Weights, plan: &TensorPlan) -> Vec<f32> {
    let weight = |name: &str, shape: &[u64]| {
        let (found, values) = weights
            .get(name)
            .unwrap_or_else(|| panic!("no weight {name}"));
        let found: Vec<u64> = found.iter().map(|&dim| dim as u64).collect();
        assert_eq!(found, shape, "{name}");
        values.clone()
    };
    let shape = &plan.tensor.shape[..];
    match &plan.source {
        Source::Copy(name) => weight(name, shape),
        Source::PlusOne(name) => weight(name, shape).iter().map(|x| x + 1.0).collect(),
        Source::Permuted(name, heads) => {
            let row_len = shape.get(1).map_or(1, |&len| len as usize);
            permute(&weight(name, shape), *heads, row_len)
        }
        Source::Stacked(names) => {
            let experts = names.iter().map(|name| weight(name, &shape[1..]));
            experts.collect::<Vec<_>>().concat()
        }
        Source::Values(values) => values.clone(),
    }
}

fn read(path: &Path) -> Weights {
    let file = std::fs::read(path).expect("model.safetensors");
    let (len, rest) = file.split_first_chunk::<8>().expect("a header");
    let (header, data) = rest.split_at(u64::from_le_bytes(*len) as usize);
    let header: Value = serde_json::from_slice(header).expect("JSON");
    let entries = header.as_object().expect("an object").iter();
    let entry = |(name, entry): (&String, &Value)| {
        assert_eq!(entry["dtype"], "F32", "{name}");
        let number = |value: &Value| value.as_u64().expect("a number") as usize;
        let shape = entry["shape"].as_array().expect("a list");
        let [start, end] = [0, 1].map(|i| number(&entry["data_offsets"][i]));
        let (floats, _) = data[start..end].as_chunks::<4>();
        let values = floats.iter().map(|&bytes| f32::from_le_bytes(bytes));
        (
            name.clone(),
            (shape.iter().map(number).collect(), values.collect()),
        )
    };
    entries
        .filter(|(name, _)| *name != "__metadata__")
        .map(entry)
        .collect()
}
