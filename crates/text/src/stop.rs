//! Stop strings across token borders.
//!
//! Text goes in token by token; what comes out never holds a stop string, nor the start of one that
//! the next token could complete. One Knuth-Morris-Pratt automaton per stop string does both: its
//! state after a token is the length to hold back, and reaching its end is a match. Cost is linear
//! in the text.
//!
//! The rule is vLLM's, made precise: the first token that completes a stop string ends the
//! sequence; of the stop strings complete by then the one that starts earliest wins, and of those
//! the first listed.
//!
//! Invariant: emitted ++ held is the text so far, and the held part is the start of a stop string.

use std::sync::Arc;

/// What a token's text lets through.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StopEmission {
    /// Text that is certain to belong to the answer.
    pub text: String,
    /// Index of the stop string that ends the sequence with this token.
    pub matched: Option<usize>,
}

/// Finds stop strings in a stream and holds back what could become one.
///
/// Choices of one request clone a fresh buffer: the tables, several times as large as the stop
/// strings, are then built once and shared.
#[derive(Clone, Debug)]
pub struct StopBuffer {
    matchers: Vec<Matcher>,
    includes_stop: bool,
    held: String,
    is_matched: bool,
}

impl StopBuffer {
    /// A buffer for these stop strings; empty ones never match.
    ///
    /// With `include_stop_str_in_output` the stop string itself is emitted and nothing is held
    /// back.
    pub fn new(stops: &[String], include_stop_str_in_output: bool) -> Self {
        Self {
            matchers: stops.iter().map(|stop| Matcher::new(stop)).collect(),
            includes_stop: include_stop_str_in_output,
            held: String::new(),
            is_matched: false,
        }
    }

    /// Takes one token's text. After a match everything is dropped.
    pub fn push(&mut self, text: &str) -> StopEmission {
        self.advance(text, true)
    }

    /// Takes the text of a token within `min_tokens`: a stop string that ends in it does not count,
    /// but one that starts in it and ends later does.
    pub fn push_without_stop(&mut self, text: &str) -> String {
        self.advance(text, false).text
    }

    /// The sequence ended for another reason: what was held belongs to the answer.
    pub fn finish(&mut self) -> String {
        std::mem::take(&mut self.held)
    }

    /// Whether both look for the same stop strings in the same memory.
    pub fn shares_tables_with(&self, other: &Self) -> bool {
        let mut pairs = self.matchers.iter().zip(&other.matchers);
        self.matchers.len() == other.matchers.len()
            && pairs.all(|(a, b)| {
                Arc::ptr_eq(&a.pattern, &b.pattern) && Arc::ptr_eq(&a.fallback, &b.fallback)
            })
    }

    /// Whether a stop string was found.
    pub fn is_matched(&self) -> bool {
        self.is_matched
    }

    fn advance(&mut self, text: &str, may_stop: bool) -> StopEmission {
        if self.is_matched {
            return StopEmission::default();
        }
        if self.matchers.is_empty() {
            return StopEmission {
                text: text.to_owned(),
                matched: None,
            };
        }
        // Positions count from the start of `held`; with an included stop it may start before that.
        let offset = self.held.len();
        let mut best: Option<(isize, usize, usize)> = None;
        for (index, matcher) in self.matchers.iter_mut().enumerate() {
            let Some(end) = matcher.advance(text.as_bytes(), may_stop) else {
                continue;
            };
            let end = offset + end;
            let start = end as isize - matcher.pattern.len() as isize;
            if best.is_none_or(|(best_start, ..)| start < best_start) {
                best = Some((start, end, index));
            }
        }
        self.held.push_str(text);
        let (cut, matched) = match best {
            Some((_, end, index)) if self.includes_stop => (end, Some(index)),
            Some((start, _, index)) => (start.max(0) as usize, Some(index)),
            None if self.includes_stop => (self.held.len(), None),
            None => {
                let partial = self.matchers.iter().map(|m| m.state).max().unwrap_or(0);
                (self.held.len() - partial, None)
            }
        };
        self.is_matched = matched.is_some();
        let rest = self.held.split_off(cut);
        let text = std::mem::replace(&mut self.held, rest);
        if self.is_matched {
            self.held.clear();
        }
        StopEmission { text, matched }
    }
}

/// A Knuth-Morris-Pratt automaton over the bytes of one stop string; clones share its tables.
#[derive(Clone, Debug)]
struct Matcher {
    pattern: Arc<[u8]>,
    /// `fallback[n]`: the longest proper border of the first `n + 1` bytes.
    fallback: Arc<[u32]>,
    /// Bytes of the pattern that the text so far ends in; always less than all of it.
    state: usize,
}

impl Matcher {
    fn new(stop: &str) -> Self {
        let pattern = stop.as_bytes();
        let mut fallback = vec![0u32; pattern.len()];
        let mut len = 0;
        for i in 1..pattern.len() {
            while len > 0 && pattern[i] != pattern[len] {
                len = fallback[len - 1] as usize;
            }
            len += usize::from(pattern[i] == pattern[len]);
            fallback[i] = len as u32;
        }
        Self {
            pattern: pattern.into(),
            fallback: fallback.into(),
            state: 0,
        }
    }

    /// Reads `text`; with `may_stop`, returns where in it the first match ends.
    fn advance(&mut self, text: &[u8], may_stop: bool) -> Option<usize> {
        if self.pattern.is_empty() {
            return None;
        }
        for (i, &byte) in text.iter().enumerate() {
            while self.state > 0 && byte != self.pattern[self.state] {
                self.state = self.fallback[self.state - 1] as usize;
            }
            self.state += usize::from(byte == self.pattern[self.state]);
            if self.state == self.pattern.len() {
                self.state = self.fallback[self.state - 1] as usize;
                if may_stop {
                    return Some(i + 1);
                }
            }
        }
        None
    }
}

#[cfg(test)]
#[path = "stop_test.rs"]
mod stop_test;
