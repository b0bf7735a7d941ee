//! What must hold between any two calls, checked from scratch.
//!
//! Called after each step in tests and by the engine when it is idle; the cost is linear in blocks
//! and sequences.
//!
//! Invariant: checking changes nothing.

use crate::scheduler::Scheduler;
use crate::sequence::{Sequence, Status};
use crate::slab::SequenceIndex;

impl Scheduler {
    /// Checks that blocks and slots held are exactly those of the sequences, that free list, cache,
    /// queues and rows in flight are consistent, and that nothing is held when nothing lives.
    ///
    /// # Panics
    /// Where any of that does not hold; the engine's state is then not to be trusted.
    pub fn check_integrity(&self) {
        let mut held = vec![0; self.config.num_blocks];
        let mut slot_owners = vec![0; self.config.max_num_seqs];
        let mut counts = Counts::default();
        for (index, sequence) in self.sequences.iter() {
            for &block in sequence.block_table.held() {
                held[block as usize] += 1;
            }
            if let Some(slot) = sequence.slot {
                slot_owners[slot as usize] += 1;
            }
            self.check_sequence(index, sequence);
            counts.add(sequence);
        }
        self.blocks.check_integrity(&held);
        self.check_slots(slot_owners);
        assert_eq!(
            counts.num_waiting,
            self.waiting.len(),
            "waiting sequences are in the queue"
        );
        assert_eq!(
            counts.num_new,
            self.waiting.num_new(),
            "new sequences are counted"
        );
        assert_eq!(
            counts.num_running,
            self.running.len(),
            "running sequences are in the list"
        );
        assert_eq!(
            counts.num_releasing, self.num_releasing,
            "leaving sequences are counted"
        );
        assert_eq!(
            counts.num_live,
            self.by_id.len(),
            "live sequences have names"
        );
        assert_eq!(
            counts.num_deadlines,
            self.deadlines.len(),
            "deadlines are of live sequences"
        );
        self.check_queues();
        assert!(
            self.in_flight.len() <= self.config.max_num_in_flight,
            "few enough in flight"
        );
        assert!(
            self.spare_rows.len() <= self.config.max_num_in_flight,
            "row lists are reused"
        );
    }

    fn check_slots(&self, mut slot_owners: Vec<u32>) {
        for &slot in &self.free_slots {
            slot_owners[slot as usize] += 1;
        }
        for (slot, &num_owners) in slot_owners.iter().enumerate() {
            assert_eq!(num_owners, 1, "slot {slot} is free or has one owner");
        }
    }

    fn check_queues(&self) {
        let running: Vec<_> = self.running.iter().collect();
        assert!(running.is_sorted(), "running sequences are in order");
        for key in running {
            assert_eq!(
                self.sequences.get(key.index).key,
                key,
                "a running key is its sequence's"
            );
            assert_eq!(self.sequences.get(key.index).status, Status::Running);
        }
        for key in self.waiting.iter() {
            assert_eq!(
                self.sequences.get(key.index).key,
                key,
                "a waiting key is its sequence's"
            );
            assert_eq!(self.sequences.get(key.index).status, Status::Waiting);
        }
    }

    fn check_sequence(&self, index: SequenceIndex, sequence: &Sequence) {
        let num_in_flight = self
            .in_flight
            .iter()
            .flat_map(|step| &step.rows)
            .filter(|row| row.index == index && Some(row.slot) == sequence.slot)
            .count();
        assert_eq!(
            num_in_flight, sequence.num_in_flight as usize,
            "rows in flight are counted"
        );
        let (computed, scheduled) = (sequence.num_computed_tokens, sequence.num_scheduled_tokens);
        match sequence.status {
            Status::Waiting => {
                assert!(sequence.slot.is_none(), "a waiting sequence has no slot");
                assert!(
                    sequence.block_table.len() == 0,
                    "a waiting sequence has no blocks"
                );
                assert_eq!(
                    (computed, scheduled),
                    (0, 0),
                    "a waiting sequence starts over"
                );
            }
            Status::Running => assert!(sequence.slot.is_some(), "a running sequence has a slot"),
            Status::Preempting | Status::Finished => {
                assert!(num_in_flight > 0, "a leaving sequence waits for its rows");
            }
        }
        if sequence.status != Status::Finished {
            assert_eq!(
                self.by_id.get(&sequence.request_id),
                Some(&index),
                "a name finds it"
            );
            let num_unseen = self.config.num_unseen_blocks(computed);
            assert!(
                sequence.block_table.num_dropped() <= num_unseen,
                "what is given back is not seen any more"
            );
            let capacity = sequence.block_table.len() * self.config.block_size;
            assert!(
                computed <= scheduled && scheduled <= capacity,
                "blocks cover what is computed"
            );
            assert!(
                scheduled <= sequence.expected_len(),
                "only what is known is scheduled"
            );
            assert!(sequence.expected_len() <= sequence.max_len.max(sequence.ids.len()));
        }
    }
}

#[derive(Default)]
struct Counts {
    num_waiting: usize,
    num_new: usize,
    num_running: usize,
    num_releasing: usize,
    num_live: usize,
    num_deadlines: usize,
}

impl Counts {
    fn add(&mut self, sequence: &Sequence) {
        match sequence.status {
            Status::Waiting => {
                self.num_waiting += 1;
                self.num_new += usize::from(!sequence.was_admitted);
            }
            Status::Running => self.num_running += 1,
            Status::Preempting | Status::Finished => self.num_releasing += 1,
        }
        if sequence.status != Status::Finished {
            self.num_live += 1;
            self.num_deadlines += usize::from(sequence.deadline_at_ms.is_some());
        }
    }
}
