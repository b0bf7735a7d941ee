//! The thread that writes the epoch file: an fsync may take seconds, or for ever.
//!
//! Invariant: writes happen one at a time, in the order in which they were asked for; one that
//! cannot be queued is answered as failed at once.

use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::JoinHandle;

use hotspare_failover::{EpochFile, Event, Ticket};
use tokio::sync::mpsc::Sender;

use crate::PairError;
use crate::epoch_file::EpochStore;
use crate::input::Input;

/// The machine has one write outstanding, and may give one up that the disk still holds.
const MAX_NUM_QUEUED_WRITES: usize = 2;

/// The driver's end of the thread.
pub(crate) struct DiskThread {
    jobs: SyncSender<(Ticket, EpochFile)>,
    thread: JoinHandle<()>,
}

impl DiskThread {
    pub(crate) fn start(mut store: EpochStore, inputs: Sender<Input>) -> Result<Self, PairError> {
        let (jobs, queue) = sync_channel::<(Ticket, EpochFile)>(MAX_NUM_QUEUED_WRITES);
        let thread = std::thread::Builder::new()
            .name("pair-disk".to_owned())
            .spawn(move || {
                for (ticket, file) in queue {
                    let result = store.store(file);
                    if let Err(error) = &result {
                        tracing::error!(%error, "the epoch file cannot be written");
                    }
                    let ok = result.is_ok();
                    let event = Event::Persisted { ticket, ok };
                    if inputs.blocking_send(Input::Event(event)).is_err() {
                        return;
                    }
                }
            })
            .map_err(PairError::Thread)?;
        Ok(Self { jobs, thread })
    }

    /// Asks for a write; `false`: it will not be done.
    pub(crate) fn write(&self, ticket: Ticket, file: EpochFile) -> bool {
        self.jobs.try_send((ticket, file)).is_ok()
    }

    /// Ends the thread when what is queued is done.
    pub(crate) fn join(self) {
        drop(self.jobs);
        // A thread that panicked has released what it held, too.
        let _panicked = self.thread.join();
    }
}
