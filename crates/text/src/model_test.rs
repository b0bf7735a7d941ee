//! Loading: what is refused, and what `tokenizer_config.json` changes.

use serde_json::json;

use super::*;

fn file() -> serde_json::Value {
    json!({"version": "1.0", "truncation": null, "padding": null, "added_tokens": [],
        "normalizer": null, "pre_tokenizer": null, "post_processor": null,
        "decoder": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false,
            "use_regex": false},
        "model": {"type": "BPE", "merges": [["a", "b"]],
            "vocab": {"a": 0, "b": 1, "<e>": 2, "ab": 3}}})
}

fn load(file: &serde_json::Value, config: Option<&str>) -> Result<TextModel, TextError> {
    TextModel::load(file.to_string().as_bytes(), config.map(str::as_bytes), None)
}

#[test]
fn malformed_files_are_errors() {
    for bytes in [
        &b""[..],
        b"{",
        b"[]",
        b"{}",
        b"{\"model\": {}}",
        b"\xff\xfe",
    ] {
        let error = TextModel::load(bytes, None, None).expect_err("refused");
        assert!(error.to_string().starts_with("tokenizer.json: "), "{error}");
    }
    for (pointer, value) in [
        ("/decoder", json!({"type": "Nothing"})),
        ("/decoder", json!({"decoders": 3})),
        ("/model/vocab/a", json!(4_000_000_000u32)),
        ("/model/merges", json!([["x", "y"]])),
        (
            "/pre_tokenizer",
            json!({"type": "Split", "pattern": {"Regex": "("}, "behavior": "Isolated",
                "invert": false}),
        ),
    ] {
        let mut broken = file();
        *broken.pointer_mut(pointer).unwrap() = value;
        let error = load(&broken, None).expect_err(pointer);
        assert!(error.to_string().starts_with("tokenizer.json: "), "{error}");
        assert!(!error.is_request_error());
    }
    let error = load(&file(), Some(r#"{"chat_template": "{% if %}"}"#)).expect_err("template");
    assert!(matches!(error, TextError::TemplateSyntax(_)), "{error}");
}

#[test]
fn the_config_makes_tokens_special() {
    let plain = load(&file(), None).unwrap();
    assert_eq!(plain.decode(&[0, 2, 1], true), "a<e>b");
    // A token that the vocabulary lacks (`<pad>`) is not invented.
    let config = r#"{"eos_token": "<e>", "pad_token": "<pad>"}"#;
    let model = load(&file(), Some(config)).unwrap();
    assert_eq!(model.decode(&[0, 2, 1], true), "ab");
    assert_eq!(
        (model.eos_token(), model.eos_token_id()),
        (Some("<e>"), Some(2))
    );
    assert_eq!((model.bos_token(), model.bos_token_id()), (None, None));
    assert_eq!(model.vocab_size(), 4);
    assert_eq!(model.encode("ab<e>a", true).unwrap(), [3, 2, 0]);
    assert!(model.is_special(2) && !model.is_special(0) && !model.is_special(9));
    assert_eq!(model.max_chars_per_token(), 3);
}

#[test]
fn settings_that_change_prompts_are_off() {
    let mut limited = file();
    limited["truncation"] =
        json!({"direction": "Right", "max_length": 1, "strategy": "LongestFirst", "stride": 0});
    limited["padding"] = json!({"strategy": {"Fixed": 8}, "direction": "Right",
        "pad_to_multiple_of": null,
        "pad_id": 0, "pad_type_id": 0, "pad_token": "a"});
    assert_eq!(
        load(&limited, None).unwrap().encode("abab", true).unwrap(),
        [3, 3]
    );
}

#[test]
fn templates_are_chosen_by_the_request() {
    let config = r#"{"chat_template": [{"name": "default", "template": "D{{ tools is none }}"},
        {"name": "tool_use", "template": "T{{ tools | length }}"}]}"#;
    let model = load(&file(), Some(config)).unwrap();
    let messages = [json!({"role": "user", "content": "x"})];
    let mut input = ChatInput::new(&messages, crate::LocalTime::default());
    assert_eq!(model.render_chat(&input, None).unwrap(), "DTrue");
    let tools = [json!({"type": "function"})];
    input.tools = Some(&tools);
    assert_eq!(model.render_chat(&input, None).unwrap(), "T1");
    let other = ChatTemplate::compile("O").unwrap();
    assert_eq!(model.render_chat(&input, Some(&other)).unwrap(), "O");
    assert!(model.named_chat_template("rag").is_none());

    let none = load(&file(), None)
        .unwrap()
        .render_chat(&input, None)
        .expect_err("no template");
    assert!(none.is_request_error() && none.to_string().contains("no chat template"));
}

#[test]
fn is_shared_between_threads() {
    fn check<T: Send + Sync>() {}
    check::<TextModel>();
    check::<Detokenizer>();
    check::<ChatTemplate>();
}
