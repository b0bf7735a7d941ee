//! Where things are in the file: a header that says whose blocks these are, then a slot for each
//! block of the pool, as many as there is memory for.
//!
//! A slot is a record and K and V. The record names the content as the prefix cache does: by hash,
//! tokens, keys and the entry of the block before. Entries are numbered from 1 in the order they
//! were written, never twice in a file. All numbers are little-endian, eight bytes or, for tokens,
//! four.
//!
//! Invariant: a record whose checksum is right was written whole; so were K and V if theirs is.

use xxhash_rust::xxh3::xxh3_64;

/// Keys of a block at most; a block with more is not kept.
pub(super) const MAX_NUM_KEYS: usize = 8;

/// Bytes before the first slot.
pub(super) const FILE_HEADER_LEN: usize = 4096;

const MAGIC: &[u8; 8] = b"hskvmir1";
/// Checksums of the record and of K and V, entry, parent, hash, number of keys.
const NUM_FIELDS: usize = 6;

/// What must be equal for blocks of one engine to be of use to another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) model_hash: String,
    pub(crate) numerics_id: String,
    pub(crate) block_size: usize,
    pub(crate) block_bytes: usize,
}

impl Identity {
    /// The file's header; `None` for names that do not fit.
    pub(super) fn header(&self) -> Option<Vec<u8>> {
        let Self {
            model_hash,
            numerics_id,
            block_size,
            block_bytes,
        } = self;
        let text = format!("{model_hash}\n{numerics_id}\n{block_size}\n{block_bytes}\n");
        let mut header = [MAGIC.as_slice(), text.as_bytes()].concat();
        (header.len() <= FILE_HEADER_LEN).then(|| {
            header.resize(FILE_HEADER_LEN, 0);
            header
        })
    }

    fn record_len(&self) -> usize {
        NUM_FIELDS * 8 + self.block_size * 4 + MAX_NUM_KEYS * 8
    }

    /// Bytes of a slot.
    pub(super) fn slot_len(&self) -> usize {
        self.record_len() + self.block_bytes
    }

    /// Where slot `slot` begins.
    pub(super) fn offset(&self, slot: u64) -> u64 {
        FILE_HEADER_LEN as u64 + slot * self.slot_len() as u64
    }

    /// Where K and V of slot `slot` begin.
    pub(super) fn kv_offset(&self, slot: u64) -> u64 {
        self.offset(slot) + self.record_len() as u64
    }
}

/// What a slot holds, beside K and V.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) entry: u64,
    /// 0 for a sequence's first block.
    pub(super) parent: u64,
    pub(super) hash: u64,
    /// `block_size` tokens.
    pub(super) token_ids: Vec<u32>,
    pub(super) keys: Vec<u64>,
    /// Checksum of K and V.
    pub(super) kv_checksum: u64,
}

impl Record {
    /// Appends it to `out`.
    pub(super) fn write(&self, identity: &Identity, out: &mut Vec<u8>) {
        let start = out.len();
        let fields = [
            0,
            self.kv_checksum,
            self.entry,
            self.parent,
            self.hash,
            self.keys.len() as u64,
        ];
        let mut push = |number: u64| out.extend_from_slice(&number.to_le_bytes());
        fields.into_iter().for_each(&mut push);
        let mut keys = [0; MAX_NUM_KEYS];
        keys[..self.keys.len()].copy_from_slice(&self.keys);
        keys.into_iter().for_each(&mut push);
        for token in &self.token_ids {
            out.extend_from_slice(&token.to_le_bytes());
        }
        debug_assert_eq!(out.len() - start, identity.record_len());
        let checksum = xxh3_64(&out[start + 8..]);
        out[start..start + 8].copy_from_slice(&checksum.to_le_bytes());
    }

    /// Reads one; `None` for an empty slot or a damaged record.
    pub(super) fn read(bytes: &[u8]) -> Option<Self> {
        let (checksum, rest) = bytes.split_first_chunk()?;
        if u64::from_le_bytes(*checksum) != xxh3_64(rest) {
            return None;
        }
        let (numbers, tokens) = rest.split_at_checked((NUM_FIELDS - 1 + MAX_NUM_KEYS) * 8)?;
        let numbers = numbers.as_chunks().0;
        let number = |i: usize| numbers.get(i).map(|bytes| u64::from_le_bytes(*bytes));
        let num_keys = usize::try_from(number(4)?).ok()?;
        let keys = (NUM_FIELDS - 1..NUM_FIELDS - 1 + num_keys).map(number);
        Some(Self {
            kv_checksum: number(0)?,
            entry: number(1).filter(|&entry| entry > 0)?,
            parent: number(2)?,
            hash: number(3)?,
            keys: keys.collect::<Option<_>>()?,
            token_ids: (tokens.as_chunks().0.iter().copied())
                .map(u32::from_le_bytes)
                .collect(),
        })
    }

    /// Bytes of a record.
    pub(super) fn len(identity: &Identity) -> usize {
        identity.record_len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity() -> Identity {
        Identity {
            model_hash: "abc".to_owned(),
            numerics_id: "cpu".to_owned(),
            block_size: 4,
            block_bytes: 32,
        }
    }

    #[test]
    fn a_record_reads_as_it_was_written_and_no_bit_may_change() {
        let record = Record {
            entry: 7,
            parent: 6,
            hash: u64::MAX,
            token_ids: vec![1, 2, 3, u32::MAX],
            keys: vec![5, 9],
            kv_checksum: 11,
        };
        let mut bytes = Vec::new();
        record.write(&identity(), &mut bytes);
        assert_eq!(bytes.len(), Record::len(&identity()));
        assert_eq!(Record::read(&bytes), Some(record));
        for bit in 0..bytes.len() * 8 {
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Record::read(&bytes), None, "bit {bit}");
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
        for len in 0..bytes.len() {
            assert_eq!(Record::read(&bytes[..len]), None, "{len} bytes");
        }
        assert_eq!(Record::read(&vec![0; bytes.len()]), None, "an empty slot");
    }

    #[test]
    fn whoever_differs_has_another_header() {
        let header = identity().header();
        let others = [
            Identity {
                model_hash: "abd".to_owned(),
                ..identity()
            },
            Identity {
                numerics_id: "cuda".to_owned(),
                ..identity()
            },
            Identity {
                block_size: 8,
                ..identity()
            },
            Identity {
                block_bytes: 64,
                ..identity()
            },
        ];
        for other in others {
            assert_ne!(other.header(), header, "{other:?}");
        }
        let too_long = Identity {
            numerics_id: "x".repeat(FILE_HEADER_LEN),
            ..identity()
        };
        assert_eq!(too_long.header(), None);
    }
}
