//! The bodies of `/tokenize` and `/detokenize`, written piece by piece.
//!
//! Four megabytes of text are as many tokens in the worst case: a list of their spellings takes a
//! hundred, and the JSON of it fifty. So nothing is listed: each piece is made when it is sent.
//!
//! Invariant: the pieces in a row are one JSON object, the same bytes however they are cut.

use super::event::{write_int, write_str};

/// The body of `/tokenize`.
#[derive(Clone, Debug)]
pub struct TokenizeAnswer {
    /// Tokens in a sequence at most.
    pub max_model_len: u32,
    /// The ids.
    pub tokens: Vec<u32>,
    /// Also list their spellings.
    pub with_token_strs: bool,
    /// What was tokenized, where asked for.
    pub prompt_text: Option<String>,
}

/// What comes next.
#[derive(Clone, Copy, Debug)]
enum Next {
    Head,
    Token(usize),
    TokenStr(usize),
    /// From this byte on.
    PromptText(usize),
    Nothing,
}

/// Writes a [`TokenizeAnswer`].
#[derive(Clone, Debug)]
pub struct TokenizePieces {
    answer: TokenizeAnswer,
    next: Next,
}

impl TokenizePieces {
    /// Nothing is written yet.
    pub fn new(answer: TokenizeAnswer) -> Self {
        let next = Next::Head;
        Self { answer, next }
    }

    /// Writes until `out` has `min_bytes` or a little more, or the body is complete; `false` then.
    /// `token_str` spells a token.
    pub fn write(
        &mut self,
        min_bytes: usize,
        token_str: impl Fn(u32) -> String,
        out: &mut Vec<u8>,
    ) -> bool {
        while out.len() < min_bytes {
            self.next = match self.next {
                Next::Head => self.head(out),
                Next::Token(index) => self.token(index, out),
                Next::TokenStr(index) => self.token_str(index, &token_str, out),
                Next::PromptText(at) => self.prompt_text(at, min_bytes, out),
                Next::Nothing => return false,
            };
        }
        !matches!(self.next, Next::Nothing)
    }

    fn head(&self, out: &mut Vec<u8>) -> Next {
        out.extend_from_slice(b"{\"count\":");
        write_int(self.answer.tokens.len() as u64, out);
        out.extend_from_slice(b",\"max_model_len\":");
        write_int(self.answer.max_model_len.into(), out);
        out.extend_from_slice(b",\"tokens\":[");
        Next::Token(0)
    }

    fn token(&self, index: usize, out: &mut Vec<u8>) -> Next {
        if let Some(&token) = self.answer.tokens.get(index) {
            comma(index, out);
            write_int(token.into(), out);
            return Next::Token(index + 1);
        }
        out.extend_from_slice(b"],\"token_strs\":");
        match self.answer.with_token_strs {
            true => {
                out.push(b'[');
                Next::TokenStr(0)
            }
            false => {
                out.extend_from_slice(b"null");
                self.after_lists(out)
            }
        }
    }

    fn token_str(
        &self,
        index: usize,
        token_str: impl Fn(u32) -> String,
        out: &mut Vec<u8>,
    ) -> Next {
        if let Some(&token) = self.answer.tokens.get(index) {
            comma(index, out);
            write_str(&token_str(token), out);
            return Next::TokenStr(index + 1);
        }
        out.push(b']');
        self.after_lists(out)
    }

    fn after_lists(&self, out: &mut Vec<u8>) -> Next {
        if self.answer.prompt_text.is_some() {
            out.extend_from_slice(b",\"prompt_text\":\"");
            return Next::PromptText(0);
        }
        out.push(b'}');
        Next::Nothing
    }

    fn prompt_text(&self, at: usize, max_bytes: usize, out: &mut Vec<u8>) -> Next {
        let text = self.answer.prompt_text.as_deref().unwrap_or_default();
        let end = text.floor_char_boundary(at + max_bytes.max(4));
        write_str_part(&text[at..end], out);
        if end < text.len() {
            return Next::PromptText(end);
        }
        out.extend_from_slice(b"\"}");
        Next::Nothing
    }
}

/// Writes the body of `/detokenize`.
#[derive(Clone, Copy, Debug)]
pub struct DetokenizePieces;

impl DetokenizePieces {
    /// What comes before the text.
    pub fn begin(self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"{\"prompt\":\"");
    }

    /// A part of the text.
    pub fn text(self, part: &str, out: &mut Vec<u8>) {
        write_str_part(part, out);
    }

    /// What comes after it.
    pub fn end(self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"\"}");
    }
}

fn comma(index: usize, out: &mut Vec<u8>) {
    if index > 0 {
        out.push(b',');
    }
}

/// Writes a part of a JSON string, without quotes.
fn write_str_part(part: &str, out: &mut Vec<u8>) {
    let start = out.len();
    write_str(part, out);
    out.pop();
    out.remove(start);
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn spell(token: u32) -> String {
        format!("<\"{token}\u{e9}>")
    }

    fn written(answer: &TokenizeAnswer, min_bytes: usize) -> (usize, String) {
        let mut pieces = TokenizePieces::new(answer.clone());
        let (mut whole, mut num_pieces) = (Vec::new(), 0);
        loop {
            let mut piece = Vec::new();
            let goes_on = pieces.write(min_bytes, spell, &mut piece);
            assert!(
                piece.len() <= min_bytes + 6 * min_bytes.max(30),
                "{}",
                piece.len()
            );
            whole.extend(piece);
            num_pieces += 1;
            if !goes_on {
                return (num_pieces, String::from_utf8(whole).unwrap());
            }
        }
    }

    #[test]
    fn pieces_are_the_same_object_however_they_are_cut() {
        let answer = TokenizeAnswer {
            max_model_len: 9,
            tokens: (0..500).collect(),
            with_token_strs: true,
            prompt_text: Some("a\u{e9}\n\"\u{1}".repeat(100)),
        };
        let (num_pieces, whole) = written(&answer, 1 << 30);
        assert_eq!(num_pieces, 1);
        let parsed: Value = serde_json::from_str(&whole).unwrap();
        let strs: Vec<String> = (0..500).map(spell).collect();
        let expected = json!({"count": 500, "max_model_len": 9, "tokens": answer.tokens,
            "token_strs": strs, "prompt_text": answer.prompt_text});
        assert_eq!(parsed, expected);
        for min_bytes in [1, 2, 7, 100, 4096] {
            let (num_pieces, cut) = written(&answer, min_bytes);
            assert!(num_pieces > 1, "{min_bytes}");
            assert_eq!(cut, whole, "{min_bytes}");
        }
    }

    #[test]
    fn what_was_not_asked_for_is_null_or_absent() {
        let answer = TokenizeAnswer {
            max_model_len: 9,
            tokens: vec![7],
            with_token_strs: false,
            prompt_text: None,
        };
        let expected = r#"{"count":1,"max_model_len":9,"tokens":[7],"token_strs":null}"#;
        assert_eq!(written(&answer, 1000).1, expected);
        let empty = TokenizeAnswer {
            tokens: Vec::new(),
            with_token_strs: true,
            ..answer
        };
        let expected = r#"{"count":0,"max_model_len":9,"tokens":[],"token_strs":[]}"#;
        assert_eq!(written(&empty, 1).1, expected);
    }

    #[test]
    fn a_text_in_parts_is_one_string() {
        let mut out = Vec::new();
        DetokenizePieces.begin(&mut out);
        for part in ["a\"", "", "\u{1f600}\n"] {
            DetokenizePieces.text(part, &mut out);
        }
        DetokenizePieces.end(&mut out);
        let parsed: Value = serde_json::from_slice(&out).unwrap();
        assert_eq!(parsed, json!({"prompt": "a\"\u{1f600}\n"}));
    }
}
