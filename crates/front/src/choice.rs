//! From a sequence's events to the deltas of a choice: order, text, stop strings, the end.
//!
//! Pure but for the tokenizer's tables. Everything here can be rebuilt by pushing the delivered
//! tokens again, which is what makes a stream resumable.
//!
//! Invariant: deltas depend on the tokens and nothing else: not on how events grouped them.

use std::collections::VecDeque;
use std::sync::Arc;

use hotspare_batch::{FinishReason as EngineFinish, SequenceEvent, TokenId, TokenLogprobs};
use hotspare_protocol::{FinishReason, StopReason};
use hotspare_text::{Detokenizer, StopBuffer};

use crate::{ChoiceDelta, ChoiceFinish};

/// What a choice does after an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    /// More events follow.
    Open,
    /// Its last delta is out, and the sequence ended too.
    Done(FinishReason),
    /// Its last delta is out, but the sequence runs on and must be cancelled.
    DoneEarly,
    /// It failed; the message is for the client.
    Failed(String),
}

/// Turns tokens into text, with what a stop string might need held back.
pub(crate) struct ChoiceText {
    pub(crate) detokenizer: Detokenizer,
    pub(crate) stop_buffer: StopBuffer,
    pub(crate) stop_strings: Arc<[String]>,
}

/// See the module.
pub(crate) struct Choice {
    index: u32,
    text: Option<ChoiceText>,
    /// Leave the token or string that stopped it in the text.
    include_stop: bool,
    /// Text of tokens up to this many is not searched for stop strings.
    min_tokens: u32,
    num_tokens: u32,
    /// Not delivered yet.
    head: Head,
}

/// Text that a token made certain, and the stop string that it completed.
#[derive(Default)]
struct Emission {
    text: String,
    matched: Option<String>,
}

impl Choice {
    pub(crate) fn new(
        index: u32,
        text: Option<ChoiceText>,
        include_stop: bool,
        min_tokens: u32,
    ) -> Self {
        Self {
            index,
            text,
            include_stop,
            min_tokens,
            num_tokens: 0,
            head: Head::default(),
        }
    }

    #[cfg(test)]
    pub(crate) fn stop_buffer(&self) -> Option<&StopBuffer> {
        self.text.as_ref().map(|text| &text.stop_buffer)
    }

    /// Tokens so far.
    pub(crate) fn num_tokens(&self) -> u32 {
        self.num_tokens
    }

    /// Appends the deltas of `event` to `out`.
    pub(crate) fn on_event(
        &mut self,
        event: SequenceEvent,
        out: &mut VecDeque<ChoiceDelta>,
    ) -> Progress {
        if event.first_index > self.num_tokens && !event.token_ids.is_empty() {
            let (expected, got) = (self.num_tokens, event.first_index);
            return Progress::Failed(format!("tokens {expected} to {got} were lost"));
        }
        // Tokens that an earlier attempt delivered already.
        let num_known = (self.num_tokens - event.first_index.min(self.num_tokens)) as usize;
        if let Some(prompt) = event.prompt {
            self.head.prompt_logprobs = prompt.prompt_logprobs;
            self.head.num_cached_tokens = Some(prompt.num_cached_tokens);
        }
        let num_tokens = event.token_ids.len();
        let mut logprobs = event.logprobs.into_iter().skip(num_known);
        for (i, &token) in event.token_ids.iter().enumerate().skip(num_known) {
            let finish = event.finish.as_ref().filter(|_| i + 1 == num_tokens);
            let logprobs = logprobs.next().into_iter().collect();
            let delta = self.on_token(token, logprobs, finish);
            let end = delta.finish.as_ref().map(|finish| finish.reason);
            out.push_back(delta);
            match (end, finish) {
                (None, _) => {}
                (Some(reason), Some(_)) => return Progress::Done(reason),
                (Some(_), None) => return Progress::DoneEarly,
            }
        }
        match &event.finish {
            None => Progress::Open,
            Some(finish) => {
                if let Progress::Failed(message) = end_progress(finish) {
                    return Progress::Failed(message);
                }
                let delta = ChoiceDelta {
                    text: self.flush(),
                    finish: Some(api_finish(finish)),
                    ..self.delta()
                };
                out.push_back(delta);
                end_progress(finish)
            }
        }
    }

    /// One token. `finish` is the sequence's end, if this is its last token.
    fn on_token(
        &mut self,
        token: TokenId,
        logprobs: Vec<TokenLogprobs>,
        finish: Option<&EngineFinish>,
    ) -> ChoiceDelta {
        self.num_tokens += 1;
        let stops = matches!(
            finish,
            Some(EngineFinish::Eos(_) | EngineFinish::StopToken(_))
        );
        let mut emission = match stops && !self.include_stop {
            true => Emission::default(),
            false => self.push_text(token),
        };
        let mut end = None;
        if let Some(stop_string) = emission.matched.take() {
            end = Some(ChoiceFinish {
                reason: FinishReason::Stop,
                stop_reason: Some(StopReason::Text(stop_string)),
            });
        } else if let Some(finish) = finish
            && !matches!(finish, EngineFinish::Failed(_))
        {
            emission.text.push_str(&self.flush());
            end = Some(api_finish(finish));
        }
        ChoiceDelta {
            text: emission.text,
            token_ids: vec![token],
            logprobs,
            finish: end,
            ..self.delta()
        }
    }

    fn push_text(&mut self, token: TokenId) -> Emission {
        let is_searched = self.num_tokens > self.min_tokens;
        let Some(text) = &mut self.text else {
            return Emission::default();
        };
        let certain = text.detokenizer.push(token);
        if !is_searched {
            return Emission {
                text: text.stop_buffer.push_without_stop(&certain),
                matched: None,
            };
        }
        let emission = text.stop_buffer.push(&certain);
        let matched = emission.matched.and_then(|i| text.stop_strings.get(i));
        Emission {
            text: emission.text,
            matched: matched.cloned(),
        }
    }

    /// What was held back, at the end.
    fn flush(&mut self) -> String {
        let Some(text) = &mut self.text else {
            return String::new();
        };
        let tail = text.detokenizer.finish();
        let mut out = text.stop_buffer.push_without_stop(&tail);
        out.push_str(&text.stop_buffer.finish());
        out
    }

    /// An empty delta, with what came before it and was not delivered yet.
    fn delta(&mut self) -> ChoiceDelta {
        let head = std::mem::take(&mut self.head);
        ChoiceDelta {
            index: self.index,
            prompt_logprobs: head.prompt_logprobs,
            num_cached_tokens: head.num_cached_tokens,
            ..ChoiceDelta::default()
        }
    }
}

/// What only a choice's first delta carries.
#[derive(Default)]
struct Head {
    prompt_logprobs: Vec<TokenLogprobs>,
    num_cached_tokens: Option<u32>,
}

fn end_progress(finish: &EngineFinish) -> Progress {
    match finish {
        EngineFinish::Failed(error) => Progress::Failed(error.to_string()),
        other => Progress::Done(api_finish(other).reason),
    }
}

/// The API's name for an end. `Failed` never gets here as a delta: it is an error of the stream.
fn api_finish(finish: &EngineFinish) -> ChoiceFinish {
    let (reason, stop_reason) = match finish {
        EngineFinish::Eos(_) => (FinishReason::Stop, None),
        EngineFinish::StopToken(token) => (FinishReason::Stop, Some(StopReason::Token(*token))),
        EngineFinish::Length => (FinishReason::Length, None),
        EngineFinish::Cancelled | EngineFinish::Deadline => (FinishReason::Abort, None),
        EngineFinish::Failed(_) => (FinishReason::Error, None),
    };
    ChoiceFinish {
        reason,
        stop_reason,
    }
}

#[cfg(test)]
#[path = "choice_test.rs"]
mod choice_test;
