//! Pinned memory through which a step's few bytes travel while the card works.
//!
//! Invariant: a slot is written again only after the event behind its last copy has passed.

use cudarc::driver::result::{self, DriverError};
use cudarc::driver::sys;

use crate::{MAX_READS_IN_FLIGHT, ReadTicket};

/// Pinned memory and the event that follows its last copy.
struct Slot {
    memory: *mut u8,
    capacity: usize,
    event: sys::CUevent,
    is_queued: bool,
    /// Of a read that was not finished: its ticket and length.
    read: Option<(u64, usize)>,
}

impl Slot {
    fn new(capacity: usize) -> Result<Self, DriverError> {
        let event = result::event::create(sys::CUevent_flags_enum::CU_EVENT_DISABLE_TIMING)?;
        // SAFETY: freed in `Drop`; the length is above zero.
        let memory = match unsafe { result::malloc_host(capacity.max(1), 0) } {
            Ok(memory) => memory.cast::<u8>(),
            Err(error) => {
                // SAFETY: made above; its failure changes nothing.
                let _ = unsafe { result::event::destroy(event) };
                return Err(error);
            }
        };
        Ok(Self {
            memory,
            capacity,
            event,
            is_queued: false,
            read: None,
        })
    }

    /// Waits until its last copy is over.
    fn wait(&mut self) -> Result<(), DriverError> {
        if std::mem::take(&mut self.is_queued) {
            // SAFETY: the event is this slot's own.
            unsafe { result::event::synchronize(self.event)? };
        }
        Ok(())
    }

    fn mark(&mut self, stream: sys::CUstream) -> Result<(), DriverError> {
        // SAFETY: event and stream are the card's own and live.
        unsafe { result::event::record(self.event, stream)? };
        self.is_queued = true;
        Ok(())
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        // SAFETY: both are this slot's own; after a fault the driver refuses, and nothing is left
        // to do about it.
        unsafe {
            let _ = result::event::destroy(self.event);
            let _ = result::free_host(self.memory.cast());
        }
    }
}

/// The slots of uploads and of reads.
pub(super) struct Staging {
    uploads: Vec<Slot>,
    reads: Vec<Slot>,
    next_upload: usize,
    next_ticket: u64,
}

/// Either side's mistake, or the driver's word.
pub(super) enum StagingError {
    Misuse(String),
    Driver(&'static str, DriverError),
}

fn at(call: &'static str) -> impl FnOnce(DriverError) -> StagingError {
    move |error| StagingError::Driver(call, error)
}

impl Staging {
    pub(super) fn new(upload_bytes: usize, read_bytes: usize) -> Result<Self, DriverError> {
        let slots = |bytes: usize| {
            let slots = (0..MAX_READS_IN_FLIGHT).map(|_| Slot::new(bytes));
            slots.collect::<Result<Vec<Slot>, DriverError>>()
        };
        Ok(Self {
            uploads: slots(upload_bytes)?,
            reads: slots(read_bytes)?,
            next_upload: 0,
            next_ticket: 0,
        })
    }

    /// Queues a copy of `bytes` to `to`, which has room for them.
    pub(super) fn upload(
        &mut self,
        stream: sys::CUstream,
        to: u64,
        bytes: &[u8],
    ) -> Result<(), StagingError> {
        let slot = &mut self.uploads[self.next_upload];
        if bytes.len() > slot.capacity {
            return Err(StagingError::Misuse(format!(
                "an upload of {} bytes; {} were reserved",
                bytes.len(),
                slot.capacity
            )));
        }
        slot.wait().map_err(at("cuEventSynchronize"))?;
        // SAFETY: the slot is at least as long, pinned, and no copy from it is under way.
        let pinned = unsafe {
            slot.memory
                .copy_from_nonoverlapping(bytes.as_ptr(), bytes.len());
            std::slice::from_raw_parts(slot.memory, bytes.len())
        };
        // SAFETY: the card has room there, says the caller; the slot is not written before its
        // event has passed.
        unsafe { result::memcpy_htod_async(to, pinned, stream) }
            .map_err(at("cuMemcpyHtoDAsync"))?;
        slot.mark(stream).map_err(at("cuEventRecord"))?;
        self.next_upload = (self.next_upload + 1) % self.uploads.len();
        Ok(())
    }

    /// Queues a copy of `num_bytes` from `from`, where there are so many.
    pub(super) fn start_read(
        &mut self,
        stream: sys::CUstream,
        from: u64,
        num_bytes: usize,
    ) -> Result<ReadTicket, StagingError> {
        let Some(slot) = self.reads.iter_mut().find(|slot| slot.read.is_none()) else {
            return Err(StagingError::Misuse(format!(
                "more than {MAX_READS_IN_FLIGHT} reads that were not finished"
            )));
        };
        if num_bytes > slot.capacity {
            return Err(StagingError::Misuse(format!(
                "a read of {num_bytes} bytes; {} were reserved",
                slot.capacity
            )));
        }
        // SAFETY: the slot is as long, and nobody looks at it before its event has passed.
        let pinned = unsafe {
            slot.memory.write_bytes(0, num_bytes);
            std::slice::from_raw_parts_mut(slot.memory, num_bytes)
        };
        // SAFETY: so many bytes are there, says the caller.
        unsafe { result::memcpy_dtoh_async(pinned, from, stream) }
            .map_err(at("cuMemcpyDtoHAsync"))?;
        slot.mark(stream).map_err(at("cuEventRecord"))?;
        self.next_ticket += 1;
        slot.read = Some((self.next_ticket, num_bytes));
        Ok(ReadTicket(self.next_ticket))
    }

    /// Waits for a read and copies its bytes.
    pub(super) fn finish_read(
        &mut self,
        ticket: &ReadTicket,
        bytes: &mut [u8],
    ) -> Result<(), StagingError> {
        let key = (ticket.0, bytes.len());
        let slot = self.reads.iter_mut().find(|slot| slot.read == Some(key));
        let Some(slot) = slot else {
            return Err(StagingError::Misuse(format!(
                "{ticket:?} of {} bytes is no read that was started",
                bytes.len()
            )));
        };
        slot.read = None;
        slot.wait().map_err(at("cuEventSynchronize"))?;
        // SAFETY: the copy to the slot is over, and wrote as many bytes.
        let pinned = unsafe { std::slice::from_raw_parts(slot.memory, bytes.len()) };
        bytes.copy_from_slice(pinned);
        Ok(())
    }
}
