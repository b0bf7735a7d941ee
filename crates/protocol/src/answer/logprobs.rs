//! Log-probabilities in the shapes of the two endpoints and of `prompt_logprobs`.
//!
//! Values are at least [`MIN_LOGPROB`], because JSON has no infinity.
//!
//! Invariant: `null` stands only for the first token of a prompt, which nothing precedes.

use std::borrow::Cow;

use hotspare_batch::{TokenId, TokenLogprobs};
use indexmap::IndexMap;
use serde::Serialize;

/// The smallest value shown.
const MIN_LOGPROB: f32 = -9999.0;

/// Texts of single tokens, where the server has a tokenizer.
pub trait TokenTexts: Send + Sync {
    /// The token as text; a part of a character shows as U+FFFD.
    fn text(&self, token: TokenId) -> Cow<'_, str>;
    /// The token's bytes.
    fn bytes(&self, token: TokenId) -> Cow<'_, [u8]>;
}

/// How tokens are named in log-probabilities.
#[derive(Clone, Copy)]
pub struct LogprobFormat<'a> {
    /// `None`: a server without a tokenizer; tokens are named by id.
    pub texts: Option<&'a dyn TokenTexts>,
    /// Names are `token_id:N`.
    pub as_token_ids: bool,
}

/// The `logprobs` of a chat choice or chunk.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct ChatLogprobs {
    content: Vec<ChatToken>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
struct ChatToken {
    #[serde(flatten)]
    token: ChatTokenText,
    top_logprobs: Vec<ChatTokenText>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
struct ChatTokenText {
    token: String,
    logprob: f32,
    bytes: Option<Vec<u8>>,
}

/// The `logprobs` of a completion choice or chunk.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct CompletionLogprobs {
    text_offset: Vec<u64>,
    token_logprobs: Vec<Option<f32>>,
    tokens: Vec<String>,
    top_logprobs: Vec<Option<IndexMap<String, f32>>>,
}

/// `prompt_logprobs`: null for the first token, then a map by token id.
pub type PromptLogprobs = Vec<Option<IndexMap<TokenId, PromptLogprob>>>;

/// An entry of [`PromptLogprobs`].
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PromptLogprob {
    logprob: f32,
    rank: u32,
    decoded_token: Option<String>,
}

fn finite(logprob: f32) -> f32 {
    // `max` also replaces NaN.
    logprob.max(MIN_LOGPROB)
}

impl LogprobFormat<'_> {
    fn name(&self, token: TokenId) -> String {
        match self.texts {
            Some(texts) if !self.as_token_ids => texts.text(token).into_owned(),
            _ => format!("token_id:{token}"),
        }
    }

    fn chat_token(&self, token: TokenId, logprob: f32) -> ChatTokenText {
        ChatTokenText {
            token: self.name(token),
            logprob: finite(logprob),
            bytes: self.texts.map(|texts| texts.bytes(token).into_owned()),
        }
    }

    /// `prompt_logprobs` of a prompt whose tokens after the first are `logprobs`.
    pub fn prompt(&self, logprobs: &[TokenLogprobs]) -> PromptLogprobs {
        let entry = |token, logprob, rank| {
            let decoded_token = self.texts.map(|texts| texts.text(token).into_owned());
            let entry = PromptLogprob {
                logprob: finite(logprob),
                rank,
                decoded_token,
            };
            (token, entry)
        };
        let tokens = logprobs.iter().map(|item| {
            let top = item.top.iter().zip(1..);
            let top = top.map(|(&(token, logprob), rank)| entry(token, logprob, rank));
            let mut map = IndexMap::from([entry(item.token, item.logprob, item.rank)]);
            for (token, item) in top {
                map.entry(token).or_insert(item);
            }
            Some(map)
        });
        std::iter::once(None).chain(tokens).collect()
    }
}

impl ChatLogprobs {
    /// Adds tokens, with at most `num_top` alternatives each.
    pub fn extend(&mut self, logprobs: &[TokenLogprobs], num_top: u32, format: LogprobFormat<'_>) {
        for item in logprobs {
            let top = item.top.iter().take(num_top as usize);
            self.content.push(ChatToken {
                token: format.chat_token(item.token, item.logprob),
                top_logprobs: top
                    .map(|&(token, logprob)| format.chat_token(token, logprob))
                    .collect(),
            });
        }
    }

    /// Whether nothing was added.
    pub fn is_empty(&self) -> bool {
        self.content.is_empty()
    }
}

impl CompletionLogprobs {
    /// Adds the first token of an echoed prompt, which has no log-probability. `offset` counts the
    /// characters of the tokens before, and is moved on.
    pub fn push_first(&mut self, token: TokenId, offset: &mut u64, format: LogprobFormat<'_>) {
        let name = format.name(token);
        self.push_name(name, offset);
        self.token_logprobs.push(None);
        self.top_logprobs.push(None);
    }

    /// Adds tokens, each with itself and at most `num_top` alternatives in `top_logprobs`.
    pub fn extend(
        &mut self,
        logprobs: &[TokenLogprobs],
        num_top: u32,
        offset: &mut u64,
        format: LogprobFormat<'_>,
    ) {
        for item in logprobs {
            let name = format.name(item.token);
            let mut top = IndexMap::from([(name.clone(), finite(item.logprob))]);
            for &(token, logprob) in item.top.iter().take(num_top as usize) {
                // Two tokens may look the same; the more likely one is what a reader asks for.
                let shown = top.entry(format.name(token)).or_insert(finite(logprob));
                *shown = shown.max(finite(logprob));
            }
            self.push_name(name, offset);
            self.token_logprobs.push(Some(finite(item.logprob)));
            self.top_logprobs.push(Some(top));
        }
    }

    fn push_name(&mut self, name: String, offset: &mut u64) {
        self.text_offset.push(*offset);
        *offset += name.chars().count() as u64;
        self.tokens.push(name);
    }

    /// Whether nothing was added.
    pub fn is_empty(&self) -> bool {
        self.tokens.is_empty()
    }
}
