//! The decoder of `tokenizer.json`, compiled into bytes per token.
//!
//! Language models use few shapes of decoder: byte-level, byte fallback with a replaced `▁`,
//! metaspace. Each of them comes down to fixed bytes per token and a rule for the start of the
//! text, which is what makes detokenization linear. A decoder outside these shapes is refused at
//! load, not approximated.
//!
//! Invariant: a token's bytes do not depend on its neighbours, except for what is cut at the very
//! start.

use serde_json::Value;

use crate::error::TextError;

const EXISTS: u8 = 1;
const SPECIAL: u8 = 2;
const BYTE: u8 = 4;

/// Bytes per token id, and how they are joined.
#[derive(Debug, Default)]
pub(crate) struct DecodeTable {
    pieces: Pieces,
    /// What a token is as the very first one, where that differs (metaspace).
    first_pieces: Option<Pieces>,
    flags: Vec<u8>,
    /// Tokens are raw bytes that form characters together, across any border.
    pub(crate) is_byte_level: bool,
    /// Without a decoder, tokens are words.
    pub(crate) joins_with_space: bool,
    /// This character is cut at most so many times from the start of the text.
    pub(crate) strip: Option<(char, usize)>,
}

#[derive(Debug, Default)]
struct Pieces {
    bytes: Vec<u8>,
    ends: Vec<u32>,
}

impl Pieces {
    fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
        self.ends.push(self.bytes.len() as u32);
    }

    fn get(&self, index: usize) -> &[u8] {
        let start = if index == 0 { 0 } else { self.ends[index - 1] };
        &self.bytes[start as usize..self.ends[index] as usize]
    }
}

/// One token of the vocabulary.
pub(crate) struct VocabEntry {
    pub(crate) text: Option<String>,
    pub(crate) is_special: bool,
}

impl DecodeTable {
    /// Compiles `decoder` (the field of `tokenizer.json`) for the tokens, in order of their ids.
    pub(crate) fn compile(
        decoder: Option<&Value>,
        entries: impl Iterator<Item = VocabEntry>,
    ) -> Result<Self, TextError> {
        let plan = Plan::parse(decoder)?;
        let mut table = Self {
            is_byte_level: plan.is_byte_level,
            joins_with_space: plan.joins_with_space,
            strip: plan.strip,
            first_pieces: plan.metaspace_cuts_first.then(Pieces::default),
            ..Self::default()
        };
        let bytes_of_chars = byte_level_alphabet();
        for entry in entries {
            let Some(text) = entry.text else {
                table.push(0, b"", b"");
                continue;
            };
            let mut flags = EXISTS | if entry.is_special { SPECIAL } else { 0 };
            if plan.is_byte_level {
                table.push(flags, &byte_level(&text, &bytes_of_chars), b"");
                continue;
            }
            match plan.apply(&text) {
                Piece::Byte(byte) => {
                    flags |= BYTE;
                    table.push(flags, &[byte], &[byte]);
                }
                Piece::Text { text, first } => {
                    table.push(flags, text.as_bytes(), first.as_bytes());
                }
            }
        }
        Ok(table)
    }

    fn push(&mut self, flags: u8, bytes: &[u8], first: &[u8]) {
        self.flags.push(flags);
        self.pieces.push(bytes);
        if let Some(pieces) = &mut self.first_pieces {
            pieces.push(first);
        }
    }

    /// One more than the largest token id.
    pub(crate) fn len(&self) -> usize {
        self.flags.len()
    }

    /// A token's bytes, or `None` for an id that no token has.
    pub(crate) fn bytes(&self, id: u32) -> Option<&[u8]> {
        let index = id as usize;
        (self.flags.get(index)? & EXISTS != 0).then(|| self.pieces.get(index))
    }

    /// A token's bytes at the very start of a text.
    pub(crate) fn first_bytes(&self, id: u32) -> Option<&[u8]> {
        self.bytes(id).map(|bytes| match &self.first_pieces {
            Some(pieces) => pieces.get(id as usize),
            None => bytes,
        })
    }

    /// Whether the token is left out under `skip_special_tokens`.
    pub(crate) fn is_special(&self, id: u32) -> bool {
        self.flags
            .get(id as usize)
            .is_some_and(|f| f & SPECIAL != 0)
    }

    /// Whether the token stands for one byte of a character (`<0xE2>`).
    pub(crate) fn is_byte(&self, id: u32) -> bool {
        self.flags.get(id as usize).is_some_and(|f| f & BYTE != 0)
    }
}

enum Piece {
    Byte(u8),
    Text { text: String, first: String },
}

#[derive(Default)]
struct Plan {
    steps: Vec<Step>,
    is_byte_level: bool,
    joins_with_space: bool,
    strip: Option<(char, usize)>,
    metaspace_cuts_first: bool,
    is_fused: bool,
}

enum Step {
    Replace { pattern: String, content: String },
    ByteFallback,
    Metaspace { replacement: char, cuts_first: bool },
    Strip { content: char, start: usize },
}

impl Plan {
    fn parse(decoder: Option<&Value>) -> Result<Self, TextError> {
        let mut plan = Self::default();
        match decoder {
            None | Some(Value::Null) => plan.joins_with_space = true,
            Some(decoder) => plan.add(decoder)?,
        }
        if plan.is_byte_level && !plan.steps.is_empty() {
            return Err(TextError::Tokenizer(
                "a ByteLevel decoder is supported only as the whole decoder".into(),
            ));
        }
        Ok(plan)
    }

    fn add(&mut self, decoder: &Value) -> Result<(), TextError> {
        let kind = decoder["type"].as_str().unwrap_or("without a type");
        let number = |key: &str| decoder[key].as_u64().unwrap_or(0) as usize;
        let unsupported = |why: &str| {
            Err(TextError::Tokenizer(format!(
                "the decoder {kind} {why} is not supported"
            )))
        };
        match kind {
            "Sequence" => {
                for step in decoder["decoders"].as_array().into_iter().flatten() {
                    self.add(step)?;
                }
            }
            "ByteLevel" => self.is_byte_level = true,
            "Fuse" => self.is_fused = true,
            "ByteFallback" if !self.is_fused => self.steps.push(Step::ByteFallback),
            "Replace" if !self.is_fused => {
                let (Some(pattern), Some(content)) = (
                    decoder["pattern"]["String"].as_str(),
                    decoder["content"].as_str(),
                ) else {
                    return unsupported("with a pattern that is not a string");
                };
                self.steps.push(Step::Replace {
                    pattern: pattern.to_owned(),
                    content: content.to_owned(),
                });
            }
            "Metaspace" if !self.is_fused => {
                let replacement = first_char(&decoder["replacement"]).unwrap_or('▁');
                // Older files say `add_prefix_space` where newer ones say `prepend_scheme`.
                let cuts_first = match decoder["prepend_scheme"].as_str() {
                    Some(scheme) => scheme != "never",
                    None => decoder["add_prefix_space"].as_bool().unwrap_or(true),
                };
                self.metaspace_cuts_first |= cuts_first;
                self.steps.push(Step::Metaspace {
                    replacement,
                    cuts_first,
                });
            }
            "Strip" if number("stop") == 0 => {
                let (content, start) = (
                    first_char(&decoder["content"]).unwrap_or(' '),
                    number("start"),
                );
                if self.is_fused {
                    self.strip = Some((content, start));
                } else {
                    self.steps.push(Step::Strip { content, start });
                }
            }
            "ByteFallback" | "Replace" | "Metaspace" => return unsupported("after Fuse"),
            "Strip" => return unsupported("with a stop"),
            _ => return unsupported(""),
        }
        Ok(())
    }

    fn apply(&self, token: &str) -> Piece {
        let mut text = token.to_owned();
        let mut first: Option<String> = None;
        for step in &self.steps {
            let mut change = |f: &dyn Fn(&str) -> String| {
                text = f(&text);
                first = first.take().map(|t| f(&t));
            };
            match step {
                Step::Replace { pattern, content } => {
                    change(&|t| t.replace(pattern.as_str(), content))
                }
                Step::Strip { content, start } => {
                    change(&|t| strip_start(t, *content, *start).0.to_owned());
                }
                Step::ByteFallback => {
                    if let Some(byte) = fallback_byte(&text) {
                        return Piece::Byte(byte);
                    }
                }
                Step::Metaspace {
                    replacement,
                    cuts_first,
                } => {
                    let cut = if *cuts_first { "" } else { " " };
                    first = Some(first.as_deref().unwrap_or(&text).replace(*replacement, cut));
                    text = text.replace(*replacement, " ");
                }
            }
        }
        Piece::Text {
            first: first.unwrap_or_else(|| text.clone()),
            text,
        }
    }
}

/// Cuts `content` from the start of `text` at most `limit` times; returns the rest and how often it
/// cut.
pub(crate) fn strip_start(text: &str, content: char, limit: usize) -> (&str, usize) {
    let mut rest = text;
    let mut count = 0;
    while count < limit {
        let Some(tail) = rest.strip_prefix(content) else {
            break;
        };
        rest = tail;
        count += 1;
    }
    (rest, count)
}

fn first_char(value: &Value) -> Option<char> {
    value.as_str()?.chars().next()
}

fn fallback_byte(token: &str) -> Option<u8> {
    let digits = token.strip_prefix("<0x")?.strip_suffix('>')?;
    if digits.len() != 2 {
        return None;
    }
    u8::from_str_radix(digits, 16).ok()
}

/// The byte that each of GPT-2's 256 printable characters stands for, by code point below 512.
///
/// Printable Latin-1 characters stand for themselves; the other bytes, in order, are U+0100
/// onwards.
fn byte_level_alphabet() -> [Option<u8>; 512] {
    let mut table = [None; 512];
    let mut next = 256;
    for byte in 0..=255u8 {
        let is_printable = matches!(byte, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff);
        let code = if is_printable {
            usize::from(byte)
        } else {
            next += 1;
            next - 1
        };
        table[code] = Some(byte);
    }
    table
}

/// A byte-level token's bytes; one with a character outside the alphabet is taken literally.
fn byte_level(token: &str, alphabet: &[Option<u8>; 512]) -> Vec<u8> {
    token
        .chars()
        .map(|c| alphabet.get(c as usize).copied().flatten())
        .collect::<Option<Vec<u8>>>()
        .unwrap_or_else(|| token.as_bytes().to_vec())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn table(decoder: Value, tokens: &[&str]) -> Result<DecodeTable, TextError> {
        let entries = tokens.iter().map(|t| VocabEntry {
            text: Some((*t).to_owned()),
            is_special: false,
        });
        DecodeTable::compile(Some(&decoder), entries)
    }

    #[test]
    fn byte_level_tokens_are_bytes() {
        let table = table(json!({"type": "ByteLevel"}), &["Ġhi", "Ċ", "Ã", "<｜x｜>"]).unwrap();
        assert_eq!(table.bytes(0), Some(&b" hi"[..]));
        assert_eq!(table.bytes(1), Some(&b"\n"[..]));
        assert_eq!(table.bytes(2), Some(&[0xc3][..]));
        assert_eq!(table.bytes(3), Some("<｜x｜>".as_bytes()));
        assert_eq!(table.bytes(4), None);
    }

    #[test]
    fn byte_fallback_tokens_are_bytes() {
        let decoder = json!({"type": "Sequence", "decoders": [
            {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
            {"type": "ByteFallback"}, {"type": "Fuse"},
            {"type": "Strip", "content": " ", "start": 1, "stop": 0}]});
        let table = table(decoder, &["▁hi", "<0xE2>", "<0xZZ>"]).unwrap();
        assert_eq!(table.bytes(0), Some(&b" hi"[..]));
        assert_eq!(
            (table.bytes(1), table.is_byte(1)),
            (Some(&[0xe2][..]), true)
        );
        assert_eq!(
            (table.bytes(2), table.is_byte(2)),
            (Some(&b"<0xZZ>"[..]), false)
        );
        assert_eq!(table.strip, Some((' ', 1)));
    }

    #[test]
    fn metaspace_differs_for_the_first_token() {
        let table = table(json!({"type": "Metaspace", "replacement": "▁"}), &["▁a▁b"]).unwrap();
        assert_eq!(table.bytes(0), Some(&b" a b"[..]));
        assert_eq!(table.first_bytes(0), Some(&b"ab"[..]));
    }

    #[test]
    fn unknown_decoders_are_refused() {
        for decoder in [
            json!({"type": "CTC"}),
            json!({}),
            json!("x"),
            json!({"type": "Sequence", "decoders": [{"type": "Fuse"}, {"type": "ByteFallback"}]}),
        ] {
            let error = table(decoder, &[]).expect_err("refused").to_string();
            assert!(error.contains("not supported"), "{error}");
        }
    }
}
