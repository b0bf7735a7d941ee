//! Device time of each launch: an event before and one behind it, on the stream.
//!
//! The host queues ahead of the card, so that what lies between two events is the launch and not
//! the way to it; of a kernel of a few microseconds the events are a part.
//!
//! Invariant: events are made before the first launch that they time, and their number is bounded;
//! nothing is timed while a graph is captured.

use std::ptr;

use cudarc::driver::result::{self, DriverError};
use cudarc::driver::sys;

use super::Card;
use crate::LaunchError;
use crate::profile::{LaunchTime, Operation};

/// Launches that are timed.
pub(super) struct Profile {
    /// Before and behind each launch.
    events: Vec<[sys::CUevent; 2]>,
    /// Of those that were queued.
    operations: Vec<Operation>,
    num_missed: usize,
}

impl Profile {
    fn new(max_num_launches: usize) -> Result<Self, DriverError> {
        let mut profile = Self {
            events: Vec::with_capacity(max_num_launches),
            operations: Vec::with_capacity(max_num_launches),
            num_missed: 0,
        };
        for _ in 0..max_num_launches {
            profile.events.push([ptr::null_mut(); 2]);
            if let Some(pair) = profile.events.last_mut() {
                for event in pair {
                    *event = result::event::create(sys::CUevent_flags_enum::CU_EVENT_DEFAULT)?;
                }
            }
        }
        Ok(profile)
    }

    /// Records the event before (0) or behind (1) the next launch, where there is one left.
    fn record(&mut self, which: usize, stream: sys::CUstream) -> Result<(), DriverError> {
        match self.events.get(self.operations.len()) {
            // SAFETY: event and stream are the card's own and live.
            Some(pair) => unsafe { result::event::record(pair[which], stream) },
            None => Ok(()),
        }
    }

    /// The launch between the last two events was of `operation`.
    fn push(&mut self, operation: Operation) {
        match self.operations.len() < self.events.len() {
            true => self.operations.push(operation),
            false => self.num_missed += 1,
        }
    }

    /// What each launch took; all are over.
    fn times(&self) -> Result<Vec<LaunchTime>, DriverError> {
        let pairs = self.operations.iter().zip(&self.events);
        let times = pairs.map(|(&operation, &[before, behind])| {
            // SAFETY: both events were recorded, says the length of `operations`, and live.
            let ms = unsafe { result::event::elapsed(before, behind)? };
            let us = f64::from(ms) * 1e3;
            Ok(LaunchTime { operation, us })
        });
        times.collect()
    }
}

impl Drop for Profile {
    fn drop(&mut self) {
        for event in self.events.drain(..).flatten().filter(|e| !e.is_null()) {
            // SAFETY: made in `new` and dropped once; after a fault the driver refuses, and nothing
            // is left to do about it.
            let _ = unsafe { result::event::destroy(event) };
        }
    }
}

impl Card {
    /// Queues what `queue` queues, between two events where a profile is under way.
    pub(super) fn timed<T>(
        &mut self,
        operation: impl FnOnce() -> Operation,
        queue: impl FnOnce(&mut Self) -> Result<T, LaunchError>,
    ) -> Result<T, LaunchError> {
        if self.profile.is_none() {
            return queue(self);
        }
        self.record(0)?;
        let queued = queue(self)?;
        self.record(1)?;
        if let Some(profile) = &mut self.profile {
            profile.push(operation());
        }
        Ok(queued)
    }

    fn record(&mut self, which: usize) -> Result<(), LaunchError> {
        self.begin("timing")?;
        let stream = self.stream;
        let recorded = self.profile.as_mut().map(|p| p.record(which, stream));
        let recorded = recorded.unwrap_or(Ok(()));
        recorded.map_err(|error| self.failed("cuEventRecord", error))
    }

    pub(super) fn start_profile(&mut self, max_num_launches: usize) -> Result<bool, LaunchError> {
        self.begin("begin_profile")?;
        if self.profile.is_some() {
            return Err(LaunchError::Misuse("timing already".to_owned()));
        }
        let profile = Profile::new(max_num_launches);
        self.profile = Some(profile.map_err(|error| self.failed("cuEventCreate", error))?);
        Ok(true)
    }

    pub(super) fn finish_profile(&mut self) -> Result<Vec<LaunchTime>, LaunchError> {
        let profile = self.profile.take();
        let profile = profile.ok_or_else(|| LaunchError::Misuse("timing nothing".to_owned()))?;
        self.synchronize()?;
        if profile.num_missed > 0 {
            return Err(LaunchError::Misuse(format!(
                "{} launches more than the {} that were to be timed",
                profile.num_missed,
                profile.events.len()
            )));
        }
        let times = profile.times();
        times.map_err(|error| self.failed("cuEventElapsedTime", error))
    }
}
