//! Incremental UTF-8: bytes in, text out, an incomplete character kept for the next bytes.
//!
//! Equals a one-shot lossy decoding of the same bytes, however they are cut.
//!
//! Invariant: at most three bytes are held, and they are the start of a valid character.

/// How an invalid sequence is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Replacement {
    /// One U+FFFD per maximal invalid part, as `String::from_utf8_lossy` does.
    PerSequence,
    /// One U+FFFD per byte, as byte-fallback decoders do.
    PerByte,
}

/// The bytes of a character that is not complete yet.
#[derive(Clone, Debug, Default)]
pub(crate) struct Utf8Buffer {
    bytes: [u8; 4],
    len: usize,
}

impl Utf8Buffer {
    /// Whether nothing is held.
    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Appends to `out` all text that is certain after `bytes`.
    pub(crate) fn push(&mut self, bytes: &[u8], replacement: Replacement, out: &mut String) {
        let mut rest = bytes;
        // Complete the held character byte by byte: at most three turns.
        while self.len > 0 {
            let Some((&byte, tail)) = rest.split_first() else {
                return;
            };
            self.bytes[self.len] = byte;
            match std::str::from_utf8(&self.bytes[..=self.len]) {
                Ok(text) => {
                    out.push_str(text);
                    self.len = 0;
                    rest = tail;
                }
                Err(error) => match error.error_len() {
                    // Still the start of a character.
                    None => {
                        self.len += 1;
                        rest = tail;
                    }
                    // The new byte does not continue it: what was held is invalid, the byte is not
                    // used up.
                    Some(_) => self.flush(replacement, out),
                },
            }
        }
        while !rest.is_empty() {
            let error = match std::str::from_utf8(rest) {
                Ok(text) => {
                    out.push_str(text);
                    return;
                }
                Err(error) => error,
            };
            let (valid, invalid) = rest.split_at(error.valid_up_to());
            out.push_str(std::str::from_utf8(valid).expect("checked up to here"));
            let Some(len) = error.error_len() else {
                self.bytes[..invalid.len()].copy_from_slice(invalid);
                self.len = invalid.len();
                return;
            };
            replace(len, replacement, out);
            rest = &invalid[len..];
        }
    }

    /// Gives up on the held bytes: they end up as U+FFFD.
    pub(crate) fn flush(&mut self, replacement: Replacement, out: &mut String) {
        if self.len > 0 {
            replace(self.len, replacement, out);
            self.len = 0;
        }
    }
}

fn replace(num_bytes: usize, replacement: Replacement, out: &mut String) {
    let count = match replacement {
        Replacement::PerSequence => 1,
        Replacement::PerByte => num_bytes,
    };
    out.extend(std::iter::repeat_n(char::REPLACEMENT_CHARACTER, count));
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn equals_lossy_decoding(
            chunks in prop::collection::vec(prop::collection::vec(prop_oneof![
                any::<u8>(),
                prop::sample::select("😀€éa".as_bytes().to_vec()),
            ], 0..6), 0..40),
        ) {
            let mut buffer = Utf8Buffer::default();
            let mut text = String::new();
            for chunk in &chunks {
                buffer.push(chunk, Replacement::PerSequence, &mut text);
                prop_assert!(buffer.len <= 3);
            }
            buffer.flush(Replacement::PerSequence, &mut text);
            prop_assert_eq!(text, String::from_utf8_lossy(&chunks.concat()).into_owned());
        }
    }

    #[test]
    fn replaces_per_byte() {
        let mut buffer = Utf8Buffer::default();
        let mut text = String::new();
        for byte in [0xe5, 0x8f, 0xab, 0xe5, 0x8f, b'a', 0xff] {
            buffer.push(&[byte], Replacement::PerByte, &mut text);
        }
        buffer.flush(Replacement::PerByte, &mut text);
        assert_eq!(text, "叫\u{fffd}\u{fffd}a\u{fffd}");
    }
}
