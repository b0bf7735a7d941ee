//! Server-sent events: framing, the terminator, errors in a stream that has begun.
//!
//! Invariant: an event is one line of data; JSON has no raw line break, so none can be cut in two.

use crate::ApiError;

/// The last event of every stream, also after an error.
pub const DONE_EVENT: &[u8] = b"data: [DONE]\n\n";

/// A comment that clients ignore and proxies count as activity.
pub const KEEP_ALIVE_EVENT: &[u8] = b": keep-alive\n\n";

/// A comment in a stream whose engine was lost, until another goes on. One line without a blank
/// one after it: clients that have seen an `id:` field would take the blank line for an event
/// without data.
pub const REPLAY_COMMENT: &[u8] = b": resuming\n";

pub(super) const DATA: &[u8] = b"data: ";
pub(super) const END: &[u8] = b"\n\n";

/// Writes an error event. The stream's HTTP status went out already.
pub fn write_error_event(error: &ApiError, out: &mut Vec<u8>) {
    out.extend_from_slice(DATA);
    out.extend_from_slice(&error.to_json());
    out.extend_from_slice(END);
}

/// Writes `text` as a JSON string.
pub(super) fn write_str(text: &str, out: &mut Vec<u8>) {
    write_json(text, out);
}

/// Writes a value that always serialises.
pub(super) fn write_json<T: serde::Serialize + ?Sized>(value: &T, out: &mut Vec<u8>) {
    serde_json::to_writer(out, value).expect("writing to memory does not fail");
}

/// Writes an integer.
pub(super) fn write_int(number: u64, out: &mut Vec<u8>) {
    use std::io::Write as _;
    write!(out, "{number}").expect("writing to memory does not fail");
}
