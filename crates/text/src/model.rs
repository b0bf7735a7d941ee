//! A model's tokenizer with its special tokens and chat templates.
//!
//! Loaded once and shared; every method takes `&self`, and any thread may call it.
//!
//! Invariant: what `tokenizer.json` says holds for every request: its padding and truncation
//! settings, which would change a prompt silently, are switched off.

use std::fmt;
use std::sync::Arc;

use indexmap::IndexMap;
use serde::Deserialize;
use serde_json::Value;
use tokenizers::{AddedToken, Encoding, Tokenizer};

use crate::config::TokenizerConfig;
use crate::decoder::{DecodeTable, VocabEntry};
use crate::detokenizer::Detokenizer;
use crate::error::TextError;
use crate::pieces::{Keep, MIN_PIECE_BYTES, Pieces, SplitSettings};
use crate::render_job::RenderJob;
use crate::template::{ChatInput, ChatTemplate, TemplateLimits};

/// Token ids from here on are refused: the largest vocabularies have 262,144.
const MAX_VOCAB_SIZE: usize = 1 << 22;

/// The tokenizer, special tokens and chat templates of one model.
pub struct TextModel {
    tokenizer: Tokenizer,
    table: Arc<DecodeTable>,
    named_tokens: IndexMap<&'static str, String>,
    extra_special_tokens: Vec<String>,
    templates: IndexMap<String, ChatTemplate>,
    max_chars_per_token: usize,
    /// `None`: texts are tokenized whole.
    pieces: Option<Pieces>,
}

/// The parts of `tokenizer.json` that are read here as well; the rest is only checked to be JSON.
#[derive(Deserialize)]
struct TokenizerFile {
    #[serde(default)]
    decoder: Option<Value>,
}

impl TextModel {
    /// Loads a tokenizer from the contents of its files.
    ///
    /// `chat_template` (the file `chat_template.jinja`, or the operator's choice) replaces the
    /// default template of `tokenizer_config`. Nothing is read from disk.
    pub fn load(
        tokenizer_json: &[u8],
        tokenizer_config: Option<&[u8]>,
        chat_template: Option<&str>,
    ) -> Result<Self, TextError> {
        // The library panics on some malformed files; a syntax check and this guard turn that into
        // errors.
        let file: TokenizerFile =
            serde_json::from_slice(tokenizer_json).map_err(not_a_tokenizer)?;
        let split: Option<SplitSettings> = serde_json::from_slice(tokenizer_json).ok();
        let loaded = std::panic::catch_unwind(|| Tokenizer::from_bytes(tokenizer_json));
        let mut tokenizer = loaded
            .map_err(|_| not_a_tokenizer("the file is malformed"))?
            .map_err(not_a_tokenizer)?;
        tokenizer.with_truncation(None).map_err(not_a_tokenizer)?;
        tokenizer.with_padding(None);

        let mut config = match tokenizer_config {
            Some(bytes) => TokenizerConfig::parse(bytes)?,
            None => TokenizerConfig::default(),
        };
        add_tokens(&mut tokenizer, &config)?;
        if let Some(source) = chat_template {
            config
                .chat_templates
                .insert("default".into(), source.to_owned());
        }
        let mut templates = IndexMap::new();
        for (name, source) in &config.chat_templates {
            templates.insert(name.clone(), ChatTemplate::compile(source)?);
        }
        let entries = vocabulary(&tokenizer)?;
        let max_chars_per_token = entries
            .iter()
            .filter_map(|entry| entry.text.as_ref().map(|text| text.chars().count()))
            .max()
            .unwrap_or(1);
        Ok(Self {
            table: Arc::new(DecodeTable::compile(
                file.decoder.as_ref(),
                entries.into_iter(),
            )?),
            pieces: split.and_then(|split| Pieces::of(&split, &tokenizer)),
            tokenizer,
            named_tokens: config.named_tokens,
            extra_special_tokens: config.extra_special_tokens,
            templates,
            max_chars_per_token,
        })
    }

    /// The token ids of `text`; `add_special_tokens` adds what the model wants around a prompt (its
    /// BOS).
    ///
    /// Special tokens written out in `text` become those tokens either way, as chat templates need.
    pub fn encode(&self, text: &str, add_special_tokens: bool) -> Result<Vec<u32>, TextError> {
        self.encode_bounded(text, add_special_tokens, Keep::All, usize::MAX)
    }

    /// As [`TextModel::encode`], but only the ids of `keep` need be found, and no stretch of more
    /// than `max_unsplit_bytes` is tokenized at once, which bounds the memory that this takes.
    ///
    /// # Errors
    /// [`TextError::TextTooLong`] where a longer stretch has no place to cut it surely.
    pub fn encode_bounded(
        &self,
        text: &str,
        add_special_tokens: bool,
        keep: Keep,
        max_unsplit_bytes: usize,
    ) -> Result<Vec<u32>, TextError> {
        let min = MIN_PIECE_BYTES.min(max_unsplit_bytes);
        self.encode_pieces(text, add_special_tokens, keep, max_unsplit_bytes, min)
    }

    pub(crate) fn encode_pieces(
        &self,
        text: &str,
        add_special_tokens: bool,
        keep: Keep,
        max_unsplit_bytes: usize,
        min_piece_bytes: usize,
    ) -> Result<Vec<u32>, TextError> {
        let cut = self
            .pieces
            .as_ref()
            .filter(|_| text.len() > min_piece_bytes);
        let Some(pieces) = cut else {
            let encoding = self.encode_whole(text, add_special_tokens, max_unsplit_bytes)?;
            return Ok(encoding.get_ids().to_vec());
        };
        let (prefix, suffix) = match add_special_tokens {
            true => (&*pieces.prefix, &*pieces.suffix),
            false => (&[][..], &[][..]),
        };
        let ranges = pieces.split(text, min_piece_bytes);
        let encode = |range| self.encode_whole(&text[range], false, max_unsplit_bytes);
        if let Keep::Last(num_wanted) = keep {
            let mut found = Vec::new();
            let mut num_found = suffix.len();
            let mut is_whole = true;
            for range in ranges.into_iter().rev() {
                is_whole = num_found < num_wanted;
                if !is_whole {
                    break;
                }
                let ids = encode(range)?.get_ids().to_vec();
                num_found += ids.len();
                found.push(ids);
            }
            found.push(if is_whole {
                prefix.to_vec()
            } else {
                Vec::new()
            });
            found.reverse();
            found.push(suffix.to_vec());
            return Ok(found.concat());
        }
        let mut ids = prefix.to_vec();
        for range in ranges {
            if matches!(keep, Keep::First(num_wanted) if ids.len() >= num_wanted) {
                return Ok(ids);
            }
            ids.extend_from_slice(encode(range)?.get_ids());
        }
        ids.extend_from_slice(suffix);
        Ok(ids)
    }

    fn encode_whole(
        &self,
        text: &str,
        add_special_tokens: bool,
        max_bytes: usize,
    ) -> Result<Encoding, TextError> {
        if text.len() > max_bytes {
            return Err(TextError::TextTooLong {
                num_bytes: text.len(),
                max_bytes,
            });
        }
        self.tokenizer
            .encode_fast(text, add_special_tokens)
            .map_err(|error| TextError::Encode(error.to_string()))
    }

    /// The text of a whole sequence. Ids that no token has yield nothing.
    pub fn decode(&self, ids: &[u32], skip_special_tokens: bool) -> String {
        let mut detokenizer = Detokenizer::with_table(Arc::clone(&self.table), skip_special_tokens);
        let mut text = String::new();
        for &id in ids {
            detokenizer.push_into(id, &mut text);
        }
        text.push_str(&detokenizer.finish());
        text
    }

    /// A token as log probabilities name it: the text of the sequence that holds only this token,
    /// which is vLLM's rule. A lone part of a character is U+FFFD; [`TextModel::token_bytes`] has
    /// the bytes.
    pub fn token_text(&self, id: u32) -> String {
        self.decode(&[id], false)
    }

    /// A token's exact bytes within a text, a leading space included. Empty for an id that no token
    /// has.
    pub fn token_bytes(&self, id: u32) -> &[u8] {
        self.table.bytes(id).unwrap_or_default()
    }

    /// A token in the vocabulary's own spelling (`Ġdog`, `▁dog`), as vLLM's `/tokenize` lists it.
    pub fn id_to_token(&self, id: u32) -> Option<String> {
        self.tokenizer.id_to_token(id)
    }

    /// The id of a token given in the vocabulary's own spelling, such as `<|im_end|>`.
    pub fn token_to_id(&self, token: &str) -> Option<u32> {
        self.tokenizer.token_to_id(token)
    }

    /// Whether `skip_special_tokens` leaves this token out.
    pub fn is_special(&self, id: u32) -> bool {
        self.table.is_special(id)
    }

    /// One more than the largest token id; there may be ids below it that no token has.
    pub fn vocab_size(&self) -> usize {
        self.table.len()
    }

    /// Characters of the longest token: a text of more than this many per available token cannot
    /// fit.
    pub fn max_chars_per_token(&self) -> usize {
        self.max_chars_per_token
    }

    /// The beginning-of-sequence token.
    pub fn bos_token(&self) -> Option<&str> {
        self.named_tokens.get("bos_token").map(String::as_str)
    }

    /// The end-of-sequence token.
    pub fn eos_token(&self) -> Option<&str> {
        self.named_tokens.get("eos_token").map(String::as_str)
    }

    /// The id of [`TextModel::bos_token`].
    pub fn bos_token_id(&self) -> Option<u32> {
        self.token_to_id(self.bos_token()?)
    }

    /// The id of [`TextModel::eos_token`].
    pub fn eos_token_id(&self) -> Option<u32> {
        self.token_to_id(self.eos_token()?)
    }

    /// The model's template for this kind of request: `tool_use` if there are tools and it has one,
    /// else `default`.
    pub fn chat_template(&self, has_tools: bool) -> Option<&ChatTemplate> {
        let for_tools = has_tools.then(|| self.templates.get("tool_use")).flatten();
        for_tools.or_else(|| self.templates.get("default"))
    }

    /// The model's template of this name.
    pub fn named_chat_template(&self, name: &str) -> Option<&ChatTemplate> {
        self.templates.get(name)
    }

    /// The prompt of a conversation, as text. `template` overrides the model's own.
    ///
    /// It is to be encoded without special tokens: the template writes them out.
    pub fn render_chat(
        &self,
        input: &ChatInput<'_>,
        template: Option<&ChatTemplate>,
    ) -> Result<String, TextError> {
        let template = template
            .or_else(|| self.chat_template(input.tools.is_some()))
            .ok_or_else(|| {
                TextError::NoChatTemplate(
                    "This model has no chat template: pass one with --chat-template, or use \
                     /v1/completions."
                        .into(),
                )
            })?;
        let named = self
            .named_tokens
            .iter()
            .map(|(name, token)| (*name, token.as_str()));
        template.render(input, named, &self.extra_special_tokens)
    }

    /// The same with a template of a request's own, to be run elsewhere.
    pub fn render_job(
        &self,
        source: &str,
        limits: TemplateLimits,
        input: &ChatInput<'_>,
    ) -> RenderJob {
        let named_tokens = self.named_tokens.iter();
        RenderJob {
            source: source.to_owned(),
            max_fuel: limits.max_fuel,
            max_output_bytes: limits.max_output_bytes,
            messages: input.messages.to_vec(),
            tools: input.tools.map(<[_]>::to_vec),
            documents: input.documents.map(<[_]>::to_vec),
            add_generation_prompt: input.add_generation_prompt,
            continue_final_message: input.continue_final_message,
            kwargs: input.kwargs.cloned().unwrap_or_default(),
            unix_secs: input.now.unix_secs,
            utc_offset_secs: input.now.utc_offset_secs,
            named_tokens: named_tokens
                .map(|(name, token)| (name.to_string(), token.clone()))
                .collect(),
            extra_special_tokens: self.extra_special_tokens.clone(),
        }
    }

    #[cfg(test)]
    pub(crate) fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    pub(crate) fn table(&self) -> &Arc<DecodeTable> {
        &self.table
    }
}

impl fmt::Debug for TextModel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TextModel")
            .field("vocab_size", &self.vocab_size())
            .field("named_tokens", &self.named_tokens)
            .field("templates", &self.templates.keys().collect::<Vec<_>>())
            .finish_non_exhaustive()
    }
}

fn not_a_tokenizer(error: impl ToString) -> TextError {
    TextError::Tokenizer(error.to_string())
}

/// Applies the added and special tokens of `tokenizer_config.json`, which win over
/// `tokenizer.json`.
///
/// A special token that the vocabulary does not have is left out: the model has no embedding for
/// it.
fn add_tokens(tokenizer: &mut Tokenizer, config: &TokenizerConfig) -> Result<(), TextError> {
    let mut tokens = config.added_tokens.clone();
    let named = config
        .named_tokens
        .values()
        .chain(&config.extra_special_tokens);
    let mut special: Vec<&str> = Vec::new();
    for content in named {
        let is_listed = tokens.iter().any(|token| token.content == *content);
        if is_listed || special.contains(&content.as_str()) {
            continue;
        }
        let is_special_already = tokenizer.get_added_vocabulary().is_special_token(content);
        if !is_special_already && tokenizer.token_to_id(content).is_some() {
            special.push(content);
        }
    }
    tokens.extend(
        special
            .into_iter()
            .map(|content| AddedToken::from(content, true)),
    );
    tokenizer.add_tokens(tokens).map_err(not_a_tokenizer)?;
    Ok(())
}

/// Every id from 0 to the largest, with its token if it has one.
fn vocabulary(tokenizer: &Tokenizer) -> Result<Vec<VocabEntry>, TextError> {
    let last = tokenizer.get_vocab(true).into_values().max();
    let num_ids = last.map_or(0, |id| id as usize + 1);
    if num_ids > MAX_VOCAB_SIZE {
        return Err(not_a_tokenizer(format!(
            "token ids go up to {num_ids}, more than the {MAX_VOCAB_SIZE} that are supported"
        )));
    }
    let added = tokenizer.get_added_vocabulary();
    let entry = |id| {
        let text = tokenizer.id_to_token(id);
        let is_special = text
            .as_deref()
            .is_some_and(|text| added.is_special_token(text));
        VocabEntry { text, is_special }
    };
    Ok((0..num_ids as u32).map(entry).collect())
}

#[cfg(test)]
#[path = "model_test.rs"]
mod model_test;
