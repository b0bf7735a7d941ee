//! Chunks of a streamed text completion.
//!
//! Invariant: a chunk depends on the token alone, never on when it arrived.

use super::chunk_head::{ChunkHead, write_field, write_finish};
use super::event::write_str;
use super::{AnswerHead, CompletionLogprobs, Usage};
use crate::{FinishReason, StopReason};

/// Writes the chunks of one stream.
#[derive(Clone, Debug)]
pub struct CompletionChunks {
    head: ChunkHead,
}

/// What one chunk shows.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CompletionDelta<'a> {
    /// New text, may be empty; an echoed prompt comes with the first.
    pub text: &'a str,
    /// Where asked for.
    pub logprobs: Option<&'a CompletionLogprobs>,
    /// Where asked for.
    pub token_ids: Option<&'a [u32]>,
    /// Where asked for, in the choice's first chunk.
    pub prompt_token_ids: Option<&'a [u32]>,
    /// In the choice's last chunk.
    pub finish: Option<(FinishReason, Option<StopReason>)>,
}

impl CompletionChunks {
    /// Serialises what all chunks share.
    pub fn new(head: &AnswerHead) -> Self {
        Self {
            head: ChunkHead::new(head, "text_completion"),
        }
    }

    /// A chunk of choice `index`.
    pub fn write_delta(
        &self,
        index: u32,
        delta: &CompletionDelta<'_>,
        usage: Option<&Usage>,
        out: &mut Vec<u8>,
    ) {
        self.head.open(index, out);
        out.extend_from_slice(b",\"text\":");
        write_str(delta.text, out);
        write_field(b",\"logprobs\":", &delta.logprobs, out);
        write_finish(delta.finish.as_ref(), true, out);
        if let Some(ids) = delta.prompt_token_ids {
            write_field(b",\"prompt_token_ids\":", ids, out);
        }
        if let Some(ids) = delta.token_ids {
            write_field(b",\"token_ids\":", ids, out);
        }
        self.head.close(usage, out);
    }

    /// The usage chunk.
    pub fn write_usage(&self, usage: &Usage, out: &mut Vec<u8>) {
        self.head.usage(usage, out);
    }
}
