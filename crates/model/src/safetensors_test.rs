//! Headers that are right, wrong, and random.

use proptest::prelude::*;
use serde_json::json;

use crate::safetensors::{parse_header, weight_dtype};
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
        assert_eq!(weight_dtype(&entry.dtype), Some(WeightDtype::F32));
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

#[test]
fn refuses_each_kind_of_damage_and_names_the_tensor() {
    let entry = |dtype: &str, shape: &str, start: u64, end: u64| {
        format!(r#"{{"dtype":"{dtype}","shape":{shape},"data_offsets":[{start},{end}]}}"#)
    };
    let one = |e: String| format!(r#"{{"w":{e}}}"#);
    let two = |a: String, b: String| format!(r#"{{"v":{a},"w":{b}}}"#);
    for (header, data_len, expected) in [
        (one(entry("F32", "[2]", 0, 9)), 9, "`w` has shape [2]"),
        (
            one(entry("F32", "[2]", 0, 8)),
            7,
            "`w` claims bytes 0..8 of 7",
        ),
        (one(entry("F32", "[2]", 8, 0)), 8, "`w` claims bytes 8..0"),
        (
            one(entry("F31", "[2]", 0, 8)),
            8,
            "`w` has the unknown dtype \"F31\"",
        ),
        (one(entry("F32", "[2]", 0, 8)), 9, "last 1 bytes"),
        (one(entry("F32", "[2]", 1, 9)), 9, "before tensor `w`"),
        (
            one(entry("F32", "[4611686018427387904,4]", 0, 0)),
            0,
            "`w` has shape",
        ),
        (
            one(entry("F32", "[18446744073709551615]", 0, 8)),
            8,
            "`w` has shape",
        ),
        (one(entry("U8", "[2]", 0, u64::MAX)), 8, "`w` claims bytes"),
        (one(entry("F32", "[-2]", 0, 8)), 8, "header"),
        (one(entry("F32", "[2.5]", 0, 8)), 8, "header"),
        (one(entry("F32", "\"2\"", 0, 8)), 8, "header"),
        (
            two(entry("U8", "[6]", 0, 6), entry("U8", "[6]", 4, 10)),
            10,
            "`w` overlaps",
        ),
        (
            two(entry("U8", "[4]", 0, 4), entry("U8", "[4]", 0, 4)),
            4,
            "`w` overlaps",
        ),
        (
            two(entry("U8", "[4]", 0, 4), entry("U8", "[4]", 6, 10)),
            10,
            "before tensor `w`",
        ),
        (r#"{"w":{"dtype":"F32"}}"#.to_owned(), 0, "missing field"),
        ("[]".to_owned(), 0, "header"),
        ("{".to_owned(), 0, "header"),
    ] {
        let error = parse_header(&file(&header, data_len)).unwrap_err();
        assert!(error.contains(expected), "{header}: {error}");
    }
    let twice = r#"{"w":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},
                    "w":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}}"#;
    assert!(
        parse_header(&file(twice, 2))
            .unwrap_err()
            .contains("`w` is there twice")
    );
    assert!(
        parse_header(b"1234567")
            .unwrap_err()
            .contains("only 7 bytes")
    );
    assert!(
        parse_header(&u64::MAX.to_le_bytes())
            .unwrap_err()
            .contains("claims")
    );
    assert!(
        parse_header(&99u64.to_le_bytes())
            .unwrap_err()
            .contains("only 0 follow")
    );
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
