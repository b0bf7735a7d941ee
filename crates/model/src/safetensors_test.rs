//! Headers that are right, wrong, and random.

use proptest::prelude::*;
use serde_json::json;

use crate::safetensors::parse_header;
use crate::testing::TinyModel;
use crate::weights::WeightDtype;

fn file(header: &str, data_len: usize) -> Vec<u8> {
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend(header.bytes());
    file.resize(file.len() + data_len, 0);
    file
}

fn tiny_file() -> Vec<u8> {
    let directory = TinyModel::new().write();
    std::fs::read(directory.path().join("model.safetensors")).unwrap()
}

#[test]
fn agrees_with_the_reference_implementation() {
    let bytes = tiny_file();
    let reference = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let entries = parse_header(&bytes).unwrap();
    assert_eq!(entries.len(), reference.len());
    for entry in entries {
        let tensor = reference.tensor(&entry.name).unwrap();
        assert_eq!(entry.shape, tensor.shape());
        assert_eq!(WeightDtype::from_name(&entry.dtype), Some(WeightDtype::F32));
        assert_eq!(&bytes[entry.range], tensor.data());
    }
}

#[test]
fn metadata_and_empty_tensors_are_fine() {
    let header = json!({
        "__metadata__": {"format": "pt", "more": "x"},
        "empty": {"dtype": "BF16", "shape": [0, 4], "data_offsets": [0, 0]},
        "scalar": {"dtype": "F16", "shape": [], "data_offsets": [0, 2]},
        "other": {"dtype": "I64", "shape": [1], "data_offsets": [2, 10]},
    });
    let entries = parse_header(&file(&header.to_string(), 10)).unwrap();
    let names: Vec<&str> = entries.iter().map(|e| e.name.as_str()).collect();
    assert_eq!(names, ["empty", "scalar", "other"]);
    assert_eq!(entries[1].range.len(), 2);
}

/// One tensor as a header writes it.
fn entry(dtype: &str, shape: &str, start: u64, end: u64) -> String {
    format!(r#"{{"dtype":"{dtype}","shape":{shape},"data_offsets":[{start},{end}]}}"#)
}

/// `header` before so many bytes of data is refused with a message that has `expected` in it.
fn assert_refused(header: &str, data_len: usize, expected: &str) {
    let error = parse_header(&file(header, data_len)).unwrap_err();
    assert!(error.contains(expected), "{header}: {error}");
}

#[test]
fn refuses_each_kind_of_wrong_tensor_and_names_it() {
    for (entry, data_len, expected) in [
        (entry("F32", "[2]", 0, 9), 9, "`w` has shape [2]"),
        (entry("F32", "[2]", 0, 8), 7, "`w` claims bytes 0..8 of 7"),
        (entry("F32", "[2]", 8, 0), 8, "`w` claims bytes 8..0"),
        (entry("F31", "[2]", 0, 8), 8, "`w` has the unknown dtype"),
        (entry("F32", "[2]", 0, 8), 9, "last 1 bytes"),
        (entry("F32", "[2]", 1, 9), 9, "before tensor `w`"),
        (
            entry("F32", "[4611686018427387904,4]", 0, 0),
            0,
            "`w` has shape",
        ),
        (
            entry("F32", "[18446744073709551615]", 0, 8),
            8,
            "`w` has shape",
        ),
        (entry("U8", "[2]", 0, u64::MAX), 8, "`w` claims bytes"),
        (entry("F32", "[-2]", 0, 8), 8, "header"),
        (entry("F32", "[2.5]", 0, 8), 8, "header"),
        (entry("F32", "\"2\"", 0, 8), 8, "header"),
        (r#"{"dtype":"F32"}"#.to_owned(), 0, "missing field"),
    ] {
        assert_refused(&format!(r#"{{"w":{entry}}}"#), data_len, expected);
    }
}

#[test]
fn refuses_tensors_that_share_bytes_or_a_name() {
    let bytes = |start, end| entry("U8", &format!("[{}]", end - start), start, end);
    for (first, second, expected) in [
        (bytes(0, 6), bytes(4, 10), "`w` overlaps"),
        (bytes(0, 10), bytes(0, 10), "`w` overlaps"),
        (bytes(0, 4), bytes(6, 10), "before tensor `w`"),
    ] {
        assert_refused(&format!(r#"{{"v":{first},"w":{second}}}"#), 10, expected);
    }
    let twice = format!(r#"{{"w":{},"w":{}}}"#, bytes(0, 1), bytes(1, 2));
    assert_refused(&twice, 2, "`w` is there twice");
}

#[test]
fn refuses_what_is_no_header() {
    assert_refused("[]", 0, "header");
    assert_refused("{", 0, "header");
    let error = |bytes: &[u8]| parse_header(bytes).unwrap_err();
    assert!(error(b"1234567").contains("only 7 bytes"));
    assert!(error(&u64::MAX.to_le_bytes()).contains("claims"));
    assert!(error(&99u64.to_le_bytes()).contains("only 0 follow"));
}

proptest! {
    #[test]
    fn any_bytes_are_accepted_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = parse_header(&bytes);
    }

    /// A damaged header never panics, and what is accepted lies inside the file.
    #[test]
    fn damage_to_a_real_header_never_panics(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let mut bytes = tiny_file();
        let header_len = u64::from_le_bytes(*bytes.first_chunk().unwrap()) as usize + 8;
        for (at, value) in changes {
            bytes[at.index(header_len)] = value;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        if let Ok(entries) = parse_header(&bytes) {
            for entry in entries {
                prop_assert!(entry.range.end <= bytes.len());
            }
        }
    }
}
