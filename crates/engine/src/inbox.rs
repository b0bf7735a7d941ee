//! What the front sent and the engine has not looked at: a queue between two threads.
//!
//! It is bounded in messages and in bytes. When it is full the reader waits, the socket fills, and
//! the front feels it.
//!
//! Invariant: once it is closed, whoever takes from it hears of that before any message left.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hotspare_link::FrontMessage;

use crate::EngineError;

/// Why no more messages come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Closed {
    /// The socket ended or failed.
    FrontLost,
    /// What came was no message.
    Garbage(String),
    /// The engine ended by itself.
    Ended,
}

impl From<Closed> for EngineError {
    fn from(closed: Closed) -> Self {
        match closed {
            Closed::FrontLost | Closed::Ended => Self::FrontLost,
            Closed::Garbage(reason) => Self::Protocol(reason),
        }
    }
}

#[derive(Debug, Default)]
struct State {
    messages: VecDeque<FrontMessage>,
    num_bytes: usize,
    closed: Option<Closed>,
}

/// The queue.
#[derive(Debug)]
pub(crate) struct Inbox {
    state: Mutex<State>,
    changed: Condvar,
    max_num_messages: usize,
    max_bytes: usize,
}

impl Inbox {
    pub(crate) fn new(max_num_messages: usize, max_bytes: usize) -> Self {
        Self {
            state: Mutex::default(),
            changed: Condvar::new(),
            max_num_messages: max_num_messages.max(1),
            max_bytes,
        }
    }

    /// Adds a message, or gives it back where there is no room. An empty inbox takes any message.
    pub(crate) fn try_push(&self, message: FrontMessage) -> Result<(), FrontMessage> {
        let num_bytes = message_bytes(&message);
        let mut state = self.lock();
        let fits = state.messages.len() < self.max_num_messages
            && state.num_bytes + num_bytes <= self.max_bytes;
        if !fits && !state.messages.is_empty() {
            return Err(message);
        }
        state.num_bytes += num_bytes;
        state.messages.push_back(message);
        drop(state);
        self.changed.notify_all();
        Ok(())
    }

    /// No more will come. The first reason stays; returns whether this is it.
    pub(crate) fn close(&self, closed: Closed) -> bool {
        let mut state = self.lock();
        let is_first = state.closed.is_none();
        state.closed.get_or_insert(closed);
        drop(state);
        self.changed.notify_all();
        is_first
    }

    /// Moves at most `max_num_messages` to `out`.
    ///
    /// # Errors
    /// The inbox was closed.
    pub(crate) fn take(
        &self,
        max_num_messages: usize,
        out: &mut Vec<FrontMessage>,
    ) -> Result<(), EngineError> {
        let mut state = self.lock();
        if let Some(closed) = &state.closed {
            return Err(closed.clone().into());
        }
        let num_messages = state.messages.len().min(max_num_messages);
        let State {
            messages,
            num_bytes,
            ..
        } = &mut *state;
        for message in messages.drain(..num_messages) {
            *num_bytes -= message_bytes(&message);
            out.push(message);
        }
        Ok(())
    }

    /// Sleeps until there is a message, the inbox was closed, or `timeout` has passed.
    pub(crate) fn wait(&self, timeout: Option<Duration>) {
        let state = self.lock();
        let is_idle = |state: &mut State| state.messages.is_empty() && state.closed.is_none();
        match timeout {
            Some(timeout) => drop(self.changed.wait_timeout_while(state, timeout, is_idle)),
            None => drop(self.changed.wait_while(state, is_idle)),
        }
    }

    /// Sleeps until the inbox was closed, whatever comes.
    pub(crate) fn wait_closed(&self) -> EngineError {
        let state = self.lock();
        let is_open = |state: &mut State| state.closed.is_none();
        let state = self.changed.wait_while(state, is_open);
        let state = state.unwrap_or_else(PoisonError::into_inner);
        state.closed.clone().unwrap_or(Closed::FrontLost).into()
    }

    /// A panic of another thread leaves the queue whole: each change to it is one statement.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Memory of a message, roughly: what its lists hold and a fixed part.
fn message_bytes(message: &FrontMessage) -> usize {
    const FIXED: usize = 512;
    match message {
        FrontMessage::Generate(generate) => {
            let sampling = &generate.sampling;
            let stop = &generate.stop;
            let num_ids = generate.ids.len()
                + 2 * sampling.logit_bias.len()
                + sampling.allowed_token_ids.len()
                + stop.eos_token_ids.len()
                + stop.stop_token_ids.len()
                + 2 * generate.block_hash_keys.len();
            FIXED + 4 * num_ids
        }
        _ => FIXED,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::thread;

    use super::*;

    fn ping(nonce: u64) -> FrontMessage {
        FrontMessage::Ping { nonce }
    }

    #[test]
    fn it_is_bounded_in_messages_and_in_bytes() {
        let by_count = Inbox::new(2, usize::MAX);
        assert_eq!(by_count.try_push(ping(1)), Ok(()));
        assert_eq!(by_count.try_push(ping(2)), Ok(()));
        assert_eq!(by_count.try_push(ping(3)), Err(ping(3)));
        let mut out = Vec::new();
        by_count.take(1, &mut out).unwrap();
        assert_eq!(out, [ping(1)]);
        assert_eq!(by_count.try_push(ping(3)), Ok(()));

        let by_bytes = Inbox::new(100, 600);
        assert_eq!(by_bytes.try_push(ping(1)), Ok(()));
        assert_eq!(by_bytes.try_push(ping(2)), Err(ping(2)));
        out.clear();
        by_bytes.take(9, &mut out).unwrap();
        assert_eq!(by_bytes.try_push(ping(2)), Ok(()));
        let tiny = Inbox::new(1, 1);
        assert_eq!(tiny.try_push(ping(1)), Ok(()), "one message always fits");
    }

    #[test]
    fn closing_comes_before_what_is_left() {
        let inbox = Inbox::new(4, 1 << 20);
        inbox.try_push(ping(1)).unwrap();
        assert!(inbox.close(Closed::Garbage("noise".to_owned())));
        assert!(!inbox.close(Closed::FrontLost));
        let mut out = Vec::new();
        let error = inbox.take(4, &mut out).unwrap_err();
        assert_eq!(error.to_string(), "the front broke the protocol: noise");
        assert_eq!(out, []);
    }

    #[test]
    fn waiting_ends_with_a_message_a_timeout_or_the_end() {
        let inbox = Arc::new(Inbox::new(4, 1 << 20));
        inbox.wait(Some(Duration::from_millis(1)));
        let other = Arc::clone(&inbox);
        let pusher = thread::spawn(move || other.try_push(ping(1)));
        inbox.wait(None);
        assert_eq!(pusher.join().unwrap(), Ok(()));
        let other = Arc::clone(&inbox);
        let closer = thread::spawn(move || other.close(Closed::FrontLost));
        assert!(matches!(inbox.wait_closed(), EngineError::FrontLost));
        assert!(closer.join().unwrap());
        inbox.wait(None);
    }
}
