//! A store of sequences by small stable index, so that queues and in-flight rows can name them
//! cheaply.
//!
//! Invariant: an index stays its sequence's until `remove`; the scheduler keeps a sequence while
//! any row of it is in flight, so an index that a row carries is never another's.

use crate::sequence::Sequence;

/// Index of a sequence in the slab.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct SequenceIndex(u32);

/// Sequences by index.
#[derive(Debug, Default)]
pub(crate) struct Slab {
    entries: Vec<Option<Sequence>>,
    free: Vec<SequenceIndex>,
}

impl Slab {
    /// The index that the next `insert` uses.
    pub(crate) fn next_index(&self) -> SequenceIndex {
        self.free
            .last()
            .copied()
            .unwrap_or(SequenceIndex(self.entries.len() as u32))
    }

    pub(crate) fn insert(&mut self, sequence: Sequence) -> SequenceIndex {
        if let Some(index) = self.free.pop() {
            self.entries[index.0 as usize] = Some(sequence);
            return index;
        }
        let index = self.next_index();
        self.entries.push(Some(sequence));
        index
    }

    pub(crate) fn remove(&mut self, index: SequenceIndex) -> Sequence {
        let sequence = self.entries[index.0 as usize]
            .take()
            .expect("an index names a sequence");
        self.free.push(index);
        sequence
    }

    pub(crate) fn get(&self, index: SequenceIndex) -> &Sequence {
        self.entries[index.0 as usize]
            .as_ref()
            .expect("an index names a sequence")
    }

    pub(crate) fn get_mut(&mut self, index: SequenceIndex) -> &mut Sequence {
        self.entries[index.0 as usize]
            .as_mut()
            .expect("an index names a sequence")
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len() - self.free.len()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (SequenceIndex, &Sequence)> {
        let numbered = self.entries.iter().enumerate();
        numbered.filter_map(|(i, entry)| Some((SequenceIndex(i as u32), entry.as_ref()?)))
    }
}
