//! Tokenizers out of GGUF metadata, said as `tokenizer.json` and `tokenizer_config.json`.
//!
//! Two kinds: `llama` (SentencePiece's pairs by score, with byte fallback) and `gpt2` (byte-level
//! pairs in the order of a merge list). SentencePiece joins the pair whose token scores best, so
//! its merge list is every way to put a token together from two others, best score first.
//!
//! Invariant: a kind or pre-tokenizer that is not known is refused by name: another one would give
//! other ids in silence.

pub(crate) mod pre_tokenizer;

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::error::TextError;
use crate::model::TextModel;
use pre_tokenizer::{PreTokenizer, byte_level_step};

/// Types of tokens, as files number them.
const NORMAL: i64 = 1;
const UNKNOWN: i64 = 2;
const CONTROL: i64 = 3;
const USER_DEFINED: i64 = 4;

/// Bounds of what is read, far above real tokenizers': they bound the time and memory of loading.
const MAX_NUM_TOKENS: usize = 1 << 20;
const MAX_NUM_MERGES: usize = 1 << 21;
/// Bytes of one token, and of all.
const MAX_TOKEN_BYTES: usize = 1 << 10;
const MAX_VOCABULARY_BYTES: usize = 1 << 24;

/// The tokenizer's fields of a GGUF file, without their prefix `tokenizer.ggml.`.
#[derive(Clone, Debug, Default)]
pub struct GgufTokenizer<'a> {
    /// `model`: `llama` or `gpt2`.
    pub model: &'a str,
    /// `pre`: how texts are split; `gpt2` only.
    pub pre: Option<&'a str>,
    /// `tokens`, by id.
    pub tokens: Vec<&'a str>,
    /// `scores`, by id; `llama` only.
    pub scores: Vec<f64>,
    /// `token_type`, by id; empty: all are normal.
    pub token_types: Vec<i64>,
    /// `merges`, two tokens with a space between; `gpt2` only.
    pub merges: Vec<&'a str>,
    /// `bos_token_id`.
    pub bos: Option<usize>,
    /// `eos_token_id`.
    pub eos: Option<usize>,
    /// `unknown_token_id`.
    pub unknown: Option<usize>,
    /// `add_bos_token`.
    pub add_bos: Option<bool>,
    /// `add_eos_token`.
    pub add_eos: Option<bool>,
    /// `add_space_prefix`; `llama` only.
    pub add_space_prefix: Option<bool>,
    /// `tokenizer.chat_template`.
    pub chat_template: Option<&'a str>,
    /// `tokenizer.chat_template.NAME`, for each NAME in `tokenizer.chat_templates`.
    pub named_chat_templates: Vec<(&'a str, &'a str)>,
}

impl TextModel {
    /// Loads a tokenizer from GGUF metadata; `chat_template` replaces the file's own.
    ///
    /// # Errors
    /// [`TextError::Gguf`], naming the field; or as [`TextModel::load`].
    pub fn from_gguf(
        gguf: &GgufTokenizer<'_>,
        chat_template: Option<&str>,
    ) -> Result<Self, TextError> {
        gguf.check_size()?;
        let gguf = &gguf.with_default_ids();
        let tokenizer = gguf.tokenizer_json()?;
        let mut config = Map::new();
        let own = gguf.chat_template.map(|template| ("default", template));
        let templates = own
            .into_iter()
            .chain(gguf.named_chat_templates.iter().copied());
        let templates: Vec<Value> = templates
            .map(|(name, template)| json!({"name": name, "template": template}))
            .collect();
        config.insert("chat_template".to_owned(), templates.into());
        for (name, id) in [
            ("bos_token", gguf.bos),
            ("eos_token", gguf.eos),
            ("unk_token", gguf.unknown),
        ] {
            if let Some(id) = id {
                config.insert(name.to_owned(), gguf.token(name, id)?.into());
            }
        }
        let config = Value::Object(config).to_string();
        Self::load(
            tokenizer.to_string().as_bytes(),
            Some(config.as_bytes()),
            chat_template,
        )
    }
}

impl GgufTokenizer<'_> {
    fn check_size(&self) -> Result<(), TextError> {
        let num_bytes = self.tokens.iter().map(|token| token.len()).sum();
        let longest = self.tokens.iter().map(|token| token.len()).max();
        for (field, what, found, most) in [
            ("tokens", "tokens", self.tokens.len(), MAX_NUM_TOKENS),
            ("tokens", "bytes", num_bytes, MAX_VOCABULARY_BYTES),
            (
                "tokens",
                "bytes in one token",
                longest.unwrap_or(0),
                MAX_TOKEN_BYTES,
            ),
            ("merges", "merges", self.merges.len(), MAX_NUM_MERGES),
        ] {
            if found > most {
                return Err(TextError::Gguf(format!(
                    "`tokenizer.ggml.{field}` has {found} {what}, more than {most}"
                )));
            }
        }
        if self.tokens.is_empty() {
            return Err(TextError::Gguf(
                "`tokenizer.ggml.tokens` is missing or empty".to_owned(),
            ));
        }
        Ok(())
    }

    /// SentencePiece's own ids, where the file names none: llama.cpp does the same.
    fn with_default_ids(&self) -> Self {
        let mut gguf = self.clone();
        if self.model == "llama" {
            let known = |id: usize| Some(id).filter(|&id| id < self.tokens.len());
            gguf.unknown = self.unknown.or(known(0));
            gguf.bos = self.bos.or(known(1));
            gguf.eos = self.eos.or(known(2));
        }
        gguf
    }

    fn token(&self, name: &str, id: usize) -> Result<&str, TextError> {
        let token = self.tokens.get(id).copied();
        token
            .ok_or_else(|| TextError::Gguf(format!("`{name}` has the id {id}, which no token has")))
    }

    fn tokenizer_json(&self) -> Result<Value, TextError> {
        for (field, len) in [
            ("scores", self.scores.len()),
            ("token_type", self.token_types.len()),
        ] {
            if len != 0 && len != self.tokens.len() {
                let num_tokens = self.tokens.len();
                return Err(TextError::Gguf(format!(
                    "`tokenizer.ggml.{field}` has {len} values for {num_tokens} tokens"
                )));
            }
        }
        let mut tokenizer = match self.model {
            "llama" => self.sentence_piece()?,
            "gpt2" => self.byte_level()?,
            other => {
                return Err(TextError::Gguf(format!(
                    "`tokenizer.ggml.model` = {other:?} is not supported (supported: llama, gpt2)"
                )));
            }
        };
        tokenizer["version"] = "1.0".into();
        tokenizer["added_tokens"] = self.added_tokens();
        Ok(tokenizer)
    }

    fn token_type(&self, id: usize) -> i64 {
        self.token_types.get(id).copied().unwrap_or(NORMAL)
    }

    /// Ids by token; the first of a token that is there twice.
    fn vocabulary(&self) -> BTreeMap<&str, usize> {
        let by_id = self.tokens.iter().enumerate().rev();
        by_id.map(|(id, &token)| (token, id)).collect()
    }

    /// Tokens that are found in texts before anything else.
    fn added_tokens(&self) -> Value {
        let ids = 0..self.tokens.len();
        let is_added =
            |&id: &usize| matches!(self.token_type(id), UNKNOWN | CONTROL | USER_DEFINED);
        let added = ids.filter(is_added).map(|id| {
            json!({
                "id": id, "content": self.tokens[id], "single_word": false, "lstrip": false,
                "rstrip": false, "normalized": false,
                "special": self.token_type(id) != USER_DEFINED,
            })
        });
        added.collect()
    }

    /// `llama`.
    fn sentence_piece(&self) -> Result<Value, TextError> {
        if self.scores.is_empty() {
            let reason = "`tokenizer.ggml.scores` is missing";
            return Err(TextError::Gguf(reason.to_owned()));
        }
        let vocabulary = self.vocabulary();
        let has_prefix = self.add_space_prefix.unwrap_or(true);
        let replace = json!({
            "type": "Replace", "pattern": {"String": " "}, "content": "\u{2581}",
        });
        let mut normalizers = vec![replace];
        let mut decoders = vec![
            json!({"type": "Replace", "pattern": {"String": "\u{2581}"}, "content": " "}),
            json!({"type": "ByteFallback"}),
            json!({"type": "Fuse"}),
        ];
        if has_prefix {
            normalizers.insert(0, json!({"type": "Prepend", "prepend": "\u{2581}"}));
            decoders.push(json!({"type": "Strip", "content": " ", "start": 1, "stop": 0}));
        }
        let unknown = self.unknown.map(|id| self.token("unknown_token_id", id));
        Ok(json!({
            "normalizer": {"type": "Sequence", "normalizers": normalizers},
            "pre_tokenizer": null,
            "post_processor": self.post_processor(true)?,
            "decoder": {"type": "Sequence", "decoders": decoders},
            "model": {
                "type": "BPE", "unk_token": unknown.transpose()?, "fuse_unk": true,
                "byte_fallback": true, "merges": self.merges_by_score(&vocabulary),
                "vocab": vocabulary,
            },
        }))
    }

    /// Every way to make a normal token of two others, best score first.
    fn merges_by_score(&self, vocabulary: &BTreeMap<&str, usize>) -> Value {
        let is_normal = |id: usize| self.token_type(id) == NORMAL;
        let mut merges = Vec::new();
        for (id, &token) in self
            .tokens
            .iter()
            .enumerate()
            .filter(|(id, _)| is_normal(*id))
        {
            let first = merges.len();
            for (at, _) in token.char_indices().skip(1) {
                let (left, right) = token.split_at(at);
                let ids = (vocabulary.get(left), vocabulary.get(right));
                if let (Some(&left_id), Some(&right_id)) = ids
                    && is_normal(left_id)
                    && is_normal(right_id)
                {
                    merges.push((self.scores[id], (left_id, right_id), left, right));
                }
            }
            merges[first..].sort_by_key(|merge| merge.1);
        }
        // Stable: of equal scores the token with the smaller id comes first.
        merges.sort_by(|a, b| b.0.total_cmp(&a.0));
        let pairs = merges
            .into_iter()
            .map(|(_, _, left, right)| json!([left, right]));
        pairs.collect()
    }

    /// `gpt2`.
    fn byte_level(&self) -> Result<Value, TextError> {
        let pre = PreTokenizer::parse(self.pre)?;
        let pair = |(index, merge): (usize, &&str)| match split_merge(merge) {
            Some((left, right)) => Ok(json!([left, right])),
            None => Err(TextError::Gguf(format!(
                "`tokenizer.ggml.merges`[{index}] = {merge:?} is not a pair"
            ))),
        };
        let merges: Vec<Value> = self
            .merges
            .iter()
            .enumerate()
            .map(pair)
            .collect::<Result<_, _>>()?;
        Ok(json!({
            "normalizer": pre.normalizer,
            "pre_tokenizer": pre.steps,
            "post_processor": self.post_processor(pre.adds_bos)?,
            "decoder": byte_level_step(false),
            "model": {
                "type": "BPE", "fuse_unk": false, "byte_fallback": false,
                "ignore_merges": pre.ignores_merges, "merges": merges, "vocab": self.vocabulary(),
            },
        }))
    }

    /// What stands around a prompt, where the file does not say: BOS if `adds_bos`, no EOS.
    fn post_processor(&self, adds_bos: bool) -> Result<Value, TextError> {
        let bos = self.bos.filter(|_| self.add_bos.unwrap_or(adds_bos));
        let eos = self.eos.filter(|_| self.add_eos.unwrap_or(false));
        let mut special_tokens = Map::new();
        let mut special = |name: &str, id: Option<usize>| {
            let Some(id) = id else {
                return Ok(None);
            };
            let token = self.token(name, id)?;
            special_tokens.insert(
                token.to_owned(),
                json!({"id": token, "ids": [id], "tokens": [token]}),
            );
            Ok::<_, TextError>(Some(json!({"SpecialToken": {"id": token, "type_id": 0}})))
        };
        let (bos, eos) = (special("bos_token_id", bos)?, special("eos_token_id", eos)?);
        let sequence = |id: &str| json!({"Sequence": {"id": id, "type_id": 0}});
        let around = |inner: Vec<Value>| -> Vec<Value> {
            bos.iter()
                .cloned()
                .chain(inner)
                .chain(eos.clone())
                .collect()
        };
        Ok(json!({
            "type": "TemplateProcessing",
            "single": around(vec![sequence("A")]),
            "pair": around(vec![sequence("A"), sequence("B")]),
            "special_tokens": special_tokens,
        }))
    }
}

/// The two tokens of a merge: the space between them is not the first character.
fn split_merge(merge: &str) -> Option<(&str, &str)> {
    let first = merge.chars().next()?.len_utf8();
    let at = first + merge[first..].find(' ')?;
    Some((&merge[..at], &merge[at + 1..]))
}
