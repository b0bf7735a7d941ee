//! Chunks of a streamed chat completion.
//!
//! A choice's first chunk names its role, then comes one chunk for each token that shows
//! something, and the chunk of its last token carries the finish reason. Keys without a value are
//! absent, as vLLM leaves out what it did not set.
//!
//! Invariant: a chunk depends on the token alone, never on when it arrived.

use super::chunk_head::{ChunkHead, write_field, write_finish};
use super::event::write_str;
use super::{AnswerHead, ChatLogprobs, Usage};
use crate::{FinishReason, StopReason};

/// Writes the chunks of one stream.
#[derive(Clone, Debug)]
pub struct ChatChunks {
    head: ChunkHead,
}

/// What one chunk shows.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ChatDelta<'a> {
    /// New text, may be empty.
    pub text: &'a str,
    /// Where asked for.
    pub logprobs: Option<&'a ChatLogprobs>,
    /// Where asked for.
    pub token_ids: Option<&'a [u32]>,
    /// In the choice's last chunk.
    pub finish: Option<(FinishReason, Option<StopReason>)>,
}

impl ChatChunks {
    /// Serialises what all chunks share.
    pub fn new(head: &AnswerHead) -> Self {
        Self {
            head: ChunkHead::new(head, "chat.completion.chunk"),
        }
    }

    /// The first chunk of choice `index`.
    pub fn write_role(
        &self,
        index: u32,
        role: &str,
        prompt_token_ids: Option<&[u32]>,
        usage: Option<&Usage>,
        out: &mut Vec<u8>,
    ) {
        self.head.open(index, out);
        out.extend_from_slice(b",\"delta\":{\"role\":");
        write_str(role, out);
        out.extend_from_slice(b",\"content\":\"\"},\"logprobs\":null,\"finish_reason\":null");
        self.head.close_choice(out);
        if let Some(ids) = prompt_token_ids {
            write_field(b",\"prompt_token_ids\":", ids, out);
        }
        self.head.close_chunk(usage, out);
    }

    /// A further chunk of choice `index`.
    pub fn write_delta(
        &self,
        index: u32,
        delta: &ChatDelta<'_>,
        usage: Option<&Usage>,
        out: &mut Vec<u8>,
    ) {
        self.head.open(index, out);
        out.extend_from_slice(b",\"delta\":{\"content\":");
        write_str(delta.text, out);
        out.push(b'}');
        write_field(b",\"logprobs\":", &delta.logprobs, out);
        write_finish(delta.finish.as_ref(), false, out);
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
