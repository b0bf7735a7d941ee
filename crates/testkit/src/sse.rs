//! Reading server-sent events as they arrive.
//!
//! Invariant: an event is what stands between two blank lines; nothing is merged, split or dropped.

use std::io::{BufRead, BufReader, Read};

use serde_json::Value;

/// One event of a stream.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// `data: {…}`.
    Json(Value),
    /// `data: [DONE]`.
    Done,
    /// `: …`.
    Comment(String),
}

/// The events of a streamed answer.
pub struct SseStream {
    reader: BufReader<Box<dyn Read + Send>>,
}

impl SseStream {
    /// Reads events from an answer's body.
    pub fn new(body: Box<dyn Read + Send>) -> Self {
        Self {
            reader: BufReader::new(body),
        }
    }

    /// All JSON events until `[DONE]`.
    ///
    /// # Panics
    /// Where the stream ends without `[DONE]`.
    pub fn collect_json(self) -> Vec<Value> {
        let mut events = Vec::new();
        let mut done = false;
        for event in self {
            assert!(!done, "nothing follows [DONE], but {event:?} did");
            match event {
                Event::Json(value) => events.push(value),
                Event::Done => done = true,
                Event::Comment(_) => {}
            }
        }
        assert!(done, "the stream ended without [DONE] after {events:?}");
        events
    }
}

impl Iterator for SseStream {
    type Item = Event;

    fn next(&mut self) -> Option<Event> {
        let mut line = String::new();
        loop {
            line.clear();
            if self.reader.read_line(&mut line).ok()? == 0 {
                return None;
            }
            let text = line.trim_end_matches(['\r', '\n']);
            if text == "data: [DONE]" {
                return Some(Event::Done);
            } else if let Some(data) = text.strip_prefix("data: ") {
                let value = serde_json::from_str(data)
                    .unwrap_or_else(|e| panic!("an event is JSON ({e}): {data}"));
                return Some(Event::Json(value));
            } else if let Some(comment) = text.strip_prefix(':') {
                return Some(Event::Comment(comment.trim().to_owned()));
            }
            assert!(
                text.is_empty(),
                "not a line of server-sent events: {text:?}"
            );
        }
    }
}
