//! How a signal ends the demo: its nodes are killed, so that whatever waits for them gives up, and
//! all is put away as at any other end.
//!
//! Invariant: a node that is started after the signal is killed at once; a process id that was
//! given back is never signalled.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};

use rustix::process::{Pid, Signal, kill_process};

use crate::signals::{Received, Signals};

/// See the module. Clones are one.
#[derive(Clone, Default)]
pub(crate) struct Ending(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    received: Option<Received>,
    children: Vec<u32>,
}

impl Ending {
    /// Listens for SIGTERM and SIGINT from now on. A second one ends the process at once.
    ///
    /// # Errors
    /// The system gives no thread, or lets nobody listen.
    pub(crate) fn watch() -> io::Result<Self> {
        let ending = Self::default();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .enable_time()
            .build()?;
        let (told, is_listening) = mpsc::channel();
        let of_thread = ending.clone();
        std::thread::Builder::new()
            .name("signals".to_owned())
            .spawn(move || {
                runtime.block_on(async move {
                    let mut signals = match Signals::listen() {
                        Ok(signals) => signals,
                        Err(error) => return drop(told.send(Err(error))),
                    };
                    drop(told.send(Ok(())));
                    of_thread.strike(signals.next().await);
                    let again = signals.next_after_echo().await;
                    std::process::exit(again.exit_status);
                });
            })?;
        is_listening
            .recv()
            .unwrap_or_else(|_| Err(io::Error::other("the thread for signals ended")))?;
        Ok(ending)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn strike(&self, received: Received) {
        let mut state = self.state();
        state.received = Some(received);
        for child in state.children.drain(..) {
            kill(child);
        }
    }

    /// The signal that came.
    pub(crate) fn received(&self) -> Option<Received> {
        self.state().received
    }

    /// An error once a signal has come.
    pub(crate) fn check(&self) -> Result<(), String> {
        match self.received() {
            None => Ok(()),
            Some(received) => Err(received.to_string()),
        }
    }

    /// A child that a signal shall end.
    pub(crate) fn add(&self, child: u32) {
        let mut state = self.state();
        match state.received {
            None => state.children.push(child),
            Some(_) => kill(child),
        }
    }

    /// A child that is about to be waited for, and whose number may be another's then.
    pub(crate) fn forget(&self, child: u32) {
        self.state().children.retain(|known| *known != child);
    }
}

fn kill(child: u32) {
    let pid = i32::try_from(child).ok().and_then(Pid::from_raw);
    // One that has ended already is what was wanted.
    let _ = pid.map(|pid| kill_process(pid, Signal::KILL));
}
