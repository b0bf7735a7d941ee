//! A front for tests: one blocking connection to an engine on threads of this process.
//!
//! Invariant: it checks of every answer what holds for all of them: events in order, one end.

use std::collections::BTreeMap;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use hotspare_batch::{
    FinishReason, Generate, RejectReason, RequestId, SequenceEvent, TokenId, TokenLogprobs,
};
use hotspare_engine::{EngineOptions, spawn_in_process};
use hotspare_link::{
    EngineHello, EngineMessage, EngineStats, FrameReader, FrameWriter, FrontMessage, LinkError,
    ProtocolRange,
};

/// Not a measurement: where an engine hangs, its test ends instead of the whole run.
const READ_TIMEOUT: Duration = Duration::from_secs(120);

const MAX_FRAME_BYTES: usize = 64 << 20;

/// What came of one sequence.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Answer {
    pub(crate) ids: Vec<TokenId>,
    pub(crate) logprobs: Vec<TokenLogprobs>,
    pub(crate) prompt_logprobs: Vec<TokenLogprobs>,
    pub(crate) num_cached_tokens: Option<u32>,
    pub(crate) finish: Option<FinishReason>,
    pub(crate) rejected: Option<RejectReason>,
    admitted: bool,
    num_events: u32,
    first_index: u32,
}

impl Answer {
    fn add(&mut self, event: SequenceEvent) {
        assert!(self.admitted, "an event before Admitted: {event:?}");
        assert_eq!(self.finish, None, "an event after the last: {event:?}");
        if self.num_events == 0 {
            self.first_index = event.first_index;
            assert!(event.prompt.is_some(), "the first event says");
        } else {
            assert_eq!(event.prompt, None);
        }
        self.num_events += 1;
        let next_index = self.first_index + self.ids.len() as u32;
        assert_eq!(event.first_index, next_index, "a gap: {event:?}");
        self.ids.extend(event.token_ids);
        self.logprobs.extend(event.logprobs);
        if let Some(prompt) = event.prompt {
            self.num_cached_tokens = Some(prompt.num_cached_tokens);
            self.prompt_logprobs.extend(prompt.prompt_logprobs);
        }
        self.finish = event.finish;
    }

    fn is_over(&self) -> bool {
        self.finish.is_some() || self.rejected.is_some()
    }
}

/// One connection.
pub(crate) struct Front {
    reader: FrameReader<UnixStream>,
    writer: FrameWriter<UnixStream>,
    pub(crate) answers: BTreeMap<RequestId, Answer>,
    pub(crate) stats: Option<EngineStats>,
    pub(crate) fatal: Option<String>,
}

impl Front {
    /// Starts an engine; no greeting yet.
    pub(crate) fn connect(options: EngineOptions) -> Self {
        let stream = spawn_in_process(options).unwrap();
        stream.set_read_timeout(Some(READ_TIMEOUT)).unwrap();
        Self {
            reader: FrameReader::new(stream.try_clone().unwrap(), MAX_FRAME_BYTES),
            writer: FrameWriter::new(stream, MAX_FRAME_BYTES, 1 << 20),
            answers: BTreeMap::new(),
            stats: None,
            fatal: None,
        }
    }

    /// Starts an engine and greets it.
    pub(crate) fn start(options: EngineOptions) -> Self {
        let mut front = Self::connect(options);
        front.await_hello();
        front.send(&FrontMessage::Hello {
            protocol: ProtocolRange::OURS,
        });
        front
    }

    /// Waits until the engine can serve.
    pub(crate) fn await_hello(&mut self) -> EngineHello {
        loop {
            match self.reader.read().unwrap() {
                Some(EngineMessage::Hello(hello)) => return *hello,
                Some(EngineMessage::Loading { .. }) => {}
                other => panic!("no Hello but {other:?}"),
            }
        }
    }

    pub(crate) fn send(&mut self, message: &FrontMessage) {
        self.writer.write(message).unwrap();
    }

    pub(crate) fn stream(&mut self) -> &mut UnixStream {
        self.writer.get_mut()
    }

    pub(crate) fn generate(&mut self, generate: &Generate) {
        let request_id = generate.request_id;
        self.answers.insert(request_id, Answer::default());
        self.send(&FrontMessage::Generate(Box::new(generate.clone())));
    }

    pub(crate) fn cancel(&mut self, request_id: RequestId) {
        self.send(&FrontMessage::Cancel { request_id });
    }

    /// Takes the next message into the answers; returns it, or `None` at the end of the stream.
    pub(crate) fn receive(&mut self) -> Result<Option<EngineMessage>, LinkError> {
        let message = self.reader.read::<EngineMessage>()?;
        match message.clone() {
            Some(EngineMessage::Admitted { request_id, .. }) => {
                self.answer(request_id).admitted = true;
            }
            Some(EngineMessage::Rejected {
                request_id, reason, ..
            }) => {
                let answer = self.answer(request_id);
                assert!(!answer.admitted, "rejected after it was admitted");
                answer.rejected = Some(reason);
            }
            Some(EngineMessage::Step { events, .. }) => {
                for event in events {
                    self.answer(event.request_id).add(event);
                }
            }
            Some(EngineMessage::Stats(stats)) => self.stats = Some(*stats),
            Some(EngineMessage::Fatal { message }) => self.fatal = Some(message),
            _ => {}
        }
        Ok(message)
    }

    fn answer(&mut self, request_id: RequestId) -> &mut Answer {
        let answer = self.answers.get_mut(&request_id);
        answer.expect("only what was asked is answered")
    }

    /// Receives until `done` holds.
    pub(crate) fn receive_until(&mut self, mut done: impl FnMut(&Self) -> bool) {
        while !done(self) {
            let message = self.receive().unwrap();
            assert!(message.is_some(), "the engine ended: {:?}", self.fatal);
        }
    }

    /// Receives until each sequence has its last event.
    pub(crate) fn finish_all(&mut self) {
        self.receive_until(|front| front.answers.values().all(Answer::is_over));
    }

    /// Waits for the counters that an engine sends when it falls idle. A cancelled sequence leaves
    /// the counts at once, its blocks when the step that uses them ends: blocks that never come
    /// back end this with a timeout.
    pub(crate) fn idle_stats(&mut self) -> EngineStats {
        self.stats = None;
        let is_idle =
            |s: &EngineStats| (s.num_running, s.num_waiting, s.num_used_blocks) == (0, 0, 0);
        self.receive_until(|front| front.stats.as_ref().is_some_and(is_idle));
        self.stats.clone().unwrap()
    }

    /// Receives to the end of the stream; true where it ended between two frames.
    pub(crate) fn receive_to_end(&mut self) -> bool {
        loop {
            match self.receive() {
                Ok(Some(_)) => {}
                Ok(None) => return true,
                Err(LinkError::Truncated { .. }) => return false,
                Err(error) => panic!("{error}"),
            }
        }
    }

    /// Runs `requests` to their ends; answers in their order.
    pub(crate) fn run(&mut self, requests: &[Generate]) -> Vec<Answer> {
        for generate in requests {
            self.generate(generate);
        }
        self.finish_all();
        let answers = requests.iter();
        answers
            .map(|generate| self.answers.remove(&generate.request_id).unwrap())
            .collect()
    }
}
