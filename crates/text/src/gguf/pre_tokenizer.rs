//! How byte-level tokenizers of GGUF files split texts, by the name in `tokenizer.ggml.pre`.
//!
//! The patterns are those of the tokenizers that the names stand for, not of llama.cpp's own
//! engine, which has to write some of them differently; `default` alone is llama.cpp's.
//!
//! Invariant: a name that is not known is refused: another split would give other ids in silence.

use serde_json::{Value, json};

use super::TextError;

/// Llama 3: up to three digits make a word.
const LLAMA_3: &str = concat!(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}",
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
);
/// Qwen 2: digits one by one.
const QWEN_2: &str = concat!(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}",
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
);
/// Mistral's Tekken: words end where capitals begin.
pub(crate) const TEKKEN: &str = concat!(
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+",
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*",
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
);
/// GPT-4o, and Phi-4-mini: as Tekken, with contractions and up to three digits.
pub(crate) const GPT_4O: &str = concat!(
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+",
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*",
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
);
/// What llama.cpp does for a tokenizer that its converter did not know: one split after the other.
const DEFAULT: [&str; 4] = [
    r"[\p{P}\$\+<=>\^~\|]+",
    r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)",
    r"\p{N}+",
    r"[0-9][0-9][0-9]",
];

/// Names for messages.
const SUPPORTED: &str = "llama-bpe, qwen2, smollm, tekken, gpt-4o, dbrx, gpt-2 and default";

/// How texts are split, and what goes with it.
pub(super) struct PreTokenizer {
    /// `pre_tokenizer` of a `tokenizer.json`.
    pub(super) steps: Value,
    /// `normalizer`.
    pub(super) normalizer: Value,
    /// A word that is a token is that token, whatever the merges say.
    pub(super) ignores_merges: bool,
    /// Prompts begin with BOS, unless the file says otherwise.
    pub(super) adds_bos: bool,
}

impl PreTokenizer {
    /// What `tokenizer.ggml.pre` stands for.
    ///
    /// # Errors
    /// It is missing, or not known.
    pub(super) fn parse(pre: Option<&str>) -> Result<Self, TextError> {
        let plain = |steps| Self {
            steps,
            normalizer: Value::Null,
            ignores_merges: false,
            adds_bos: false,
        };
        let digits = || {
            sequence(vec![
                json!({"type": "Digits", "individual_digits": true}),
                byte_level_step(true),
            ])
        };
        Ok(match pre {
            Some(
                "llama-bpe" | "llama3" | "llama-v3" | "falcon3" | "pixtral" | "lfm2" | "midm-2.0",
            ) => Self {
                ignores_merges: true,
                adds_bos: true,
                ..plain(split(&[LLAMA_3]))
            },
            // Phi-4's is called dbrx.
            Some("dbrx" | "smaug-bpe") => plain(split(&[LLAMA_3])),
            Some("qwen2" | "deepseek-r1-qwen" | "kormo" | "megrez") => Self {
                normalizer: json!({"type": "NFC"}),
                ..plain(split(&[QWEN_2]))
            },
            Some("tekken") => Self {
                ignores_merges: true,
                adds_bos: true,
                ..plain(split(&[TEKKEN]))
            },
            Some("gpt-4o" | "llama4") => plain(split(&[GPT_4O])),
            Some("smollm" | "starcoder" | "refact" | "codeshell") => plain(digits()),
            Some("gpt-2" | "phi-2" | "gigachat" | "a.x-4.0" | "mellum") => {
                plain(byte_level_step(true))
            }
            Some("default") => plain(split(&DEFAULT)),
            other => {
                let found = other.map_or("is missing".to_owned(), |pre| format!("= {pre:?}"));
                return Err(TextError::Gguf(format!(
                    "`tokenizer.ggml.pre` {found}; supported are {SUPPORTED}"
                )));
            }
        })
    }
}

fn sequence(steps: Vec<Value>) -> Value {
    json!({"type": "Sequence", "pretokenizers": steps})
}

/// Splits by each pattern in turn, then takes bytes.
fn split(patterns: &[&str]) -> Value {
    let step = |pattern: &&str| {
        json!({"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated",
            "invert": false})
    };
    let steps = patterns.iter().map(step).chain([byte_level_step(false)]);
    sequence(steps.collect())
}

/// Bytes as printable characters; `use_regex` splits as GPT-2 does.
pub(super) fn byte_level_step(use_regex: bool) -> Value {
    json!({
        "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false,
        "use_regex": use_regex,
    })
}

#[cfg(test)]
mod tests {
    use tokenizers::{
        OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer as _, PreTokenizerWrapper,
    };

    use super::*;

    /// The words of `text`.
    fn words<'a>(pre: &str, text: &'a str) -> Vec<&'a str> {
        let steps = PreTokenizer::parse(Some(pre)).expect("known").steps;
        let steps: PreTokenizerWrapper = serde_json::from_value(steps).expect("a pre-tokenizer");
        let mut split = PreTokenizedString::from(text);
        steps.pre_tokenize(&mut split).expect("splits");
        let splits = split.get_splits(OffsetReferential::Original, OffsetType::Byte);
        let range = |(_, (start, end), _): &(&str, (usize, usize), _)| &text[*start..*end];
        splits.iter().map(range).collect()
    }

    /// The expected words follow from the patterns by hand.
    #[test]
    fn words_are_those_of_the_patterns() {
        let text = "I'LL sayHello 12345  don't\n\n x//\n";
        let llama_3 = "I|'LL| sayHello| |123|45| | don|'t|\n\n| x|//\n";
        for (pre, expected) in [
            ("llama-bpe", llama_3),
            ("dbrx", llama_3),
            (
                "qwen2",
                "I|'LL| sayHello| |1|2|3|4|5| | don|'t|\n\n| x|//\n",
            ),
            (
                "tekken",
                "I|'LL| say|Hello| |1|2|3|4|5| | don|'t|\n\n| x|//\n",
            ),
            ("gpt-4o", "I'LL| say|Hello| |123|45| | don't|\n\n| x|//\n"),
            ("gpt-2", "I|'|LL| sayHello| 12345| | don|'t|\n\n| x|//|\n"),
            (
                "smollm",
                "I|'|LL| sayHello| |1|2|3|4|5| | don|'t|\n\n| x|//|\n",
            ),
            (
                "default",
                "I|'|LL| sayHello| |123|45| | don|'|t|\n\n| x|//|\n",
            ),
        ] {
            assert_eq!(words(pre, text).join("|"), expected, "{pre}");
        }
    }

    #[test]
    fn a_name_that_is_not_known_is_refused() {
        for pre in [None, Some(""), Some("deepseek-v3"), Some("LLAMA-BPE")] {
            let error = PreTokenizer::parse(pre).map(|_| ()).expect_err("refused");
            assert!(
                error.to_string().contains("`tokenizer.ggml.pre`"),
                "{error}"
            );
        }
    }
}
