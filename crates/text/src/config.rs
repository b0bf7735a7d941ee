//! `tokenizer_config.json`: special tokens, added tokens, chat templates.
//!
//! Invariant: a field of the wrong type is an error that names it, never a silent default.

use indexmap::IndexMap;
use serde_json::{Map, Value};
use tokenizers::AddedToken;

use crate::error::TextError;

/// The special tokens that have a name of their own, as chat templates know them.
const NAMED_TOKENS: [&str; 7] = [
    "bos_token",
    "eos_token",
    "unk_token",
    "sep_token",
    "pad_token",
    "cls_token",
    "mask_token",
];

/// What this crate reads of `tokenizer_config.json`.
#[derive(Debug, Default)]
pub(crate) struct TokenizerConfig {
    /// Named special tokens that are set, in the order above.
    pub(crate) named_tokens: IndexMap<&'static str, String>,
    /// Special tokens without a name.
    pub(crate) extra_special_tokens: Vec<String>,
    /// `added_tokens_decoder`, by id.
    pub(crate) added_tokens: Vec<AddedToken>,
    /// Chat templates by name; a single one is called `default`.
    pub(crate) chat_templates: IndexMap<String, String>,
}

impl TokenizerConfig {
    /// Parses the file.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, TextError> {
        let value: Value = serde_json::from_slice(bytes)
            .map_err(|error| TextError::TokenizerConfig(error.to_string()))?;
        let Value::Object(map) = value else {
            return Err(invalid("the file", "an object"));
        };
        let mut config = Self {
            added_tokens: added_tokens(&map)?,
            chat_templates: chat_templates(&map)?,
            extra_special_tokens: extra_special_tokens(&map)?,
            ..Self::default()
        };
        for name in NAMED_TOKENS {
            if let Some(token) = map.get(name).filter(|v| !v.is_null()) {
                let content = token_content(token)
                    .ok_or_else(|| invalid(name, "a string or an object with `content`"))?;
                config.named_tokens.insert(name, content.to_owned());
            }
        }
        Ok(config)
    }
}

fn invalid(field: &str, expected: &str) -> TextError {
    TextError::TokenizerConfig(format!("{field} must be {expected}"))
}

fn token_content(value: &Value) -> Option<&str> {
    match value {
        Value::String(text) => Some(text),
        Value::Object(map) => map.get("content")?.as_str(),
        _ => None,
    }
}

fn added_tokens(map: &Map<String, Value>) -> Result<Vec<AddedToken>, TextError> {
    let Some(value) = map.get("added_tokens_decoder").filter(|v| !v.is_null()) else {
        return Ok(Vec::new());
    };
    let expected = "an object of token id to token";
    let entries = value
        .as_object()
        .ok_or_else(|| invalid("added_tokens_decoder", expected))?;
    let mut tokens = Vec::with_capacity(entries.len());
    for (key, entry) in entries {
        let field = format!("added_tokens_decoder.{key}");
        let id: u32 = key
            .parse()
            .map_err(|_| invalid("added_tokens_decoder", expected))?;
        let content = token_content(entry).ok_or_else(|| invalid(&field, "an added token"))?;
        let flag = |name: &str| entry[name].as_bool().unwrap_or(false);
        let token = AddedToken::from(content.to_owned(), flag("special"))
            .single_word(flag("single_word"))
            .lstrip(flag("lstrip"))
            .rstrip(flag("rstrip"))
            .normalized(entry["normalized"].as_bool().unwrap_or(!flag("special")));
        tokens.push((id, token));
    }
    tokens.sort_by_key(|(id, _)| *id);
    Ok(tokens.into_iter().map(|(_, token)| token).collect())
}

fn extra_special_tokens(map: &Map<String, Value>) -> Result<Vec<String>, TextError> {
    let mut tokens = Vec::new();
    for field in ["additional_special_tokens", "extra_special_tokens"] {
        let expected = "a list of tokens";
        let values: Vec<&Value> = match map.get(field) {
            None | Some(Value::Null) => continue,
            Some(Value::Array(values)) => values.iter().collect(),
            // Newer files name each of them.
            Some(Value::Object(values)) => values.values().collect(),
            Some(_) => return Err(invalid(field, expected)),
        };
        for value in values {
            let content = token_content(value).ok_or_else(|| invalid(field, expected))?;
            tokens.push(content.to_owned());
        }
    }
    Ok(tokens)
}

fn chat_templates(map: &Map<String, Value>) -> Result<IndexMap<String, String>, TextError> {
    let expected = "a string or a list of objects with `name` and `template`";
    let mut templates = IndexMap::new();
    match map.get("chat_template") {
        None | Some(Value::Null) => {}
        Some(Value::String(template)) => {
            templates.insert("default".to_owned(), template.clone());
        }
        Some(Value::Array(entries)) => {
            for entry in entries {
                let (Some(name), Some(template)) =
                    (entry["name"].as_str(), entry["template"].as_str())
                else {
                    return Err(invalid("chat_template", expected));
                };
                templates.insert(name.to_owned(), template.to_owned());
            }
        }
        Some(_) => return Err(invalid("chat_template", expected)),
    }
    Ok(templates)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_both_forms_of_a_token_and_of_a_template() {
        let config = TokenizerConfig::parse(
            br#"{"bos_token": null, "eos_token": {"content": "</s>"}, "pad_token": "<pad>",
                "additional_special_tokens": ["<x>", {"content": "<y>"}],
                "added_tokens_decoder":
                    {"10": {"content": "b"}, "9": {"content": "a", "special": true}},
                "chat_template": [{"name": "default", "template": "D"},
                    {"name": "rag", "template": "R"}]}"#,
        )
        .unwrap();
        assert_eq!(config.named_tokens.get("eos_token").unwrap(), "</s>");
        assert!(!config.named_tokens.contains_key("bos_token"));
        assert_eq!(config.extra_special_tokens, ["<x>", "<y>"]);
        let added: Vec<_> = config
            .added_tokens
            .iter()
            .map(|t| (t.content.as_str(), t.special))
            .collect();
        assert_eq!(added, [("a", true), ("b", false)]);
        assert_eq!(config.chat_templates["rag"], "R");
        let single = TokenizerConfig::parse(br#"{"chat_template": "T"}"#).unwrap();
        assert_eq!(single.chat_templates["default"], "T");
    }

    #[test]
    fn malformed_fields_are_named() {
        for (json, field) in [
            ("[]", "the file"),
            ("{", "EOF"),
            (r#"{"bos_token": 3}"#, "bos_token"),
            (r#"{"chat_template": [{"name": "x"}]}"#, "chat_template"),
            (r#"{"chat_template": 1}"#, "chat_template"),
            (
                r#"{"added_tokens_decoder": {"x": {"content": "a"}}}"#,
                "added_tokens_decoder",
            ),
            (
                r#"{"added_tokens_decoder": {"1": {}}}"#,
                "added_tokens_decoder.1",
            ),
            (
                r#"{"additional_special_tokens": "a"}"#,
                "additional_special_tokens",
            ),
        ] {
            let error = TokenizerConfig::parse(json.as_bytes())
                .expect_err(json)
                .to_string();
            assert!(error.contains(field), "{error}");
        }
    }
}
