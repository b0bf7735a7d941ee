//! The detokenizer on small tokenizers made here; real ones are in `tests/`.

use serde_json::json;

use super::*;

/// A tokenizer whose token ids are the indices of `tokens`.
fn model(decoder: serde_json::Value, tokens: &[&str], special: &[usize]) -> TextModel {
    let vocab: serde_json::Map<String, serde_json::Value> = tokens
        .iter()
        .enumerate()
        .map(|(i, t)| ((*t).to_owned(), json!(i)))
        .collect();
    let added: Vec<_> = special
        .iter()
        .map(|&i| {
            json!({"id": i, "content": tokens[i], "single_word": false, "lstrip": false,
                "rstrip": false, "normalized": false, "special": true})
        })
        .collect();
    let file = json!({"version": "1.0", "truncation": null, "padding": null,
        "added_tokens": added, "normalizer": null, "pre_tokenizer": null, "post_processor": null,
        "decoder": decoder, "model": {"type": "BPE", "vocab": vocab, "merges": []}});
    TextModel::load(file.to_string().as_bytes(), None, None).unwrap()
}

fn byte_fallback() -> TextModel {
    let decoder = json!({"type": "Sequence", "decoders": [
        {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
        {"type": "ByteFallback"}, {"type": "Fuse"},
        {"type": "Strip", "content": " ", "start": 1, "stop": 0}]});
    let tokens = [
        "<s>", "▁a", "b", "<0xE5>", "<0x8F>", "<0xAB>", "▁", "<0x20>",
    ];
    model(decoder, &tokens, &[0])
}

fn pieces(model: &TextModel, prompt: &[u32], ids: &[u32]) -> Vec<String> {
    let mut detokenizer = Detokenizer::new(model, prompt, true);
    let mut pieces: Vec<String> = ids.iter().map(|&id| detokenizer.push(id)).collect();
    pieces.push(detokenizer.finish());
    pieces
}

#[test]
fn a_character_comes_out_when_it_is_complete() {
    let model = byte_fallback();
    assert_eq!(
        pieces(&model, &[], &[1, 3, 4, 5, 2]),
        ["a", "", "", "叫", "b", ""]
    );
    // Special tokens that are left out do not end a run of bytes; text does.
    assert_eq!(pieces(&model, &[], &[3, 0, 4, 5]), ["", "", "", "叫", ""]);
    assert_eq!(
        pieces(&model, &[], &[2, 3, 4, 2]),
        ["b", "", "", "\u{fffd}\u{fffd}b", ""]
    );
    assert_eq!(pieces(&model, &[], &[3, 4]), ["", "", "\u{fffd}\u{fffd}"]);
}

#[test]
fn the_leading_space_is_cut_only_where_nothing_came_before() {
    let model = byte_fallback();
    assert_eq!(pieces(&model, &[], &[1, 1]).concat(), "a a");
    assert_eq!(pieces(&model, &[0], &[1, 1]).concat(), "a a");
    assert_eq!(pieces(&model, &[0, 2], &[1, 1]).concat(), " a a");
    assert_eq!(pieces(&model, &[], &[6, 1]).concat(), " a");
    assert_eq!(pieces(&model, &[], &[7, 7, 2]).concat(), " b");
    // Text far before the end of the prompt counts as well.
    let mut prompt = vec![2];
    prompt.extend([0; 40]);
    assert_eq!(pieces(&model, &prompt, &[1]).concat(), " a");
}

#[test]
fn a_character_begun_by_the_prompt_is_completed() {
    let model = byte_fallback();
    assert_eq!(pieces(&model, &[2, 3, 4], &[5, 2]), ["叫", "b", ""]);
}

#[test]
fn unknown_ids_and_special_tokens() {
    let model = byte_fallback();
    assert_eq!(model.id_to_token(1).as_deref(), Some("▁a"));
    assert_eq!(
        (model.id_to_token(99), model.token_to_id("▁a")),
        (None, Some(1))
    );
    assert_eq!(model.decode(&[0, 1, 99, u32::MAX, 2], false), "<s> ab");
    assert_eq!(model.decode(&[0, 1, 99, u32::MAX, 2], true), "ab");
    assert_eq!(
        (model.token_bytes(99), model.token_text(99)),
        (&b""[..], String::new())
    );
    assert_eq!(
        (model.token_text(1), model.token_bytes(1)),
        ("a".into(), &b" a"[..])
    );
    assert_eq!(
        (model.token_text(3), model.token_bytes(3)),
        ("\u{fffd}".into(), &[0xe5][..])
    );
}

#[test]
fn without_a_decoder_tokens_are_words() {
    let model = model(serde_json::Value::Null, &["a", "b"], &[]);
    assert_eq!(pieces(&model, &[], &[0, 1, 0]), ["a", " b", " a", ""]);
    assert_eq!(pieces(&model, &[1], &[0]).concat(), " a");
}

#[test]
fn metaspace_cuts_the_first_token_only() {
    let decoder =
        json!({"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": true});
    let model = model(decoder, &["▁a", "b"], &[]);
    assert_eq!(pieces(&model, &[], &[0, 0, 1]), ["a", " a", "b", ""]);
    assert_eq!(pieces(&model, &[1], &[0]).concat(), " a");
}
