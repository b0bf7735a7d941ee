//! Real tokenizers: ids equal golden files, text equals the library's, streams equal whole texts.
//!
//! Invariant: the oracle is the `tokenizers` crate's own decoder, wherever it keeps all bytes.

mod common;

use hotspare_testkit::shared_asset;
use hotspare_text::{Detokenizer, TextModel};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use tokenizers::{NormalizedString, Normalizer, Tokenizer};

const SUITE: &str = "text/tokenizers";

fn stream(model: &TextModel, ids: &[u32], skip: bool) -> String {
    let mut detokenizer = Detokenizer::new(model, &[], skip);
    let mut text: String = ids.iter().map(|&id| detokenizer.push(id)).collect();
    text.push_str(&detokenizer.finish());
    text
}

fn runner(cases: u32) -> TestRunner {
    TestRunner::new(Config {
        cases,
        failure_persistence: None,
        ..Config::default()
    })
}

/// Ids at random: any of the vocabulary, with many byte tokens and special tokens among them.
fn random_ids(model: &TextModel) -> impl Strategy<Value = Vec<u32>> + use<> {
    let size = model.vocab_size() as u32;
    let some: Vec<u32> = (0..size)
        .filter(|&id| model.is_special(id) || std::str::from_utf8(model.token_bytes(id)).is_err())
        .chain((0..size).filter(|&id| model.token_text(id).contains('\u{fffd}')))
        .take(600)
        .collect();
    prop::collection::vec(prop_oneof![0..size + 3, prop::sample::select(some)], 0..60)
}

#[test]
fn streams_of_random_ids_equal_the_whole_text() {
    for real in common::real_tokenizers(SUITE) {
        let mut runner = runner(400);
        let cases = (random_ids(&real.model), any::<bool>());
        let result = runner.run(&cases, |(ids, skip)| {
            let whole = real.model.decode(&ids, skip);
            prop_assert_eq!(stream(&real.model, &ids, skip), whole.as_str());
            let oracle = real.oracle.decode(&ids, skip).expect("decodes");
            let is_byte_level = real.name.contains("minimind") || real.name.contains("qwen");
            // With byte fallback the library drops valid characters next to invalid bytes: only
            // texts without any are comparable.
            if is_byte_level || !oracle.contains('\u{fffd}') {
                prop_assert_eq!(whole, oracle);
            }
            Ok(())
        });
        result.unwrap_or_else(|failure| panic!("{}: {failure}", real.name));
    }
}

#[test]
fn a_stream_cut_anywhere_goes_on_alike() {
    for real in common::real_tokenizers(SUITE) {
        let mut runner = runner(100);
        let cases = (random_ids(&real.model), any::<prop::sample::Index>());
        let result = runner.run(&cases, |(ids, cut)| {
            let cut = cut.index(ids.len() + 1);
            let mut uncut = Detokenizer::new(&real.model, &[], true);
            let mut rebuilt = Detokenizer::new(&real.model, &[], true);
            for &id in &ids[..cut] {
                prop_assert_eq!(uncut.push(id), rebuilt.push(id));
            }
            // A sequence whose beginning became part of a prompt differs only by what the start
            // cuts.
            let mut primed = Detokenizer::new(&real.model, &ids[..cut], true);
            let mut rest = (String::new(), String::new());
            for &id in &ids[cut..] {
                rest.0.push_str(&uncut.push(id));
                rest.1.push_str(&primed.push(id));
            }
            rest.0.push_str(&uncut.finish());
            rest.1.push_str(&primed.finish());
            prop_assert_eq!(rest.0, rest.1);
            Ok(())
        });
        result.unwrap_or_else(|failure| panic!("{}: {failure}", real.name));
    }
}

#[test]
fn a_token_never_yields_a_replacement_that_a_later_one_repairs() {
    let text = "naïve 東京 😶\u{200d}🌫️ ½ កាន់ — 🚀🚀 é";
    for real in common::real_tokenizers(SUITE) {
        let ids = real.model.encode(text, false).expect("encodes");
        let mut detokenizer = Detokenizer::new(&real.model, &[], false);
        for &id in &ids {
            let piece = detokenizer.push(id);
            assert!(!piece.contains('\u{fffd}'), "{}: {piece:?}", real.name);
        }
        assert_eq!(detokenizer.finish(), "");
        assert_eq!(real.model.decode(&ids, false), text, "{}", real.name);
    }
}

#[test]
fn token_bytes_concatenate_to_the_text() {
    let text = "A naïve — 東京 😶 test\n\twith   spaces";
    for real in common::real_tokenizers(SUITE) {
        let ids = real.model.encode(text, false).expect("encodes");
        let bytes: Vec<u8> = ids
            .iter()
            .flat_map(|&id| real.model.token_bytes(id))
            .copied()
            .collect();
        let joined = String::from_utf8(bytes).expect("whole characters");
        // SentencePiece prepends a space to the text.
        assert_eq!(
            joined.strip_prefix(' ').unwrap_or(&joined),
            text,
            "{}",
            real.name
        );
    }
}

#[test]
fn qwen_ids_equal_the_golden_file() {
    let Some(folder) = shared_asset(SUITE, "tokenizers/qwen2.5") else {
        return;
    };
    let json = std::fs::read(folder.join("tokenizer.json")).expect("tokenizer.json");
    let model = TextModel::load(&json, None, None).expect("loads");
    let inputs = std::fs::read_to_string(folder.join("golden.inp")).expect("golden.inp");
    let outputs = std::fs::read_to_string(folder.join("golden.out")).expect("golden.out");
    let inputs: Vec<&str> = inputs.split("\n__ggml_vocab_test__\n").collect();
    let outputs: Vec<&str> = outputs.split('\n').collect();
    assert_eq!((inputs.len(), outputs.len()), (47, 47));
    for (input, output) in inputs.iter().zip(outputs) {
        let want: Vec<u32> = output
            .split_whitespace()
            .map(|id| id.parse().expect("an id"))
            .collect();
        assert_eq!(
            model.encode(input, false).expect("encodes"),
            want,
            "{input:?}"
        );
        assert_eq!(model.decode(&want, false), **input);
    }
}

/// The text as the tokenizer's normalizer leaves it.
fn normalized(oracle: &Tokenizer, text: &str) -> String {
    let mut text = NormalizedString::from(text);
    if let Some(normalizer) = oracle.get_normalizer() {
        normalizer.normalize(&mut text).expect("normalizes");
    }
    text.get().to_owned()
}

/// Each id alone: to its token and back; to text as the library does it; and, where that is whole
/// characters, to the ids that the library gives and back to the text.
#[test]
fn every_id_makes_the_round_trip() {
    for real in common::real_tokenizers(SUITE) {
        let (name, model) = (real.name, &real.model);
        let size = model.vocab_size() as u32;
        let is_byte_level = name.contains("minimind") || name.contains("qwen");
        let (mut num_whole, mut num_back) = (0, 0);
        for id in 0..size {
            let token = model.id_to_token(id);
            let token = token.unwrap_or_else(|| panic!("{name}: no token of id {id}"));
            assert_eq!(model.token_to_id(&token), Some(id), "{name}: {token:?}");
            let text = model.decode(&[id], false);
            let oracle = real.oracle.decode(&[id], false).expect("decodes");
            if is_byte_level || !oracle.contains('\u{fffd}') {
                assert_eq!(text, oracle, "{name}, id {id}");
            }
            // A part of a character has no text.
            if text.contains('\u{fffd}') {
                continue;
            }
            let ids = model.encode(&text, false).expect("encodes");
            let expected = real.oracle.encode(text.as_str(), false).expect("encodes");
            assert_eq!(ids, expected.get_ids(), "{name}, id {id}, {text:?}");
            let back = model.decode(&ids, false);
            num_whole += 1;
            num_back += u32::from(back == text);
            if is_byte_level {
                assert_eq!(back, normalized(&real.oracle, &text), "{name}, id {id}");
            }
        }
        // Qwen's normalizer composes characters, which the text of 248 ids leaves apart.
        let expected = match name {
            "stories260k" => (384, 384),
            "tokenizers/minimind" => (5911, 5911),
            "tokenizers/phi-3-mini" => (31_881, 31_881),
            _ => (150_208, 149_960),
        };
        assert_eq!((num_whole, num_back), expected, "{name}");
    }
}

#[test]
fn stories_text_equals_the_golden_file() {
    let Some(folder) = shared_asset(SUITE, "stories260k") else {
        return;
    };
    let json = std::fs::read(folder.join("tokenizer.json")).expect("tokenizer.json");
    let model = TextModel::load(&json, None, None).expect("loads");
    let golden = std::fs::read(folder.join("golden.json")).expect("golden.json");
    let golden: serde_json::Value = serde_json::from_slice(&golden).expect("JSON");
    let ids = |value: &serde_json::Value| -> Vec<u32> {
        serde_json::from_value(value.clone()).expect("a list of ids")
    };
    let cases = golden.as_array().expect("a list of cases");
    assert_eq!(cases.len(), 4);
    for case in cases {
        let prompt = case["prompt"].as_str().expect("a prompt");
        let prompt_ids = ids(&case["prompt_ids"]);
        assert_eq!(model.encode(prompt, true).expect("encodes"), prompt_ids);
        let new_ids = ids(&case["new_ids"]);
        assert_eq!(
            stream(&model, &new_ids, true),
            case["text"].as_str().expect("a text")
        );
    }
}

#[test]
fn special_tokens_of_real_files() {
    for real in common::real_tokenizers(SUITE) {
        let (bos, eos) = (real.model.bos_token(), real.model.eos_token());
        match real.name {
            "tokenizers/phi-3-mini" => {
                assert_eq!((bos, eos), (Some("<s>"), Some("<|endoftext|>")));
                assert_eq!(real.model.eos_token_id(), Some(32_000));
                assert_eq!(real.model.vocab_size(), 32_011);
            }
            "tokenizers/qwen2.5" => {
                assert_eq!((bos, eos), (None, Some("<|im_end|>")));
                assert_eq!(real.model.eos_token_id(), Some(151_645));
                assert_eq!(real.model.vocab_size(), 151_665);
                assert_eq!(real.model.max_chars_per_token(), 128);
            }
            "stories260k" => assert_eq!((real.model.vocab_size(), bos), (512, None)),
            _ => assert!(eos.is_some()),
        }
    }
}

#[test]
fn a_megabyte_is_encoded() {
    let sentence = "The quick brown fox — naïve, 東京 — jumps over 12 lazy dogs.\n";
    let text = sentence.repeat(1_000_000 / sentence.len() + 1);
    let spaces = " ".repeat(1_000_000);
    for real in common::real_tokenizers(SUITE) {
        for text in [&text, &spaces] {
            let ids = real.model.encode(text, false).expect("encodes");
            assert_eq!(real.model.decode(&ids, false), **text, "{}", real.name);
        }
    }
}
