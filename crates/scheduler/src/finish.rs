//! How a sequence leaves: it ends, or it is preempted; and when what it held is free.
//!
//! Blocks and slot of a sequence with rows in flight stay its own until those are committed: the
//! device may still write there. Until then the sequence lingers as `Finished` or `Preempting`.
//!
//! Invariant: whoever calls `finish` calls `settle` after it, and does not touch the sequence
//! again.

use hotspare_batch::{DrawnTokens, FinishReason, PREEMPTIONS_BOUNDS};

use crate::queue::QueueKey;
use crate::scheduler::Scheduler;
use crate::sequence::Status;
use crate::slab::SequenceIndex;

impl Scheduler {
    /// Ends a live sequence with an event that has no tokens.
    pub(crate) fn finish(&mut self, index: SequenceIndex, reason: FinishReason) {
        let sequence = self.sequences.get_mut(index);
        let first_index = sequence.num_output_tokens();
        sequence.report(
            &mut self.events,
            first_index,
            DrawnTokens::new(),
            Vec::new(),
            Some(reason),
        );
        self.retire(index);
    }

    /// Takes a sequence whose last event is out from every list; what it holds stays until
    /// `settle`.
    pub(crate) fn retire(&mut self, index: SequenceIndex) {
        let sequence = self.sequences.get_mut(index);
        let (status, key) = (sequence.status, sequence.key);
        let was_admitted = sequence.was_admitted;
        let num_preemptions = sequence.num_preemptions.into();
        if sequence.is_counted() {
            self.counters
                .preemptions
                .observe(&PREEMPTIONS_BOUNDS, num_preemptions);
        }
        sequence.status = Status::Finished;
        self.by_id.remove(&sequence.request_id);
        if let Some(at_ms) = sequence.deadline_at_ms {
            self.deadlines.remove(&(at_ms, index));
        }
        match status {
            Status::Waiting => self.waiting.remove(key, was_admitted),
            Status::Running => self.running.remove(key),
            // It is among the releasing ones already.
            Status::Preempting | Status::Finished => return,
        }
        self.num_releasing += 1;
    }

    /// Takes the place of a running sequence. Its ids stay; it computes them again when it is
    /// admitted again.
    pub(crate) fn preempt(&mut self, victim: QueueKey) {
        self.running.remove(victim);
        let sequence = self.sequences.get_mut(victim.index);
        sequence.status = Status::Preempting;
        sequence.num_preemptions += 1;
        let is_counted = sequence.is_counted();
        self.num_releasing += 1;
        self.counters.num_preemptions += u64::from(is_counted);
        self.settle(victim.index);
    }

    /// Lets a leaving sequence give back what it holds, unless rows of it are in flight.
    pub(crate) fn settle(&mut self, index: SequenceIndex) {
        let sequence = self.sequences.get_mut(index);
        if sequence.num_in_flight > 0 {
            return;
        }
        let key = sequence.key;
        match sequence.status {
            Status::Waiting | Status::Running => return,
            Status::Preempting => {
                self.blocks.release(&mut sequence.block_table);
                self.free_slots.extend(sequence.slot.take());
                sequence.restart();
                sequence.status = Status::Waiting;
                self.waiting.insert(key, true);
            }
            Status::Finished => {
                let mut sequence = self.sequences.remove(index);
                self.blocks.release(&mut sequence.block_table);
                self.free_slots.extend(sequence.slot);
            }
        }
        self.num_releasing -= 1;
    }

    /// Ends every sequence whose deadline has come.
    pub(crate) fn expire(&mut self, now_ms: u64) {
        while let Some(&(at_ms, index)) = self.deadlines.first()
            && at_ms <= now_ms
        {
            self.finish(index, FinishReason::Deadline);
            self.settle(index);
        }
    }
}
