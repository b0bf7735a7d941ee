//! Real tokenizers taken apart as GGUF files store them, and put together again.
//!
//! Invariant: the ids are those of the tokenizer.json that was taken apart.

mod common;

use std::collections::BTreeMap;

use hotspare_testkit::shared_asset;
use hotspare_text::{GgufTokenizer, TextError, TextModel};
use serde_json::Value;

const SUITE: &str = "text/gguf";

/// A tokenizer.json's tokens by id, their types, and its merges.
struct Parts {
    tokens: Vec<String>,
    token_types: Vec<i64>,
    merges: Vec<String>,
}

fn parts(name: &str) -> Option<Parts> {
    let folder = shared_asset(SUITE, name)?;
    let json = std::fs::read(folder.join("tokenizer.json")).expect("tokenizer.json");
    let json: Value = serde_json::from_slice(&json).expect("JSON");
    let mut by_id: BTreeMap<usize, (String, i64)> = BTreeMap::new();
    for (token, id) in json["model"]["vocab"].as_object().expect("a vocabulary") {
        let is_byte = token.len() == 6 && token.starts_with("<0x");
        let kind = if is_byte { 6 } else { 1 };
        by_id.insert(id.as_u64().expect("an id") as usize, (token.clone(), kind));
    }
    for added in json["added_tokens"].as_array().expect("a list") {
        let content = added["content"].as_str().expect("a token").to_owned();
        let kind = if added["special"] == true { 3 } else { 4 };
        by_id.insert(
            added["id"].as_u64().expect("an id") as usize,
            (content, kind),
        );
    }
    let merge = |merge: &Value| match merge {
        Value::String(pair) => pair.clone(),
        pair => format!(
            "{} {}",
            pair[0].as_str().expect("a token"),
            pair[1].as_str().expect("one")
        ),
    };
    let merges = json["model"]["merges"].as_array().expect("a list");
    assert_eq!(
        by_id.keys().next_back(),
        Some(&(by_id.len() - 1)),
        "no id is left out"
    );
    Some(Parts {
        tokens: by_id.values().map(|(token, _)| token.clone()).collect(),
        token_types: by_id.values().map(|(_, kind)| *kind).collect(),
        merges: merges.iter().map(merge).collect(),
    })
}

fn gguf(parts: &Parts) -> GgufTokenizer<'_> {
    GgufTokenizer {
        model: "gpt2",
        tokens: parts.tokens.iter().map(String::as_str).collect(),
        token_types: parts.token_types.clone(),
        merges: parts.merges.iter().map(String::as_str).collect(),
        ..GgufTokenizer::default()
    }
}

#[test]
fn byte_level_ids_equal_the_golden_file() {
    let name = "tokenizers/qwen2.5";
    let (Some(parts), Some(folder)) = (parts(name), shared_asset(SUITE, name)) else {
        return;
    };
    let gguf = GgufTokenizer {
        pre: Some("qwen2"),
        eos: Some(151_645),
        chat_template: Some("{{ eos_token }}!"),
        ..gguf(&parts)
    };
    let model = TextModel::from_gguf(&gguf, None).expect("loads");
    assert_eq!(model.eos_token(), Some("<|im_end|>"));
    assert!(model.is_special(151_644) && model.chat_template(false).is_some());
    let inputs = std::fs::read_to_string(folder.join("golden.inp")).expect("golden.inp");
    let outputs = std::fs::read_to_string(folder.join("golden.out")).expect("golden.out");
    let inputs: Vec<&str> = inputs.split("\n__ggml_vocab_test__\n").collect();
    assert_eq!(inputs.len(), 47);
    for (input, output) in inputs.iter().zip(outputs.split('\n')) {
        let ids = output
            .split_whitespace()
            .map(|id| id.parse().expect("an id"));
        let want: Vec<u32> = ids.collect();
        assert_eq!(
            model.encode(input, true).expect("encodes"),
            want,
            "{input:?}"
        );
        assert_eq!(model.decode(&want, false), **input);
    }
}

#[test]
fn sentence_piece_ids_equal_those_of_the_merge_list() {
    let Some(parts) = parts("tokenizers/phi-3-mini") else {
        return;
    };
    let gguf = GgufTokenizer {
        model: "llama",
        scores: scores(&parts),
        merges: Vec::new(),
        bos: Some(1),
        eos: Some(32_000),
        unknown: Some(0),
        ..gguf(&parts)
    };
    let model = TextModel::from_gguf(&gguf, None).expect("loads");
    let mut num_ids = 0;
    for real in common::real_tokenizers(SUITE) {
        if real.name != "tokenizers/phi-3-mini" {
            continue;
        }
        assert!(real.oracle.get_vocab_size(true) == parts.tokens.len());
        // GGUF files do not say that phi-3's special tokens take the space after them.
        for text in [
            "Once upon a time, there was a little girl called Lily.",
            "A naïve — 東京 😶 test\n\twith   spaces and  numbers 1234567.",
            "fn main() { println!(\"{}\", x.iter().sum::<f32>()); } // unwrap",
            "<|user|>Hello<|end|><|assistant|>",
            "internationalization, Straße, кошка, \u{0}\u{7f}",
            "",
        ] {
            let want = real.model.encode(text, false).expect("encodes");
            let ids = model.encode(text, true).expect("encodes");
            assert_eq!(ids.split_first(), Some((&1, &want[..])), "{text:?}");
            assert_eq!(model.decode(&want, false), real.model.decode(&want, false));
            num_ids += want.len();
        }
    }
    assert!(num_ids > 80, "only {num_ids} ids were compared");
    let without_bos = GgufTokenizer {
        add_bos: Some(false),
        add_eos: Some(true),
        ..gguf
    };
    let model = TextModel::from_gguf(&without_bos, None).expect("loads");
    assert_eq!(model.encode("", true).expect("encodes"), [32_000]);
}

/// Texts with all that splits, normalizers and bytes have to get right.
const TEXTS: [&str; 9] = [
    "Once upon a time, there was a little girl called Lily.",
    "A naïve — 東京 😶 test\n\twith   spaces and  numbers 1234567.",
    "fn main() { println!(\"{}\", x.iter().sum::<f32>()); } // unwrap",
    "internationalization, Straße, кошка, \u{0}\u{7f}\u{feff}",
    "don't DON'T we'll  I'M\r\n\r\n  x\u{a0}y",
    "   leading and trailing   ",
    "<|im_start|>user\nHi<|im_end|>\n<|endoftext|>",
    "e\u{301}\u{327} ｆｕｌｌ ﬁ \u{200d} 한국어 العربية",
    "",
];

#[test]
fn ids_equal_those_of_tokenizer_json() {
    for real in common::real_tokenizers(SUITE) {
        let Some(parts) = parts(real.name) else {
            return;
        };
        let (model, pre) = match real.name {
            "tokenizers/minimind" => ("gpt2", Some("gpt-2")),
            "tokenizers/qwen2.5" => ("gpt2", Some("qwen2")),
            // Its merges give the scores; see below for phi-3, whose files say more.
            "stories260k" => ("llama", None),
            _ => continue,
        };
        let scores = scores(&parts);
        let gguf = GgufTokenizer {
            model,
            pre,
            scores: if pre.is_none() { scores } else { Vec::new() },
            bos: pre.is_none().then_some(1),
            ..gguf(&parts)
        };
        let loaded = TextModel::from_gguf(&gguf, None).expect("loads");
        for text in TEXTS {
            for special in [false, true] {
                let want = real.model.encode(text, special).expect("encodes");
                let found = loaded.encode(text, special).expect("encodes");
                assert_eq!(found, want, "{}: {text:?}", real.name);
                assert_eq!(loaded.decode(&want, false), real.model.decode(&want, false));
            }
        }
    }
}

/// Scores that fall with the place of the first pair that makes a token.
fn scores(parts: &Parts) -> Vec<f64> {
    let mut places: BTreeMap<String, usize> = BTreeMap::new();
    for (place, merge) in parts.merges.iter().enumerate() {
        places.entry(merge.replacen(' ', "", 1)).or_insert(place);
    }
    let place = |token: &String| places.get(token).map_or(1e9, |&place| place as f64);
    parts.tokens.iter().map(|token| -place(token)).collect()
}

#[test]
fn templates_are_taken_with_their_names() {
    let gguf = GgufTokenizer {
        model: "gpt2",
        pre: Some("gpt-2"),
        tokens: vec!["a"],
        chat_template: Some("plain"),
        named_chat_templates: vec![("tool_use", "with tools")],
        ..GgufTokenizer::default()
    };
    let model = TextModel::from_gguf(&gguf, None).expect("loads");
    assert!(model.named_chat_template("tool_use").is_some());
    assert!(model.named_chat_template("default").is_some());
    assert!(model.named_chat_template("other").is_none());
}

#[test]
fn vocabularies_beyond_any_real_one_are_refused() {
    let long = "a".repeat(2000);
    let merges = vec!["a b"; (1 << 21) + 1];
    let tokens: Vec<String> = (0..(1 << 20) + 1).map(|id| format!("{id}")).collect();
    for (tokens, merges, expected) in [
        (vec![], vec![], "`tokenizer.ggml.tokens` is missing"),
        (vec![&*long], vec![], "2000 bytes in one token"),
        (vec!["a", "b"], merges, "2097153 merges"),
        (
            tokens.iter().map(String::as_str).collect(),
            vec![],
            "1048577 tokens",
        ),
        (vec![&long[..1000]; 20_000], vec![], "20000000 bytes"),
    ] {
        let gguf = GgufTokenizer {
            model: "llama",
            tokens,
            merges,
            ..GgufTokenizer::default()
        };
        let error = TextModel::from_gguf(&gguf, None)
            .map(|_| ())
            .expect_err("refused");
        assert!(error.to_string().contains(expected), "{expected}: {error}");
    }
}

#[test]
fn what_is_not_supported_is_refused_by_name() {
    let good = GgufTokenizer {
        model: "gpt2",
        pre: Some("gpt-2"),
        tokens: vec!["a", "b", "ab"],
        merges: vec!["a b"],
        ..GgufTokenizer::default()
    };
    let model = TextModel::from_gguf(&good, None).expect("loads");
    assert_eq!(model.encode("abba", true).expect("encodes"), [2, 1, 0]);
    let change = |change: fn(&mut GgufTokenizer<'_>)| {
        let mut bad = good.clone();
        change(&mut bad);
        TextModel::from_gguf(&bad, None)
            .map(|_| ())
            .expect_err("refused")
    };
    for (error, expected) in [
        (
            change(|g| g.model = "bert"),
            "`tokenizer.ggml.model` = \"bert\"",
        ),
        (
            change(|g| g.pre = Some("bloom")),
            "`tokenizer.ggml.pre` = \"bloom\"",
        ),
        (change(|g| g.pre = None), "`tokenizer.ggml.pre` is missing"),
        (
            change(|g| g.model = "llama"),
            "`tokenizer.ggml.scores` is missing",
        ),
        (
            change(|g| g.token_types = vec![1]),
            "`tokenizer.ggml.token_type`",
        ),
        (
            change(|g| g.merges = vec!["ab"]),
            "`tokenizer.ggml.merges`[0]",
        ),
        (change(|g| g.bos = Some(3)), "`bos_token`"),
    ] {
        assert!(matches!(error, TextError::Gguf(_)), "{error}");
        assert!(error.to_string().contains(expected), "{expected}: {error}");
        assert!(!error.is_request_error());
    }
    let error = change(|g| g.merges = vec!["a c"]);
    assert!(matches!(error, TextError::Tokenizer(_)), "{error}");
}
