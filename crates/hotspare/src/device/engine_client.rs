//! An engine on threads of this process, spoken to as a front would.
//!
//! Invariant: nothing waits for ever: an engine that is silent for too long is an error. When the
//! value is gone, so is what the engine held of a card.

use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use hotspare_batch::{Generate, RequestId, SamplingParams, SequenceEvent, StopParams, TokenId};
use hotspare_engine::{EngineOptions, spawn_to_be_joined};
use hotspare_link::{
    EngineHello, EngineMessage, FrameReader, FrameWriter, FrontMessage, ProtocolRange,
};

const MAX_FRAME_BYTES: usize = 64 << 20;

/// An engine's thread and the socket that ends it.
struct EngineThread {
    stream: UnixStream,
    thread: Option<JoinHandle<()>>,
}

impl Drop for EngineThread {
    fn drop(&mut self) {
        // It fails where the engine closed it first.
        let _ = self.stream.shutdown(Shutdown::Both);
        if let Some(thread) = self.thread.take() {
            // The next engine is to find the card empty. A panic was printed.
            let _ = thread.join();
        }
    }
}

/// A running engine.
pub(super) struct EngineClient {
    reader: FrameReader<UnixStream>,
    writer: FrameWriter<UnixStream>,
    _engine: EngineThread,
    pub(super) hello: EngineHello,
    /// From nothing to ready.
    pub(super) start_s: f64,
    num_requests: u64,
}

impl EngineClient {
    /// Starts an engine and waits until it is ready.
    pub(super) fn start(options: EngineOptions, timeout: Duration) -> Result<Self, String> {
        let start = Instant::now();
        let spawned = spawn_to_be_joined(options).map_err(|error| error.to_string())?;
        let (stream, thread) = spawned;
        let engine = EngineThread {
            stream: stream.try_clone().map_err(|error| error.to_string())?,
            thread: Some(thread),
        };
        let limit = stream.set_read_timeout(Some(timeout));
        limit.map_err(|error| error.to_string())?;
        let other = stream.try_clone().map_err(|error| error.to_string())?;
        let mut reader = FrameReader::new(stream, MAX_FRAME_BYTES);
        let mut writer = FrameWriter::new(other, MAX_FRAME_BYTES, 1 << 20);
        let hello = loop {
            match read(&mut reader)? {
                EngineMessage::Hello(hello) => break *hello,
                EngineMessage::Fatal { message } => return Err(message),
                _ if start.elapsed() > timeout => return Err("it takes too long to load".into()),
                _ => {}
            }
        };
        let protocol = ProtocolRange::OURS;
        let answer = writer.write(&FrontMessage::Hello { protocol });
        answer.map_err(|error| error.to_string())?;
        Ok(Self {
            reader,
            writer,
            _engine: engine,
            hello,
            start_s: start.elapsed().as_secs_f64(),
            num_requests: 0,
        })
    }

    /// Asks for `max_tokens` greedy tokens after `ids`, whatever they are.
    pub(super) fn generate(
        &mut self,
        ids: Vec<TokenId>,
        max_tokens: usize,
    ) -> Result<RequestId, String> {
        let request_id = RequestId(self.num_requests);
        self.num_requests += 1;
        let generate = Generate {
            request_id,
            attempt: 0,
            ids,
            num_delivered: 0,
            sampling: SamplingParams::greedy(),
            stop: StopParams {
                max_tokens: u32::try_from(max_tokens).unwrap_or(u32::MAX),
                ignore_eos: true,
                ..StopParams::default()
            },
            priority: 0,
            deadline_ms: None,
            block_hash_keys: Vec::new(),
            prefill_only: false,
        };
        self.send(&FrontMessage::Generate(Box::new(generate)))?;
        Ok(request_id)
    }

    /// Ends a sequence.
    pub(super) fn cancel(&mut self, request_id: RequestId) -> Result<(), String> {
        self.send(&FrontMessage::Cancel { request_id })
    }

    /// The events of the next step that has any, and its number.
    pub(super) fn step(&mut self) -> Result<(u64, Vec<SequenceEvent>), String> {
        loop {
            match read(&mut self.reader)? {
                EngineMessage::Step { step, events } => return Ok((step, events)),
                EngineMessage::Rejected { reason, .. } => return Err(reason.to_string()),
                EngineMessage::Fatal { message } => return Err(message),
                _ => {}
            }
        }
    }

    fn send(&mut self, message: &FrontMessage) -> Result<(), String> {
        self.writer
            .write(message)
            .map_err(|error| error.to_string())
    }
}

fn read(reader: &mut FrameReader<UnixStream>) -> Result<EngineMessage, String> {
    match reader.read() {
        Ok(Some(message)) => Ok(message),
        Ok(None) => Err("the engine ended".to_owned()),
        Err(error) => Err(format!("the engine: {error}")),
    }
}
