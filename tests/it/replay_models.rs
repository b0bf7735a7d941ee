//! The models that streams are cut on: an embedded one, and three families with random weights,
//! which get a tokenizer of bytes so that text is at stake too.
//!
//! Invariant: a model that is not there is left out loudly.

use std::path::Path;

use hotspare_testkit::shared_asset;
use serde_json::{Map, Value, json};

/// A model's name on the command line, and what keeps its files.
pub(crate) struct Model {
    pub(crate) name: String,
    _files: Option<tempfile::TempDir>,
}

/// The small embedded model.
pub(crate) fn embedded() -> Model {
    Model {
        name: "spark-mini".to_owned(),
        _files: None,
    }
}

/// Ids of the tiny families.
const VOCAB_SIZE: u64 = 320;

const TEMPLATE: &str = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}";

/// A tiny model of `family`, in a directory with links to its files.
pub(crate) fn tiny(family: &str) -> Option<Model> {
    let path = shared_asset("replay", &format!("tiny/{family}"))?;
    let files = tempfile::tempdir().unwrap();
    for name in ["config.json", "generation_config.json", "model.safetensors"] {
        let file = path.canonicalize().unwrap().join(name);
        std::os::unix::fs::symlink(file, files.path().join(name)).unwrap();
    }
    write(files.path(), "tokenizer.json", &tokenizer());
    let config = json!({"bos_token": "<s>", "eos_token": "</s>", "chat_template": TEMPLATE});
    write(files.path(), "tokenizer_config.json", &config);
    Some(Model {
        name: files.path().to_str().unwrap().to_owned(),
        _files: Some(files),
    })
}

fn write(directory: &Path, name: &str, value: &Value) {
    std::fs::write(directory.join(name), value.to_string()).unwrap();
}

/// Three special tokens, one for each byte, and words that are never encoded but may be drawn.
fn tokenizer() -> Value {
    let mut vocab = Map::new();
    let mut add = |text: String| {
        let id = vocab.len();
        vocab.insert(text, json!(id));
    };
    let special = ["<pad>", "<s>", "</s>"];
    special.iter().for_each(|text| add((*text).to_owned()));
    // The usual stand-ins for bytes that are no printable character.
    let mut num_hidden = 0;
    for byte in 0..=255u8 {
        let is_shown = matches!(byte, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff);
        add(match is_shown {
            true => char::from(byte).to_string(),
            false => {
                num_hidden += 1;
                char::from_u32(255 + num_hidden).unwrap().to_string()
            }
        });
    }
    for i in 0..VOCAB_SIZE {
        if vocab.len() as u64 == VOCAB_SIZE {
            break;
        }
        let id = vocab.len();
        vocab.insert(format!("word{i}"), json!(id));
    }
    let added: Vec<Value> = special
        .iter()
        .enumerate()
        .map(|(id, content)| {
            json!({"id": id, "content": content, "special": true, "normalized": false,
                "single_word": false, "lstrip": false, "rstrip": false})
        })
        .collect();
    let bytes = json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true,
        "use_regex": false});
    json!({"version": "1.0", "added_tokens": added, "pre_tokenizer": bytes, "decoder": bytes,
        "model": {"type": "BPE", "vocab": vocab, "merges": []}})
}
