//! A tokenizer made up for models without one: a token for each byte, and a word for every further
//! id.
//!
//! Text in is as many tokens as it has bytes; text out shows every token, so that a stream of a
//! model with random weights can be watched, timed and counted.
//!
//! Invariant: every text encodes, and every id below the vocabulary's size decodes to some text.

use serde_json::{Map, Value, json};

use crate::{TextError, TextModel};

/// Ids of bytes.
const NUM_BYTES: usize = 256;

/// Roles and contents, a line each.
const TEMPLATE: &str = "{% for message in messages %}{{ message.role }}: {{ message.content }}\n\
                        {% endfor %}{% if add_generation_prompt %}assistant:{% endif %}";

impl TextModel {
    /// A made-up tokenizer for `vocab_size` ids; `chat_template` replaces the made-up one.
    ///
    /// # Errors
    /// Fewer ids than bytes, or a template that does not compile.
    pub fn synthetic(vocab_size: usize, chat_template: Option<&str>) -> Result<Self, TextError> {
        if vocab_size < NUM_BYTES {
            return Err(TextError::Tokenizer(format!(
                "a made-up tokenizer needs a token for each of {NUM_BYTES} bytes, but the model \
                 has {vocab_size}"
            )));
        }
        let mut vocabulary = Map::new();
        for byte in 0..NUM_BYTES {
            vocabulary.insert(spelling(byte as u8).to_string(), byte.into());
        }
        for id in NUM_BYTES..vocab_size {
            // Begins with a space, in the spelling of bytes.
            vocabulary.insert(format!("\u{120}t{id}"), id.into());
        }
        let byte_level = json!({
            "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false,
            "use_regex": true,
        });
        let tokenizer = json!({
            "version": "1.0", "added_tokens": [], "normalizer": null, "post_processor": null,
            "pre_tokenizer": byte_level, "decoder": byte_level,
            "model": {"type": "BPE", "vocab": Value::Object(vocabulary), "merges": []},
        });
        let template = chat_template.unwrap_or(TEMPLATE);
        Self::load(tokenizer.to_string().as_bytes(), None, Some(template))
    }
}

/// GPT-2's printable character for a byte: its own where it has one, else the next free one from
/// U+0100 on.
fn spelling(byte: u8) -> char {
    let is_printable = |byte: u8| matches!(byte, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff);
    if is_printable(byte) {
        return char::from(byte);
    }
    let num_before = (0..byte).filter(|&b| !is_printable(b)).count() as u32;
    char::from_u32(0x100 + num_before).unwrap_or(char::REPLACEMENT_CHARACTER)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_byte_is_a_token_and_every_id_is_a_text() {
        let model = TextModel::synthetic(1000, None).unwrap();
        assert_eq!(model.vocab_size(), 1000);
        let text = "Hello, wörld!\n\t\u{0} \u{1f600}";
        let ids = model.encode(text, true).unwrap();
        let bytes: Vec<u32> = text.bytes().map(u32::from).collect();
        assert_eq!(ids, bytes);
        assert_eq!(model.decode(&ids, true), text);
        assert_eq!(model.decode(&[72, 105, 256, 999], true), "Hi t256 t999");
        let error = TextModel::synthetic(255, None).unwrap_err().to_string();
        assert!(error.contains("255"), "{error}");
    }

    #[test]
    fn spellings_differ() {
        let all: std::collections::BTreeSet<char> = (0..=255).map(spelling).collect();
        assert_eq!(all.len(), 256);
        assert_eq!(spelling(b' '), '\u{120}');
    }
}
