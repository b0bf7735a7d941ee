//! Bodies that are made while they are sent, so that a long one is never whole in memory.
//!
//! Invariant: a body of one piece has a length; of a longer one no more than a piece is made ahead
//! of what the connection takes.

use std::convert::Infallible;

use axum::body::Body;
use axum::http::StatusCode;
use axum::response::Response;
use bytes::Bytes;

use crate::reply;

/// Bytes of a piece, or a little more.
pub(crate) const PIECE_BYTES: usize = 64 << 10;

/// A response of JSON. `write` appends the next piece, of about [`PIECE_BYTES`]; it returns whether
/// there are more.
pub(crate) fn response(mut write: impl FnMut(&mut Vec<u8>) -> bool + Send + 'static) -> Response {
    let mut first = Vec::new();
    if !write(&mut first) {
        return reply::json(StatusCode::OK, first);
    }
    let mut first = Some(first);
    let mut goes_on = true;
    let pieces = std::iter::from_fn(move || {
        let piece = match first.take() {
            Some(first) => first,
            None if goes_on => {
                let mut piece = Vec::with_capacity(PIECE_BYTES + PIECE_BYTES / 8);
                goes_on = write(&mut piece);
                piece
            }
            None => return None,
        };
        Some(Ok::<_, Infallible>(Bytes::from(piece)))
    });
    let body = Body::from_stream(futures::stream::iter(pieces));
    reply::json(StatusCode::OK, body)
}
