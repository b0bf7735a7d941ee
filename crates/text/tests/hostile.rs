//! Tokenizers and templates that are damaged or made to do harm, and fuzz targets of both loaders.
//!
//! The targets search for seconds; `PROPTEST_CASES` sets for how long, as in
//! `PROPTEST_CASES=1000000 cargo test -p hotspare-text --test hostile`.
//!
//! Invariant: whatever a model's files hold, loading them is an error or a tokenizer that takes and
//! gives any text; never a panic, and never without end.

use hotspare_text::{ChatInput, GgufTokenizer, LocalTime, TextError, TextModel};
use proptest::prelude::*;
use proptest::sample::Index;
use serde_json::{Value, json};

/// So many cases, unless `PROPTEST_CASES` says otherwise.
fn cases(num_cases: u32) -> ProptestConfig {
    let asked = std::env::var("PROPTEST_CASES").ok();
    let asked = asked.and_then(|asked| asked.parse().ok());
    ProptestConfig::with_cases(asked.unwrap_or(num_cases))
}

/// A small whole `tokenizer.json`.
fn tokenizer_json() -> Value {
    json!({
        "version": "1.0", "truncation": null, "padding": null,
        "added_tokens": [{"id": 5, "content": "<|end|>", "single_word": false, "lstrip": false,
            "rstrip": false, "normalized": false, "special": true}],
        "normalizer": {"type": "NFC"},
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true,
            "use_regex": true},
        "post_processor": null,
        "decoder": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true,
            "use_regex": true},
        "model": {"type": "BPE", "dropout": null, "unk_token": null,
            "continuing_subword_prefix": null, "end_of_word_suffix": null, "fuse_unk": false,
            "byte_fallback": false, "ignore_merges": false,
            "vocab": {"a": 0, "b": 1, "ab": 2, "Ġ": 3, "Ġa": 4},
            "merges": [["a", "b"], ["Ġ", "a"]]},
    })
}

/// Uses what was loaded.
fn use_model(model: &TextModel) {
    for text in ["ab ab<|end|> ä\n", "", "\u{0}<s>▁▁ ab"] {
        if let Ok(ids) = model.encode(text, true) {
            let _ = model.decode(&ids, false);
        }
    }
    for id in 0..8 {
        let _ = (
            model.token_text(id),
            model.token_bytes(id),
            model.id_to_token(id),
        );
    }
}

#[test]
fn values_of_the_wrong_type_are_errors() {
    assert!(TextModel::load(tokenizer_json().to_string().as_bytes(), None, None).is_ok());
    let wrong = [
        json!([]),
        json!("x"),
        json!(3),
        json!(true),
        json!({"type": "Nothing"}),
    ];
    let places = [
        "",
        "/added_tokens",
        "/added_tokens/0",
        "/added_tokens/0/id",
        "/added_tokens/0/content",
        "/normalizer",
        "/pre_tokenizer",
        "/decoder",
        "/post_processor",
        "/model",
        "/model/vocab",
        "/model/vocab/ab",
        "/model/merges",
        "/model/merges/0",
        "/model/type",
    ];
    let mut num_errors = 0;
    for place in places {
        for value in &wrong {
            let mut json = tokenizer_json();
            *json.pointer_mut(place).expect("a place") = value.clone();
            match TextModel::load(json.to_string().as_bytes(), None, None) {
                Ok(model) => use_model(&model),
                Err(error) => {
                    assert!(matches!(error, TextError::Tokenizer(_)), "{place}: {error}");
                    assert!(!error.is_request_error());
                    num_errors += 1;
                }
            }
        }
    }
    // A few are what they should be: an empty list of merges, an id of 3, a content of "x".
    assert!(num_errors >= 65, "only {num_errors} of 75 are errors");
    for file in ["", "null", "[]", "{", "\"a\"", "\u{0}", "{\"model\":"] {
        assert!(
            TextModel::load(file.as_bytes(), None, None).is_err(),
            "{file:?}"
        );
    }
    let deep = "[".repeat(100_000);
    assert!(TextModel::load(deep.as_bytes(), None, None).is_err());
}

#[test]
fn ids_beyond_any_vocabulary_are_refused() {
    for id in [u64::from(u32::MAX), 1 << 23, 1 << 40] {
        let mut json = tokenizer_json();
        json["model"]["vocab"]["Ġa"] = id.into();
        let loaded = TextModel::load(json.to_string().as_bytes(), None, None);
        assert!(matches!(loaded, Err(TextError::Tokenizer(_))), "{id}");
    }
}

/// Loads a file's tokenizer with this template and renders an empty conversation.
fn render(template: &str) -> Result<String, TextError> {
    let gguf = GgufTokenizer {
        model: "gpt2",
        pre: Some("gpt-2"),
        tokens: vec!["a"],
        chat_template: Some(template),
        ..GgufTokenizer::default()
    };
    let now = LocalTime {
        unix_secs: 0,
        utc_offset_secs: 0,
    };
    TextModel::from_gguf(&gguf, None)?.render_chat(&ChatInput::new(&[], now), None)
}

#[test]
fn templates_without_end_are_stopped() {
    let long = "x".repeat(4000);
    let long = format!("{{% for i in range(99999) %}}{{{{ '{long}' }}}}{{% endfor %}}");
    for template in [
        &*long,
        "{% for i in range(1000000000) %}{% endfor %}",
        "{% for i in range(99999) %}{% for j in range(99999) %}x{% endfor %}{% endfor %}",
        "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    ] {
        assert!(render(template).is_err(), "{template}");
    }
    for template in [
        "{% for %}",
        "{{ x",
        "{% include 'x' %}",
        &"{".repeat(100_000),
    ] {
        assert!(render(template).is_err(), "{}", &template[..8]);
    }
}

/// Tokens: letters, what byte-level and SentencePiece tokenizers write, marks, nothing.
fn token() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => "[ab]{1,4}",
        2 => "[ab▁Ġ]{1,3}",
        1 => (any::<u8>()).prop_map(|byte| format!("<0x{byte:02X}>")),
        1 => "\\PC{0,4}",
        1 => Just(String::new()),
        1 => Just("<|end|>".to_owned()),
        1 => Just("<s>".to_owned()),
    ]
}

/// The fields of a file's tokenizer.
#[derive(Clone, Debug)]
struct Fields {
    is_gpt2: bool,
    pre: usize,
    tokens: Vec<String>,
    scores: Vec<f64>,
    token_types: Vec<i64>,
    merges: Vec<String>,
    ids: [Option<usize>; 3],
    flags: [Option<bool>; 3],
}

fn fields() -> impl Strategy<Value = Fields> {
    let merge = prop_oneof![
        3 => (token(), token()).prop_map(|(a, b)| format!("{a} {b}")),
        1 => Just("a b".to_owned()),
        1 => "[ab ]{0,5}",
    ];
    let score = prop_oneof![3 => -9.0..9.0f64, 1 => Just(f64::NAN), 1 => Just(f64::INFINITY)];
    let ids = prop::option::weighted(0.7, 0usize..14);
    (
        (any::<bool>(), 0usize..8),
        prop::collection::vec(token(), 0..12),
        prop::collection::vec(score, 12),
        prop::collection::vec(0i64..8, 12),
        prop::collection::vec(merge, 0..4),
        prop::array::uniform3(ids),
        prop::array::uniform3(any::<Option<bool>>()),
        // Some lists are as long as the tokens, some are not.
        (0usize..14, 0usize..14, 0u8..4),
    )
        .prop_map(
            |((is_gpt2, pre), tokens, scores, types, merges, ids, flags, lens)| {
                let len = |len: usize| {
                    if lens.2 == 0 {
                        len.min(12)
                    } else {
                        tokens.len()
                    }
                };
                Fields {
                    is_gpt2,
                    pre,
                    scores: scores[..len(lens.0)].to_vec(),
                    token_types: types[..len(lens.1)].to_vec(),
                    // Most merges have to be of tokens that are there.
                    merges: if lens.2 == 1 { merges } else { Vec::new() },
                    tokens,
                    ids,
                    flags,
                }
            },
        )
}

impl Fields {
    fn gguf(&self) -> GgufTokenizer<'_> {
        const PRES: [&str; 8] = [
            "llama-bpe",
            "qwen2",
            "smollm",
            "tekken",
            "gpt-4o",
            "dbrx",
            "gpt-2",
            "default",
        ];
        GgufTokenizer {
            model: if self.is_gpt2 { "gpt2" } else { "llama" },
            pre: Some(PRES[self.pre]),
            tokens: self.tokens.iter().map(String::as_str).collect(),
            scores: self.scores.clone(),
            token_types: self.token_types.clone(),
            merges: self.merges.iter().map(String::as_str).collect(),
            bos: self.ids[0],
            eos: self.ids[1],
            unknown: self.ids[2],
            add_bos: self.flags[0],
            add_eos: self.flags[1],
            add_space_prefix: self.flags[2],
            ..GgufTokenizer::default()
        }
    }
}

proptest! {
    #![proptest_config(cases(1500))]

    #[test]
    fn any_gguf_tokenizer_is_an_error_or_works(
        fields in fields(),
        text in "[ab ▁Ġ<|end>\\PC\n]{0,12}",
    ) {
        if let Ok(model) = TextModel::from_gguf(&fields.gguf(), None) {
            use_model(&model);
            if let Ok(ids) = model.encode(&text, true) {
                prop_assert!(ids.iter().all(|&id| (id as usize) < model.vocab_size()));
                let _ = model.decode(&ids, true);
            }
        }
    }

    #[test]
    fn a_changed_tokenizer_json_is_an_error_or_works(
        changes in prop::collection::vec((any::<Index>(), any::<u8>()), 1..5),
        len in prop::option::weighted(0.2, any::<Index>()),
    ) {
        let mut bytes = tokenizer_json().to_string().into_bytes();
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if let Some(len) = len {
            bytes.truncate(len.index(bytes.len()));
        }
        if let Ok(model) = TextModel::load(&bytes, None, None) {
            use_model(&model);
        }
    }

    #[test]
    fn a_changed_tokenizer_config_is_an_error_or_works(
        changes in prop::collection::vec((any::<Index>(), any::<u8>()), 1..5),
    ) {
        let config = json!({"bos_token": "<|end|>", "eos_token": {"content": "ab"},
            "added_tokens_decoder": {"5": {"content": "<|end|>", "special": true}},
            "additional_special_tokens": ["Ġ"], "chat_template": "{{ bos_token }}"});
        let mut config = config.to_string().into_bytes();
        for (at, byte) in changes {
            let at = at.index(config.len());
            config[at] = byte;
        }
        let tokenizer = tokenizer_json().to_string();
        if let Ok(model) = TextModel::load(tokenizer.as_bytes(), Some(&config), None) {
            use_model(&model);
        }
    }
}
