//! The engine's thread: messages in, steps through the executor, events out.
//!
//! With look-ahead the loop submits step N+1 while step N runs, then waits for N: the device has
//! work while the host commits and writes. The plain loop is the same code with room for one batch
//! and gives the same tokens.
//!
//! Invariant: it sleeps whenever nothing runs and nothing came.

use std::collections::VecDeque;
use std::path::Path;
use std::time::{Duration, Instant};

use hotspare_batch::{
    Executor, FinishReason, Generate, RequestId, SamplingParams, SequenceEvent, StepTimings,
    StopParams,
};
use hotspare_link::{EngineMessage, EngineStats, FrontMessage};
use hotspare_scheduler::Scheduler;

use crate::flush_pacer::FlushPacer;
use crate::inbox::Inbox;
use crate::kv_mirror::KvKeeper;
use crate::outbox::Outbox;
use crate::{EngineError, EngineOptions, TokenFault, admission};

/// How long the loop sleeps where sequences wait, none can run, and only time can change that.
const STALLED_WAIT: Duration = Duration::from_millis(5);

/// The loop and what it owns.
pub(crate) struct EngineLoop<'a, E> {
    options: &'a EngineOptions,
    scheduler: Scheduler,
    keeper: KvKeeper,
    executor: E,
    inbox: &'a Inbox,
    outbox: &'a mut Outbox,
    /// Steps to keep submitted: 2 for look-ahead, 1 for the plain loop.
    depth: usize,
    num_in_flight: usize,
    started: Instant,
    /// Number of the step that was committed last.
    step: u64,
    device: StepTimings,
    schedule_time: Duration,
    last_stats: Instant,
    /// Whether anything happened since the last report.
    busy: bool,
    draining: bool,
    pacer: FlushPacer,
    /// Messages that were taken and not looked at.
    messages: VecDeque<FrontMessage>,
    /// Nonce of the canary that is under way.
    canary: Option<u64>,
}

impl<'a, E: Executor> EngineLoop<'a, E> {
    pub(crate) fn new(
        options: &'a EngineOptions,
        scheduler: Scheduler,
        keeper: KvKeeper,
        executor: E,
        inbox: &'a Inbox,
        outbox: &'a mut Outbox,
    ) -> Self {
        let now = Instant::now();
        Self {
            depth: max_num_in_flight(options, executor.info().max_num_in_flight),
            pacer: FlushPacer::new(options.stream_flush_interval(), now),
            options,
            scheduler,
            keeper,
            executor,
            inbox,
            outbox,
            num_in_flight: 0,
            started: now,
            step: 0,
            device: StepTimings::default(),
            schedule_time: Duration::ZERO,
            last_stats: now,
            busy: true,
            draining: false,
            messages: VecDeque::new(),
            canary: None,
        }
    }

    /// Serves until the front drains the engine.
    ///
    /// # Errors
    /// The front is lost or confused, the device is lost, or a fault was asked for.
    pub(crate) fn run(&mut self) -> Result<(), EngineError> {
        match self.serve() {
            Err(EngineError::Injected(TokenFault::Hang)) => {
                tracing::warn!("injected fault: the engine hangs until its front is gone");
                Err(self.inbox.wait_closed())
            }
            result => result,
        }
    }

    fn serve(&mut self) -> Result<(), EngineError> {
        loop {
            self.receive()?;
            self.submit()?;
            if self.num_in_flight == 0 || self.pacer.is_due(self.step, Instant::now()) {
                self.outbox.flush()?;
            }
            if self.num_in_flight > 0 {
                self.complete()?;
                continue;
            }
            if !self.messages.is_empty() {
                continue;
            }
            // Cancelled and expired sequences that were not running have events too.
            self.queue_events()?;
            if self.scheduler.has_unfinished() {
                self.outbox.flush()?;
                self.inbox.wait(Some(STALLED_WAIT));
                continue;
            }
            self.fall_idle()?;
            if self.draining {
                return Ok(());
            }
            self.inbox.wait(None);
        }
    }

    /// Looks at what the front sent, up to the bound.
    fn receive(&mut self) -> Result<(), EngineError> {
        if self.messages.is_empty() {
            let mut messages = std::mem::take(&mut self.messages).into();
            self.inbox
                .take(self.options.max_num_messages_per_step, &mut messages)?;
            self.messages = messages.into();
        }
        let mut has_requests = false;
        while let Some(message) = self.messages.pop_front() {
            has_requests |= matches!(message, FrontMessage::Generate(_));
            self.busy = true;
            self.pacer.on_urgent();
            self.handle(message)?;
            if self.keeper.is_full() {
                break;
            }
        }
        match has_requests {
            // Whoever is in a step that ends this engine was named to the front before it.
            true => self.outbox.flush(),
            false => Ok(()),
        }
    }

    fn handle(&mut self, message: FrontMessage) -> Result<(), EngineError> {
        match message {
            FrontMessage::Generate(generate) => {
                let (request_id, attempt) = (generate.request_id, generate.attempt);
                let vocab_size = self.executor.info().vocab_size;
                let now_ms = self.now_ms();
                let admitted = admission::check(&generate, vocab_size).and_then(|()| {
                    self.keeper.import(&generate, &mut self.scheduler);
                    self.scheduler.add(*generate, now_ms)
                });
                self.outbox.queue(&match admitted {
                    Ok(()) => EngineMessage::Admitted {
                        request_id,
                        attempt,
                    },
                    Err(reason) => EngineMessage::Rejected {
                        request_id,
                        attempt,
                        reason,
                    },
                })
            }
            FrontMessage::Cancel { request_id } => {
                // A sequence that has ended already is not an error: the two messages crossed.
                self.scheduler.cancel(request_id);
                Ok(())
            }
            FrontMessage::Drain => {
                self.draining = true;
                self.scheduler.drain();
                Ok(())
            }
            FrontMessage::Ping { nonce } => self.outbox.queue(&EngineMessage::Pong { nonce }),
            FrontMessage::Canary { nonce } => self.start_canary(nonce),
            FrontMessage::AdoptKv { path } => {
                self.keeper.adopt(Path::new(&path));
                Ok(())
            }
            FrontMessage::ForgetKv => {
                self.keeper.forget();
                Ok(())
            }
            // Between fronts only: an engine admits nobody.
            FrontMessage::Ask { .. } => Ok(()),
            FrontMessage::Hello { .. } => Err(EngineError::Protocol("a second Hello".to_owned())),
        }
    }

    /// Fills the executor with batches.
    fn submit(&mut self) -> Result<(), EngineError> {
        while self.num_in_flight < self.depth {
            let started = Instant::now();
            let batch = self.scheduler.schedule(self.now_ms());
            self.schedule_time += started.elapsed();
            let Some(mut batch) = batch else {
                return Ok(());
            };
            self.keeper.attach(&mut batch, &self.scheduler);
            self.pacer.on_submit(&batch);
            self.outbox.check_step(&batch)?;
            let (step, num_tokens) = (batch.step, batch.num_tokens() as u32);
            self.executor.submit(batch)?;
            self.num_in_flight += 1;
            self.outbox
                .queue(&EngineMessage::Working { step, num_tokens })?;
        }
        Ok(())
    }

    /// Waits for the oldest batch, commits its output and queues its events.
    fn complete(&mut self) -> Result<(), EngineError> {
        let mut output = self.executor.wait()?;
        self.keeper.on_output(&mut output);
        self.num_in_flight -= 1;
        self.busy = true;
        self.device += output.timings;
        self.step = output.step;
        let now_ms = self.now_ms();
        let started = Instant::now();
        self.scheduler.commit(output, now_ms)?;
        self.keeper.collect(&mut self.scheduler);
        self.schedule_time += started.elapsed();
        if self.options.check_integrity {
            self.scheduler.check_integrity();
        }
        self.queue_events()?;
        if self.last_stats.elapsed().as_millis() >= u128::from(self.options.stats_interval_ms) {
            self.queue_stats()?;
        }
        Ok(())
    }

    /// Puts a sequence of the engine's own ahead of all that waits. One that comes while another is
    /// under way takes its place: one token answers for both.
    fn start_canary(&mut self, nonce: u64) -> Result<(), EngineError> {
        if self.canary.replace(nonce).is_some() {
            return Ok(());
        }
        let now_ms = self.now_ms();
        match self.scheduler.add(canary(), now_ms) {
            Ok(()) => Ok(()),
            Err(reason) => self.end_canary(Some(format!("{reason:?}"))),
        }
    }

    fn end_canary(&mut self, error: Option<String>) -> Result<(), EngineError> {
        match self.canary.take() {
            Some(nonce) => self
                .outbox
                .queue(&EngineMessage::CanaryDone { nonce, error }),
            None => Ok(()),
        }
    }

    /// Takes the canary's event out of a step's.
    fn take_canary(&mut self, events: &mut Vec<SequenceEvent>) -> Result<(), EngineError> {
        let is_canary = |event: &SequenceEvent| event.request_id == RequestId::CANARY;
        if self.canary.is_none() || !events.iter().any(is_canary) {
            return Ok(());
        }
        let finish = events.iter().rfind(|event| is_canary(event));
        let error = match finish.and_then(|event| event.finish.clone()) {
            Some(FinishReason::Failed(error)) => Some(error.to_string()),
            _ => None,
        };
        events.retain(|event| !is_canary(event));
        self.end_canary(error)
    }

    fn queue_events(&mut self) -> Result<(), EngineError> {
        let mut events = self.drain_events();
        // A canary's end, too, is not held.
        self.pacer.on_events(&events);
        self.take_canary(&mut events)?;
        let failed = self.outbox.queue_step(self.step, events)?;
        if !failed.is_empty() {
            for &request_id in &failed {
                self.scheduler.cancel(request_id);
            }
            // They have their last event already; the one of the cancellation is not theirs.
            drop(self.drain_events());
        }
        Ok(())
    }

    fn drain_events(&mut self) -> Vec<SequenceEvent> {
        let started = Instant::now();
        let mut events = Vec::new();
        self.scheduler.drain_events(&mut events);
        self.schedule_time += started.elapsed();
        events
    }

    /// Reports the last counters and checks the books, once for each time that work ends.
    fn fall_idle(&mut self) -> Result<(), EngineError> {
        if self.busy {
            self.busy = false;
            self.queue_stats()?;
            if cfg!(debug_assertions) || self.options.check_integrity {
                self.scheduler.check_integrity();
            }
        }
        self.outbox.flush()
    }

    fn queue_stats(&mut self) -> Result<(), EngineError> {
        self.last_stats = Instant::now();
        let stats = self.stats();
        self.outbox.queue(&EngineMessage::Stats(Box::new(stats)))
    }

    fn stats(&self) -> EngineStats {
        let stats = self.scheduler.stats();
        EngineStats {
            num_steps: stats.num_steps,
            num_running: stats.num_running,
            num_waiting: stats.num_waiting,
            num_used_blocks: stats.num_used_blocks,
            num_cached_blocks: stats.num_cached_blocks,
            num_prompt_tokens: stats.num_prompt_tokens,
            num_cached_prompt_tokens: stats.num_cached_prompt_tokens,
            num_generated_tokens: stats.num_generated_tokens,
            num_preemptions: stats.num_preemptions,
            step_tokens: stats.step_tokens,
            preemptions: stats.preemptions,
            num_prefix_cache_queries: stats.num_prefix_cache_queries,
            num_prefix_cache_hits: stats.num_prefix_cache_hits,
            device: self.device,
            schedule_ns: self.schedule_time.as_nanos() as u64,
            transport_ns: self.outbox.elapsed().as_nanos() as u64,
        }
    }

    fn now_ms(&self) -> u64 {
        self.started.elapsed().as_millis() as u64
    }
}

/// One token of any prompt, the first id of the vocabulary.
fn canary() -> Generate {
    Generate {
        request_id: RequestId::CANARY,
        attempt: 0,
        ids: vec![0],
        num_delivered: 0,
        sampling: SamplingParams::greedy(),
        stop: StopParams {
            max_tokens: 1,
            ..StopParams::default()
        },
        priority: 0,
        deadline_ms: None,
        block_hash_keys: Vec::new(),
        prefill_only: false,
    }
}

/// Batches that the loop keeps in flight with an executor that can hold `capacity`.
pub(crate) fn max_num_in_flight(options: &EngineOptions, capacity: usize) -> usize {
    if options.lookahead {
        capacity.min(2)
    } else {
        1
    }
}
