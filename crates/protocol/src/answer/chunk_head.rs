//! What chunks of both endpoints share: the constant beginning, serialised once, and the end.
//!
//! Invariant: every chunk of a stream begins with the same bytes: id, `created` and model do not
//! change.

use super::event::{DATA, END, write_int, write_json, write_str};
use super::{AnswerHead, Usage};
use crate::{FinishReason, StopReason};

/// The constant parts of a stream's chunks.
#[derive(Clone, Debug)]
pub(super) struct ChunkHead {
    /// Up to and including `"choices":[`.
    prefix: Vec<u8>,
    system_fingerprint: Option<String>,
}

impl ChunkHead {
    pub(super) fn new(head: &AnswerHead, object: &str) -> Self {
        let mut prefix = DATA.to_vec();
        prefix.extend_from_slice(b"{\"id\":");
        write_str(&head.id, &mut prefix);
        prefix.extend_from_slice(b",\"object\":");
        write_str(object, &mut prefix);
        prefix.extend_from_slice(b",\"created\":");
        write_int(head.created, &mut prefix);
        prefix.extend_from_slice(b",\"model\":");
        write_str(&head.model, &mut prefix);
        prefix.extend_from_slice(b",\"choices\":[");
        Self {
            prefix,
            system_fingerprint: head.system_fingerprint.clone(),
        }
    }

    /// Opens a chunk with one choice: `{"index":N`.
    pub(super) fn open(&self, index: u32, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.prefix);
        out.extend_from_slice(b"{\"index\":");
        write_int(index.into(), out);
    }

    /// Ends the choice and the chunk.
    pub(super) fn close(&self, usage: Option<&Usage>, out: &mut Vec<u8>) {
        self.close_choice(out);
        self.close_chunk(usage, out);
    }

    /// Ends the choice: more keys of the chunk may follow.
    pub(super) fn close_choice(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"}]");
    }

    /// Ends the chunk.
    pub(super) fn close_chunk(&self, usage: Option<&Usage>, out: &mut Vec<u8>) {
        if let Some(usage) = usage {
            write_field(b",\"usage\":", usage, out);
        }
        out.push(b'}');
        out.extend_from_slice(END);
    }

    /// The last chunk before the terminator, where usage was asked for: no choice.
    pub(super) fn usage(&self, usage: &Usage, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.prefix);
        out.push(b']');
        write_field(b",\"usage\":", usage, out);
        if let Some(fingerprint) = &self.system_fingerprint {
            write_field(b",\"system_fingerprint\":", fingerprint, out);
        }
        out.push(b'}');
        out.extend_from_slice(END);
    }
}

/// Writes `key`, which holds its punctuation, and a value.
pub(super) fn write_field<T: serde::Serialize + ?Sized>(key: &[u8], value: &T, out: &mut Vec<u8>) {
    out.extend_from_slice(key);
    write_json(value, out);
}

/// Writes `finish_reason`, and `stop_reason` where the choice ended or `always`.
pub(super) fn write_finish(
    finish: Option<&(FinishReason, Option<StopReason>)>,
    always: bool,
    out: &mut Vec<u8>,
) {
    match finish {
        Some((reason, stop_reason)) => {
            write_field(b",\"finish_reason\":", reason, out);
            write_field(b",\"stop_reason\":", stop_reason, out);
        }
        None if always => {
            out.extend_from_slice(b",\"finish_reason\":null,\"stop_reason\":null");
        }
        None => out.extend_from_slice(b",\"finish_reason\":null"),
    }
}
