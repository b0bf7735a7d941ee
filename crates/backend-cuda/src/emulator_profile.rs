//! Times of the emulator's launches, by the host's clock.
//!
//! Invariant: as on a card, nothing is timed unless it was asked for, and no more launches than
//! there was room for.

use std::time::Instant;

use crate::emulator::Emulator;
use crate::launch::LaunchError;
use crate::profile::{LaunchTime, Operation};

/// A profile under way.
#[derive(Debug)]
pub(crate) struct EmulatedProfile {
    max_num_launches: usize,
    times: Vec<LaunchTime>,
    num_missed: usize,
}

impl EmulatedProfile {
    pub(crate) fn new(max_num_launches: usize) -> Self {
        Self {
            max_num_launches,
            times: Vec::new(),
            num_missed: 0,
        }
    }

    /// The times.
    ///
    /// # Errors
    /// Not all were taken.
    pub(crate) fn end(self) -> Result<Vec<LaunchTime>, LaunchError> {
        match self.num_missed {
            0 => Ok(self.times),
            missed => Err(LaunchError::Misuse(format!(
                "{missed} launches more than the {} that were to be timed",
                self.max_num_launches
            ))),
        }
    }
}

impl Emulator {
    /// Runs `run`, and takes its time where a profile is under way.
    pub(crate) fn timed<T>(
        &mut self,
        operation: impl FnOnce() -> Operation,
        run: impl FnOnce(&mut Self) -> Result<T, LaunchError>,
    ) -> Result<T, LaunchError> {
        let start = self.profile.is_some().then(Instant::now);
        let result = run(self)?;
        if let (Some(start), Some(profile)) = (start, &mut self.profile) {
            let us = start.elapsed().as_secs_f64() * 1e6;
            match profile.times.len() < profile.max_num_launches {
                true => profile.times.push(LaunchTime {
                    operation: operation(),
                    us,
                }),
                false => profile.num_missed += 1,
            }
        }
        Ok(result)
    }
}
