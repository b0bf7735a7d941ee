//! Pieces against whole texts, with the embedded tokenizers and real ones.

use hotspare_testkit::shared_asset;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use super::*;
use crate::{TextError, TextModel};

/// Fragments that word patterns, normalizers and added tokens treat in ways of their own.
const FRAGMENTS: [&str; 40] = [
    "a",
    "The",
    "don't",
    "x'S",
    "'ll",
    "we've",
    " ",
    "  ",
    "   ",
    "\n",
    "\n\n",
    "\r\n",
    " \n",
    "\t",
    "12",
    "7",
    "3.5",
    ".",
    ",",
    "!?",
    "--",
    "(",
    "é",
    "e\u{301}",
    "\u{301}",
    "东京",
    "，",
    "한글",
    "😶\u{200d}🌫️",
    "\u{a0}",
    "\u{2028}",
    "▁",
    "a▁b",
    "<|im_end|>",
    "<|user|>",
    "</s>",
    "<s>",
    "<|im_start|>",
    "ſ",
    "ß",
];

/// Every tokenizer at hand, by name.
fn models() -> Vec<(String, TextModel)> {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let own = ["models/spark", "models/spark-mini"].map(|name| Some(root.join(name)));
    let shared = [
        "stories260k",
        "tokenizers/minimind",
        "tokenizers/phi-3-mini",
        "tokenizers/qwen2.5",
    ]
    .map(|name| shared_asset("text/pieces", name));
    let patterns = [TEKKEN, GPT_4O].map(with_pattern).into_iter().flatten();
    let folders = own.into_iter().chain(shared).flatten();
    let load = |folder: std::path::PathBuf| {
        let json = std::fs::read(folder.join("tokenizer.json")).expect("tokenizer.json");
        let config = std::fs::read(folder.join("tokenizer_config.json")).ok();
        let model = TextModel::load(&json, config.as_deref(), None).expect("loads");
        (folder.display().to_string(), model)
    };
    folders.map(load).chain(patterns).collect()
}

/// Qwen 2.5's vocabulary with another pattern of words.
fn with_pattern(pattern: &str) -> Option<(String, TextModel)> {
    let folder = shared_asset("text/pieces", "tokenizers/qwen2.5")?;
    let json = std::fs::read(folder.join("tokenizer.json")).expect("tokenizer.json");
    let mut json: Value = serde_json::from_slice(&json).expect("JSON");
    json["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"] = pattern.into();
    let model = TextModel::load(json.to_string().as_bytes(), None, None).expect("loads");
    Some((pattern.to_owned(), model))
}

fn whole(model: &TextModel, text: &str, special: bool) -> Vec<u32> {
    let encoding = model.tokenizer().encode_fast(text, special);
    encoding.expect("encodes").get_ids().to_vec()
}

#[test]
fn pieces_have_the_ids_of_the_whole() {
    let word = "[a-zA-Z]{1,3}";
    let part = prop_oneof![
        3 => (word, word).prop_map(|(a, b)| format!("{a} {b}")),
        2 => prop::sample::select(&FRAGMENTS[..]).prop_map(str::to_owned),
        1 => word.prop_map(|word| format!("\n{word}")),
        1 => any::<char>().prop_map(String::from),
    ];
    let texts = prop::collection::vec(part, 0..30).prop_map(|parts| parts.concat());
    let cases = (texts, any::<bool>(), 1usize..12, 0usize..40);
    for (name, model) in models() {
        let config = Config {
            cases: 1_000,
            failure_persistence: None,
            ..Config::default()
        };
        let num_cut = std::cell::Cell::new(0);
        let result = TestRunner::new(config).run(&cases, |(text, special, min, keep)| {
            let want = whole(&model, &text, special);
            let encode = |keep| model.encode_pieces(&text, special, keep, usize::MAX, min);
            prop_assert_eq!(&encode(Keep::All).expect("encodes"), &want);
            let first = encode(Keep::First(keep)).expect("encodes");
            prop_assert!(first.len() >= keep.min(want.len()) && want.starts_with(&first));
            let last = encode(Keep::Last(keep)).expect("encodes");
            prop_assert!(last.len() >= keep.min(want.len()) && want.ends_with(&last));
            num_cut.set(num_cut.get() + usize::from(last.len() < want.len()));
            Ok(())
        });
        result.unwrap_or_else(|failure| panic!("{name}: {failure}"));
        let num_cut = num_cut.get();
        assert!(num_cut > 50, "{name} was cut in {num_cut} cases only");
    }
}

#[test]
fn long_texts_are_cut_and_bounded() {
    let prose = "The quick brown fox jumps over lazy dogs, doesn't it?\n".repeat(4_000);
    let blob = "x".repeat(100_000);
    for (name, model) in models() {
        let bounded = |text: &str, keep| model.encode_bounded(text, true, keep, 50_000);
        assert_eq!(
            bounded(&prose, Keep::All).expect("it can be cut"),
            whole(&model, &prose, true),
            "{name}"
        );
        let cut = bounded(&prose, Keep::Last(10)).expect("it can be cut");
        assert!(cut.len() < 20_000 && whole(&model, &prose, true).ends_with(&cut));
        let refused = bounded(&blob, Keep::All).expect_err("it cannot be cut");
        assert!(
            matches!(refused, TextError::TextTooLong { .. }),
            "{refused}"
        );
        assert!(refused.is_request_error());
        // What is not kept costs nothing.
        let tail = format!("{blob} {prose}");
        assert!(bounded(&tail, Keep::Last(10)).is_ok(), "{name}");
        assert!(bounded(&tail, Keep::First(10)).is_err(), "{name}");
    }
}

#[test]
fn unknown_tokenizers_are_never_cut() {
    let known = json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false,
        "use_regex": true});
    let split = |regex: &str| {
        json!({"type": "Sequence", "pretokenizers": [
            {"type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated",
                "invert": false},
            {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false,
                "use_regex": false}]})
    };
    let file = |normalizer: Value, pre_tokenizer: Value, added: &str| {
        let file = json!({"version": "1.0", "normalizer": normalizer,
            "pre_tokenizer": pre_tokenizer, "post_processor": null,
            "added_tokens": [{"id": 3, "content": added, "single_word": false, "lstrip": false,
                "rstrip": true, "normalized": false, "special": true}],
            "decoder": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false,
                "use_regex": false},
            "model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "Ġ": 2}, "merges": []}});
        let model = TextModel::load(file.to_string().as_bytes(), None, None).expect("loads");
        model
            .encode_pieces("a b a b", false, Keep::All, 4, 1)
            .is_ok()
    };
    assert!(file(Value::Null, known.clone(), "<e>"));
    assert!(file(Value::Null, split(NEWLINE_PATTERNS[1]), "<e>"));
    assert!(!file(Value::Null, split(r"\w+ \w+|."), "<e>"));
    assert!(!file(json!({"type": "Lowercase"}), known.clone(), "<e>"));
    for added in ["end", "<a b>", "<e"] {
        assert!(!file(Value::Null, known.clone(), added), "{added}");
    }
    assert!(!file(Value::Null, Value::Null, "<e>"));
}
