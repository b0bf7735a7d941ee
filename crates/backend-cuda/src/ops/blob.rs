//! One step's numbers for the device, packed so that one copy moves them all.
//!
//! Invariant: each part starts at a multiple of sixteen bytes; parts never move while they are
//! added to, so an address is known as soon as its part is.

use bytemuck::Pod;

use crate::Address;

/// A part of a blob: where it starts, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Part(usize);

impl Part {
    /// Where it lies on the device, for a blob at `base`.
    pub(super) fn at(self, base: Address) -> Address {
        base.offset(self.0)
    }
}

/// The blob of a step. Memory is reused from step to step.
#[derive(Debug, Default)]
pub(super) struct Blob {
    bytes: Vec<u8>,
}

impl Blob {
    pub(super) fn clear(&mut self) {
        self.bytes.clear();
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Adds `values`.
    pub(super) fn push<T: Pod>(&mut self, values: &[T]) -> Part {
        self.push_padded(values, values.len(), None)
    }

    /// Adds `values`, and `padding` until there are `len`.
    pub(super) fn push_padded<T: Pod>(
        &mut self,
        values: &[T],
        len: usize,
        padding: Option<T>,
    ) -> Part {
        let start = self.bytes.len().next_multiple_of(16);
        self.bytes.resize(start, 0);
        self.bytes.extend(bytemuck::cast_slice(values));
        for padding in (values.len()..len).filter_map(|_| padding) {
            self.bytes.extend(bytemuck::bytes_of(&padding));
        }
        Part(start)
    }
}

/// Bytes of a part of `len` elements of `T`, at most.
pub(super) fn part_bytes<T>(len: usize) -> usize {
    len.saturating_mul(size_of::<T>()).saturating_add(16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_start_at_multiples_of_sixteen_bytes() {
        let mut blob = Blob::default();
        let first = blob.push(&[1u32, 2, 3]);
        let second = blob.push_padded(&[7u32], 3, Some(9));
        let third = blob.push::<u32>(&[]);
        let base = Address(0x1000);
        let at = [first, second, third].map(|part| part.at(base).0);
        assert_eq!(at, [0x1000, 0x1010, 0x1020]);
        let words: &[u32] = bytemuck::cast_slice(blob.bytes());
        assert_eq!(words, [1, 2, 3, 0, 7, 9, 9, 0]);
    }
}
