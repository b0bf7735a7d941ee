//! `generation_config.json`: the model's own defaults for sampling.
//!
//! Invariant: a value is in the range that a request's own value would have to be in.

use hotspare_batch::TokenId;

use crate::ModelError;
use crate::config::{Fields, parse_object};

/// The file's name, for messages.
const FILE: &str = "generation_config.json";
/// Bound on counts.
const MAX_COUNT: usize = u32::MAX as usize - 1;

/// What a request gets where it says nothing. `None`: the server's own default.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GenerationConfig {
    /// 0 is greedy.
    pub temperature: Option<f32>,
    /// In (0, 1].
    pub top_p: Option<f32>,
    /// 0 keeps all.
    pub top_k: Option<u32>,
    /// In [0, 1].
    pub min_p: Option<f32>,
    /// Above 0; 1 is off.
    pub repetition_penalty: Option<f32>,
    /// Bound on output tokens.
    pub max_new_tokens: Option<u32>,
    /// End-of-sequence ids, beside those of `config.json`.
    pub eos_token_ids: Vec<TokenId>,
}

impl GenerationConfig {
    /// Parses the bytes of a `generation_config.json`.
    ///
    /// # Errors
    /// No JSON object, or a field of the wrong type or out of range.
    pub fn parse(json: &[u8]) -> Result<Self, ModelError> {
        let object = parse_object(FILE, json)?;
        let fields = Fields::new(FILE, &object);
        let number = |name: &str, is_valid: fn(f32) -> bool, range: &str| {
            let value = fields.f64(name)?.map(|value| value as f32);
            match value {
                Some(value) if !is_valid(value) => {
                    Err(fields.error(name, &format!("= {value} is not {range}")))
                }
                value => Ok(value),
            }
        };
        let count = |name: &str| {
            let value = fields.usize(name, 0..=MAX_COUNT)?;
            Ok::<_, ModelError>(value.map(|value| value as u32))
        };
        Ok(Self {
            temperature: number("temperature", |t| (0.0..1e6).contains(&t), "at least 0")?,
            top_p: number("top_p", |p| p > 0.0 && p <= 1.0, "above 0 and at most 1")?,
            top_k: count("top_k")?,
            min_p: number("min_p", |p| (0.0..=1.0).contains(&p), "from 0 to 1")?,
            repetition_penalty: number("repetition_penalty", |r| r > 0.0 && r < 1e6, "above 0")?,
            max_new_tokens: count("max_new_tokens")?,
            eos_token_ids: fields.token_ids("eos_token_id", MAX_COUNT)?,
        })
    }

    /// All end-of-sequence ids: these and the config's (`config_ids`), sorted, each once.
    pub fn all_eos_token_ids(&self, config_ids: &[TokenId]) -> Vec<TokenId> {
        let mut ids = [&self.eos_token_ids[..], config_ids].concat();
        ids.sort_unstable();
        ids.dedup();
        ids
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_every_field() {
        let json =
            br#"{"temperature": 0.6, "top_p": 0.9, "top_k": 40, "min_p": 0.05, "do_sample": true,
            "repetition_penalty": 1.1, "max_new_tokens": 256, "eos_token_id": [7, 2], "x": null}"#;
        let parsed = GenerationConfig::parse(json).unwrap();
        let expected = GenerationConfig {
            temperature: Some(0.6),
            top_p: Some(0.9),
            top_k: Some(40),
            min_p: Some(0.05),
            repetition_penalty: Some(1.1),
            max_new_tokens: Some(256),
            eos_token_ids: vec![7, 2],
        };
        assert_eq!(parsed, expected);
        assert_eq!(parsed.all_eos_token_ids(&[2, 1]), [1, 2, 7]);
        assert_eq!(
            GenerationConfig::parse(b"{}").unwrap(),
            GenerationConfig::default()
        );
    }

    #[test]
    fn refuses_wrong_values_by_name() {
        for (json, field) in [
            (r#"{"temperature": -1}"#, "temperature"),
            (r#"{"temperature": "hot"}"#, "temperature"),
            (r#"{"top_p": 0}"#, "top_p"),
            (r#"{"top_k": -1}"#, "top_k"),
            (r#"{"min_p": 2}"#, "min_p"),
            (r#"{"repetition_penalty": 0}"#, "repetition_penalty"),
            (r#"{"max_new_tokens": 1.5}"#, "max_new_tokens"),
            (r#"{"eos_token_id": ["a"]}"#, "eos_token_id"),
        ] {
            let error = GenerationConfig::parse(json.as_bytes())
                .unwrap_err()
                .to_string();
            assert!(error.contains(&format!("`{field}`")), "{json}: {error}");
        }
        assert!(GenerationConfig::parse(b"[]").is_err());
        assert!(GenerationConfig::parse(b"{").is_err());
    }
}
