//! Where a long text can be cut so that its pieces have the very ids of the whole.
//!
//! Tokenizing costs about 150 bytes of memory for each byte of text, so long texts are tokenized
//! piece by piece, and a text that is to be truncated only as far as its kept end needs.
//!
//! A cut is made only where the split into words is certain for this very tokenizer: the kinds
//! below are recognised by their settings, and any other tokenizer is never cut.
//!
//! Invariant: the ids of the pieces, one after the other, are the ids of the whole text.

use std::ops::Range;

use serde::Deserialize;
use serde_json::{Value, json};
use tokenizers::Tokenizer;

use crate::gguf::pre_tokenizer::{GPT_4O, TEKKEN};

/// Pieces are cut at the first sure place from this many bytes on.
pub(crate) const MIN_PIECE_BYTES: usize = 16 << 10;

/// The word patterns of Qwen 2 and Llama 3, which differ in how many digits make a word, and of
/// Tekken and GPT-4o, whose words end before capitals too.
const NEWLINE_PATTERNS: [&str; 4] = [
    concat!(
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}",
        r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    ),
    concat!(
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}",
        r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    ),
    TEKKEN,
    GPT_4O,
];

/// Which part of a text's ids is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// Every id.
    All,
    /// The first ids, this many; more may be returned, all of them right.
    First(usize),
    /// The last ids, this many; more may be returned, all of them right.
    Last(usize),
}

/// The parts of `tokenizer.json` that decide where a text can be cut.
#[derive(Deserialize)]
pub(crate) struct SplitSettings {
    #[serde(default)]
    normalizer: Value,
    #[serde(default)]
    pre_tokenizer: Value,
    #[serde(default)]
    model: ModelSettings,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct ModelSettings {
    #[serde(rename = "type")]
    kind: Value,
    dropout: Value,
    continuing_subword_prefix: Value,
    end_of_word_suffix: Value,
}

/// How a tokenizer's texts are cut, and what it puts around a whole text.
pub(crate) struct Pieces {
    /// The space of a cut belongs to no piece: the normalizer puts one before each.
    drops_space: bool,
    /// Also between a newline and a letter.
    cuts_newlines: bool,
    /// ASCII letters after which no token goes on with a space.
    ends_word: [bool; 128],
    pub(crate) prefix: Vec<u32>,
    pub(crate) suffix: Vec<u32>,
}

impl Pieces {
    /// `None` for a tokenizer that is not known to be safe to cut.
    pub(crate) fn of(settings: &SplitSettings, tokenizer: &Tokenizer) -> Option<Self> {
        let is_unset = |value: &Value| value.is_null() || value == "";
        let model = &settings.model;
        let is_plain_bpe = model.kind == "BPE"
            && is_unset(&model.dropout)
            && is_unset(&model.continuing_subword_prefix)
            && is_unset(&model.end_of_word_suffix);
        if !is_plain_bpe || !added_tokens_keep_off(tokenizer) {
            return None;
        }
        let spaces_by_normalizer = is_sentence_piece(settings);
        let words = words(settings);
        let ends_word = match words {
            Some(_) => [true; 128],
            None if spaces_by_normalizer => letters_without_bigram(tokenizer)?,
            None => return None,
        };
        let (prefix, suffix) = surroundings(tokenizer)?;
        Some(Self {
            drops_space: words.is_none(),
            cuts_newlines: words.is_some_and(|words| words.cuts_newlines),
            ends_word,
            prefix,
            suffix,
        })
    }

    /// Ranges of `text`, in order, of at least `min_bytes` but for the last.
    pub(crate) fn split(&self, text: &str, min_bytes: usize) -> Vec<Range<usize>> {
        let bytes = text.as_bytes();
        let min_bytes = min_bytes.max(1);
        let mut pieces = Vec::new();
        let (mut start, mut at) = (0, min_bytes);
        while at + 1 < bytes.len() {
            let Some(len) = self.cut_len(bytes[at - 1], bytes[at], bytes[at + 1]) else {
                at += 1;
                continue;
            };
            pieces.push(start..at);
            start = at + len;
            at = start + min_bytes;
        }
        pieces.push(start..bytes.len());
        pieces
    }

    /// Bytes that a cut before `here` drops; `None` where no cut is sure. Cuts are next to ASCII
    /// only, which is also where every normal form of Unicode has a border.
    fn cut_len(&self, before: u8, here: u8, after: u8) -> Option<usize> {
        let is_space = here == b' '
            && before.is_ascii_alphabetic()
            && after.is_ascii_alphabetic()
            && self.ends_word[usize::from(before)];
        let is_line = self.cuts_newlines && before == b'\n' && here.is_ascii_alphabetic();
        (is_space || is_line).then_some(usize::from(is_space && self.drops_space))
    }
}

/// Words are found by a known pattern: a letter, a space and a letter are then surely two words.
#[derive(Clone, Copy)]
struct Words {
    cuts_newlines: bool,
}

fn words(settings: &SplitSettings) -> Option<Words> {
    let normalizer = &settings.normalizer;
    if !normalizer.is_null() && *normalizer != json!({"type": "NFC"}) {
        return None;
    }
    let pre_tokenizer = &settings.pre_tokenizer;
    let one = std::slice::from_ref(pre_tokenizer);
    let steps = match pre_tokenizer["type"] == "Sequence" {
        true => pre_tokenizer["pretokenizers"].as_array()?.as_slice(),
        false => one,
    };
    let (last, first) = steps.split_last()?;
    if last["type"] != "ByteLevel" || last["add_prefix_space"] != false {
        return None;
    }
    match (first, last["use_regex"].as_bool().unwrap_or(true)) {
        ([], true) => Some(Words {
            cuts_newlines: false,
        }),
        ([digits], true) if digits["type"] == "Digits" => Some(Words {
            cuts_newlines: false,
        }),
        ([split], false) => {
            let pattern = split["pattern"]["Regex"].as_str()?;
            let is_known = split["type"] == "Split"
                && split["behavior"] == "Isolated"
                && split["invert"] == false
                && NEWLINE_PATTERNS.contains(&pattern);
            is_known.then_some(Words {
                cuts_newlines: true,
            })
        }
        _ => None,
    }
}

/// Whether spaces become `▁`, one is put before the text, and words are not split at all.
fn is_sentence_piece(settings: &SplitSettings) -> bool {
    let normalizer = json!({"type": "Sequence", "normalizers": [
        {"type": "Prepend", "prepend": "▁"},
        {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
    ]});
    settings.pre_tokenizer.is_null() && settings.normalizer == normalizer
}

/// The ASCII letters that no token has right before a `▁`: no merge can then join the two.
///
/// `None` where `▁` is no token of its own.
fn letters_without_bigram(tokenizer: &Tokenizer) -> Option<[bool; 128]> {
    let vocab = tokenizer.get_vocab(false);
    if !vocab.contains_key("▁") {
        return None;
    }
    let mut is_free = [false; 128];
    for letter in (0..128u8).filter(u8::is_ascii_alphabetic) {
        let mut utf8 = [0; 4];
        let text = char::from(letter).encode_utf8(&mut utf8);
        is_free[usize::from(letter)] = vocab.contains_key(&*text);
    }
    for token in vocab.keys() {
        for (at, _) in token.match_indices('▁').filter(|(at, _)| *at > 0) {
            if let Some(flag) = is_free.get_mut(usize::from(token.as_bytes()[at - 1])) {
                *flag = false;
            }
        }
    }
    Some(is_free)
}

/// Whether no added token can reach over or up to a cut.
fn added_tokens_keep_off(tokenizer: &Tokenizer) -> bool {
    let reaches = |end: Option<char>| end.is_none_or(|end| end.is_ascii_alphabetic());
    tokenizer.get_added_tokens_decoder().values().all(|token| {
        let mut chars = token.content.chars();
        !token.content.contains(char::is_whitespace)
            && !token.content.contains('▁')
            && !reaches(chars.clone().next())
            && !reaches(chars.next_back())
    })
}

/// What the post-processor puts before and after a text; `None` where that is not all it does.
fn surroundings(tokenizer: &Tokenizer) -> Option<(Vec<u32>, Vec<u32>)> {
    let ids = |text: &str, special| {
        let encoding = tokenizer.encode_fast(text, special).ok()?;
        Some(encoding.get_ids().to_vec())
    };
    let (bare, full) = (ids("a b", false)?, ids("a b", true)?);
    if bare.is_empty() {
        return None;
    }
    let mut places = (0..full.len()).filter(|&at| full[at..].starts_with(&bare));
    let at = places.next().filter(|_| places.next().is_none())?;
    Some((full[..at].to_vec(), full[at + bare.len()..].to_vec()))
}

#[cfg(test)]
#[path = "pieces_test.rs"]
mod pieces_test;
