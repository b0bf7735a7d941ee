//! A million random operations, after which not a block, a slot or a sequence is missing.
//!
//! Invariant: `check_integrity` holds after every one of them.

use hotspare_batch::{Batch, FinishReason, RequestId, RowOutput, SequenceEvent, StepOutput};

use crate::testing::{Rng, ids, request};
use crate::{Scheduler, SchedulerConfig, SchedulingPolicy};

const NUM_OPERATIONS: u64 = 1_000_000;

/// What happened, so that a test which does nothing fails.
#[derive(Default)]
struct Seen {
    num_added: u64,
    num_finished: u64,
    num_cancelled: u64,
    num_deadlines: u64,
}

struct Chaos {
    scheduler: Scheduler,
    in_flight: std::collections::VecDeque<Batch>,
    rng: Rng,
    now_ms: u64,
    next_id: u64,
    events: Vec<SequenceEvent>,
    seen: Seen,
}

impl Chaos {
    fn new(seed: u64, max_num_in_flight: usize) -> Self {
        let config = SchedulerConfig {
            max_num_seqs: 6,
            max_num_batched_tokens: 24,
            max_model_len: 40,
            block_size: 4,
            num_blocks: 24,
            num_eager_blocks: 3,
            max_num_waiting: 6,
            policy: SchedulingPolicy::Priority,
            max_num_in_flight,
            ..SchedulerConfig::default()
        };
        Self {
            scheduler: Scheduler::new(config).unwrap(),
            in_flight: std::collections::VecDeque::new(),
            rng: Rng::new(seed),
            now_ms: 0,
            next_id: 0,
            events: Vec::new(),
            seen: Seen::default(),
        }
    }

    fn add(&mut self) {
        let rng = &mut self.rng;
        let num_ids = 1 + rng.below(30) as usize;
        let mut request = request(self.next_id, &ids(rng.below(3) as u32, num_ids));
        request.stop.max_tokens = rng.below(24) as u32;
        request.stop.stop_token_ids = vec![3];
        request.priority = rng.below(3) as i32;
        request.deadline_ms = rng.one_in(4).then(|| rng.below(60));
        request.prefill_only = rng.one_in(16);
        request.sampling.num_prompt_logprobs = rng.one_in(16).then_some(0);
        if self.scheduler.add(request, self.now_ms).is_ok() {
            self.next_id += 1;
            self.seen.num_added += 1;
        }
    }

    fn commit(&mut self) {
        let Some(batch) = self.in_flight.pop_front() else {
            return;
        };
        let mut rows = Vec::with_capacity(batch.rows.len());
        for row in &batch.rows {
            let mut output = RowOutput {
                slot: row.slot,
                ..RowOutput::default()
            };
            if row.samples {
                // Mostly one token; sometimes what speculation would give.
                let num_drawn = if self.rng.one_in(8) {
                    self.rng.below(4)
                } else {
                    1
                };
                let rng = &mut self.rng;
                output
                    .token_ids
                    .extend((0..num_drawn).map(|_| rng.below(20) as u32));
            }
            rows.push(output);
        }
        let output = StepOutput {
            step: batch.step,
            rows,
            ..StepOutput::default()
        };
        self.scheduler.commit(output, self.now_ms).unwrap();
    }

    fn operate(&mut self) {
        match self.rng.below(20) {
            0..4 => self.add(),
            4 => {
                let id = RequestId(self.next_id.saturating_sub(1 + self.rng.below(12)));
                self.scheduler.cancel(id);
            }
            5 => self.now_ms += self.rng.below(10),
            6 if self.rng.one_in(50) => {
                self.scheduler.reset_prefix_cache();
            }
            6..13 => self.in_flight.extend(self.scheduler.schedule(self.now_ms)),
            _ => self.commit(),
        }
        self.scheduler.check_integrity();
        self.scheduler.drain_events(&mut self.events);
        for event in self.events.drain(..) {
            self.seen.num_finished += u64::from(event.finish.is_some());
            self.seen.num_cancelled += u64::from(event.finish == Some(FinishReason::Cancelled));
            self.seen.num_deadlines += u64::from(event.finish == Some(FinishReason::Deadline));
        }
    }

    fn finish(mut self) {
        self.scheduler.drain();
        while self.scheduler.has_unfinished() {
            self.in_flight.extend(self.scheduler.schedule(self.now_ms));
            self.commit();
            self.scheduler.check_integrity();
        }
        self.scheduler.drain_events(&mut self.events);
        let num_last = self
            .events
            .iter()
            .filter(|event| event.finish.is_some())
            .count();
        self.seen.num_finished += num_last as u64;
        let (seen, stats) = (&self.seen, self.scheduler.stats());
        assert_eq!(
            seen.num_finished, seen.num_added,
            "every sequence ends once"
        );
        assert_eq!((stats.num_used_blocks, stats.num_free_blocks), (0, 24));
        assert_eq!((stats.num_running, stats.num_waiting), (0, 0));
        assert!(self.scheduler.reset_prefix_cache());
        self.scheduler.check_integrity();
        for (what, count) in [
            ("added", seen.num_added),
            ("cancelled", seen.num_cancelled),
            ("too late", seen.num_deadlines),
            ("preempted", stats.num_preemptions),
            ("prefix cache hits", stats.num_prefix_cache_hits),
        ] {
            assert!(count > NUM_OPERATIONS / 1_000, "{what}: {count}");
        }
    }
}

#[test]
fn a_million_operations_leak_nothing() {
    for depth in 1..=2 {
        let mut chaos = Chaos::new(depth as u64, depth);
        for _ in 0..NUM_OPERATIONS / 2 {
            chaos.operate();
        }
        chaos.finish();
    }
}
