//! What the engine says: messages gathered and written by the engine's own thread.
//!
//! A write blocks while the front does not read. That is the bound on memory: a slow front slows
//! the engine instead of filling it, and the front, which is one process that we wrote, buffers for
//! its slow clients one by one. It must read and write in separate tasks.
//!
//! Invariant: all events of a step are in frames of that step, in order; no frame is longer than
//! the bound.

use std::io::Write;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use hotspare_batch::{Batch, DrawnTokens, FinishReason, RequestId, RowError, SequenceEvent};
use hotspare_link::{EngineMessage, FrameWriter, LinkError, encode_frame};

use crate::{EngineError, EngineOptions, Faults, TokenFault};

/// The writing end of the connection.
#[derive(Debug)]
pub(crate) struct Outbox {
    writer: FrameWriter<UnixStream>,
    max_frame_bytes: usize,
    faults: Faults,
    /// Tokens in the frames so far.
    num_tokens: u64,
    /// Time spent in here.
    elapsed: Duration,
}

impl Outbox {
    pub(crate) fn new(stream: UnixStream, options: &EngineOptions, faults: Faults) -> Self {
        let (max_frame, max_buffer) = (options.max_frame_bytes, options.max_output_buffer_bytes);
        Self {
            writer: FrameWriter::new(stream, max_frame, max_buffer),
            max_frame_bytes: max_frame,
            faults,
            num_tokens: 0,
            elapsed: Duration::ZERO,
        }
    }

    /// Dies of a batch that is about to run, if that is asked for.
    pub(crate) fn check_step(&self, batch: &Batch) -> Result<(), EngineError> {
        match self.faults.of_step(batch) {
            Some(fault) => Err(EngineError::Injected(fault)),
            None => Ok(()),
        }
    }

    /// Time spent encoding and writing since the start.
    pub(crate) fn elapsed(&self) -> Duration {
        self.elapsed
    }

    /// Adds a message to what is written next.
    pub(crate) fn queue(&mut self, message: &EngineMessage) -> Result<(), EngineError> {
        let started = Instant::now();
        let result = self.writer.queue(message);
        self.elapsed += started.elapsed();
        result.map_err(EngineError::from_write)
    }

    /// Writes what was queued. Blocks until the socket took it.
    pub(crate) fn flush(&mut self) -> Result<(), EngineError> {
        if self.writer.is_empty() {
            return Ok(());
        }
        let started = Instant::now();
        let result = self.writer.flush();
        self.elapsed += started.elapsed();
        result.map_err(EngineError::from_write)
    }

    /// Queues a message and flushes.
    pub(crate) fn send(&mut self, message: &EngineMessage) -> Result<(), EngineError> {
        self.queue(message)?;
        self.flush()
    }

    /// Queues a step's events. Those too long for a frame are replaced by their sequence's failure,
    /// and their sequences are returned: end them.
    pub(crate) fn queue_step(
        &mut self,
        step: u64,
        mut events: Vec<SequenceEvent>,
    ) -> Result<Vec<RequestId>, EngineError> {
        if let Some((fault, token)) = self.faults.at_token {
            let mut num_tokens = self.num_tokens;
            let index = events.iter().position(|event| {
                let num_counted = self.faults.num_counted(event);
                num_tokens += num_counted;
                num_counted > 0 && num_tokens >= token
            });
            if let Some(index) = index {
                let rest = events.split_off(index);
                return self.trip(fault, step, events, rest);
            }
        }
        self.queue_events(step, events)
    }

    /// Sends what comes before the fault, and then is the fault.
    fn trip(
        &mut self,
        fault: TokenFault,
        step: u64,
        before: Vec<SequenceEvent>,
        mut rest: Vec<SequenceEvent>,
    ) -> Result<Vec<RequestId>, EngineError> {
        self.queue_events(step, before)?;
        match fault {
            TokenFault::DieBefore | TokenFault::Hang | TokenFault::DieOnTokenId => {}
            TokenFault::DieAfter => {
                rest.truncate(1);
                self.queue_events(step, rest)?;
            }
            TokenFault::DieInFrame => {
                self.flush()?;
                let mut frame = Vec::new();
                let events = rest;
                let message = EngineMessage::Step { step, events };
                let encoded = encode_frame(&message, self.max_frame_bytes, &mut frame);
                encoded.map_err(EngineError::from_write)?;
                let half = &frame[..frame.len() / 2];
                let written = self.writer.get_mut().write_all(half);
                written.map_err(|_| EngineError::FrontLost)?;
            }
        }
        self.flush()?;
        Err(EngineError::Injected(fault))
    }

    /// Queues events in one frame, or in as many as it takes.
    fn queue_events(
        &mut self,
        step: u64,
        events: Vec<SequenceEvent>,
    ) -> Result<Vec<RequestId>, EngineError> {
        if events.is_empty() {
            return Ok(Vec::new());
        }
        let num_tokens: u64 = events.iter().map(|e| self.faults.num_counted(e)).sum();
        let started = Instant::now();
        let message = EngineMessage::Step { step, events };
        let result = self.writer.queue(&message);
        self.elapsed += started.elapsed();
        match (result, message) {
            (Ok(()), _) => {
                self.num_tokens += num_tokens;
                Ok(Vec::new())
            }
            (
                Err(LinkError::FrameTooLarge { num_bytes, .. }),
                EngineMessage::Step { mut events, .. },
            ) => {
                if events.len() == 1 {
                    let event = events.remove(0);
                    return self.queue_failure(step, event, num_bytes);
                }
                let second = events.split_off(events.len() / 2);
                let mut failed = self.queue_events(step, events)?;
                failed.extend(self.queue_events(step, second)?);
                Ok(failed)
            }
            (Err(error), _) => Err(EngineError::from_write(error)),
        }
    }

    fn queue_failure(
        &mut self,
        step: u64,
        mut event: SequenceEvent,
        num_bytes: u64,
    ) -> Result<Vec<RequestId>, EngineError> {
        let request_id = event.request_id;
        if let Some(prompt) = &mut event.prompt {
            prompt.prompt_logprobs = Vec::new();
        }
        let failure = SequenceEvent {
            token_ids: DrawnTokens::new(),
            logprobs: Vec::new(),
            finish: Some(FinishReason::Failed(RowError::EventTooLarge { num_bytes })),
            ..event
        };
        let events = vec![failure];
        self.queue(&EngineMessage::Step { step, events })?;
        Ok(vec![request_id])
    }
}
