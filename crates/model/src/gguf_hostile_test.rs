//! GGUF files that are damaged, cut off, or made to do harm.
//!
//! Invariant: each is refused with a message that names what is wrong, before anything of the size
//! that it claims is made.

use std::sync::Arc;

use crate::testing::{GgufWriter, TinyModel};
use crate::{GgufFile, ModelConfig, ModelError};

fn tiny() -> GgufWriter {
    GgufWriter::of(&TinyModel::new())
}

fn parse(bytes: Vec<u8>) -> Result<ModelConfig, ModelError> {
    GgufFile::parse("a.gguf", Arc::new(bytes))?.config()
}

fn refusal(bytes: Vec<u8>) -> String {
    let parsed = parse(bytes).map(|_| ());
    parsed.unwrap_err().to_string()
}

#[test]
fn every_truncation_is_an_error() {
    let bytes = tiny().bytes();
    let header_len = data_start(&bytes);
    // The last tensor's padding may be missing.
    let in_data = (header_len..bytes.len() - 32).step_by(97);
    for len in (0..header_len).chain(in_data) {
        let parsed = parse(bytes[..len].to_vec()).map(|_| ());
        let error = parsed.unwrap_err();
        assert!(matches!(error, ModelError::Gguf { .. }), "{len}: {error}");
    }
    assert!(parse(bytes).is_ok());
}

/// Where tensor data starts.
fn data_start(bytes: &[u8]) -> usize {
    let file = GgufFile::parse("a.gguf", Arc::new(bytes.to_vec())).unwrap();
    let starts = file.tensors().map(|tensor| tensor.range.start);
    starts.min().unwrap()
}

/// The file with the offset of its last tensor replaced: the eight bytes that end the header.
fn with_last_offset(offset: u64) -> Vec<u8> {
    let mut bytes = tiny().bytes();
    let last = tiny().tensors.last().unwrap().0.clone();
    let name = last.as_bytes();
    let at = bytes.windows(name.len()).rposition(|part| part == name);
    // Name, number of dimensions, two dimensions, type.
    let at = at.unwrap() + name.len() + 4 + 8 * tiny().tensors.last().unwrap().1.len() + 4;
    bytes[at..at + 8].copy_from_slice(&offset.to_le_bytes());
    bytes
}

#[test]
fn offsets_that_leave_the_file_or_overlap_are_refused_by_name() {
    let last = tiny().tensors.last().unwrap().0.clone();
    for (offset, expected) in [
        (0, "overlaps"),
        (32, "overlaps"),
        (1, "no multiple of the alignment 32"),
        (1 << 40, "but the file ends"),
        (u64::MAX - 31, "but the file ends"),
        (u64::MAX, "no multiple"),
        (1 << 63, "but the file ends"),
    ] {
        let found = refusal(with_last_offset(offset));
        assert!(
            found.contains(expected) && found.contains(&last),
            "{expected}: {found}"
        );
    }
}

#[test]
fn claims_larger_than_the_file_cost_nothing() {
    // Each field's value is cut off where the claim begins to matter.
    let list = |item: u32, len: u64, more: Vec<u8>| {
        let mut value = item.to_le_bytes().to_vec();
        value.extend(len.to_le_bytes());
        value.extend(more);
        value
    };
    let nested = list(9, 1, list(9, 1, list(9, 1, list(0, 1, vec![0]))));
    for (number, value, expected) in [
        (9, list(8, 1 << 22, vec![]), "`odd`"),
        (9, list(12, 1 << 22, vec![]), "needs 33554432 bytes"),
        (9, list(8, 2, vec![0xFF; 8]), "`odd`"),
        (9, list(13, 1, vec![]), "unknown value type 13"),
        (9, list(u32::MAX, 1, vec![]), "unknown value type"),
        (9, nested, "a list of lists"),
        (8, (1u64 << 62).to_le_bytes().to_vec(), "`odd`"),
        (u32::MAX, vec![], "unknown value type"),
    ] {
        let mut writer = tiny();
        writer.fields.insert(0, ("odd".to_owned(), number, value));
        let found = refusal(writer.bytes());
        assert!(found.contains(expected), "{expected}: {found}");
    }
    let long_key = tiny().u32(&"k".repeat(1025), 0);
    assert!(refusal(long_key.bytes()).contains("1025 bytes"));
}

#[test]
fn metadata_without_end_is_refused() {
    let mut writer = tiny();
    // Strings of 15 MiB, each allowed, together more than any real file has.
    let mut value = (15u64 << 20).to_le_bytes().to_vec();
    value.resize(8 + (15 << 20), b'x');
    for index in 0..18 {
        writer
            .fields
            .push((format!("note.{index}"), 8, value.clone()));
    }
    let found = refusal(writer.bytes());
    assert!(
        found.contains("metadata is longer") && found.contains("note.17"),
        "{found}"
    );
    let mut writer = tiny();
    value[..8].copy_from_slice(&(17u64 << 20).to_le_bytes());
    value.resize(8 + (17 << 20), b'x');
    writer.fields.push(("note".to_owned(), 8, value));
    let found = refusal(writer.bytes());
    assert!(found.contains("`note` has 17825792 bytes"), "{found}");
}

#[test]
fn numbers_that_no_model_has_are_refused_by_name() {
    for (key, value, expected) in [
        ("block_count", u32::MAX, "`llama.block_count`"),
        ("block_count", 4096, "`blk.4095.attn_norm.weight`"),
        ("embedding_length", u32::MAX, "`llama.embedding_length`"),
        ("embedding_length", 0, "`llama.embedding_length`"),
        ("attention.head_count", 0, "`llama.attention.head_count`"),
        (
            "attention.head_count",
            3,
            "no multiple of num_attention_heads",
        ),
        (
            "attention.head_count_kv",
            7,
            "`llama.attention.head_count_kv`",
        ),
        ("context_length", 0, "`llama.context_length`"),
        (
            "feed_forward_length",
            u32::MAX,
            "`llama.feed_forward_length`",
        ),
        ("rope.dimension_count", 3, "`llama.rope.dimension_count`"),
    ] {
        let key = format!("llama.{key}");
        let found = refusal(tiny().without(&key).u32(&key, value).bytes());
        assert!(found.contains(expected), "{key} = {value}: {found}");
    }
    // A head as wide as this would take gigabytes of angles.
    let wide = tiny().without("llama.rope.dimension_count");
    let found = refusal(wide.u32("llama.attention.key_length", 1 << 24).bytes());
    assert!(found.contains("`blk.0.attn_q.weight`"), "{found}");
    let found = refusal(tiny().u32("llama.attention.value_length", u32::MAX).bytes());
    assert!(found.contains("value_length"), "{found}");
    for key in [
        "llama.rope.freq_base",
        "llama.attention.layer_norm_rms_epsilon",
    ] {
        for value in [f32::NAN, f32::INFINITY, -1.0] {
            let found = refusal(tiny().without(key).f32(key, value).bytes());
            assert!(found.contains(key), "{key} = {value}: {found}");
        }
    }
}
