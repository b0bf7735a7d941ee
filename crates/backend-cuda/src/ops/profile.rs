//! Steps whose launches are timed one by one.
//!
//! Invariant: a step that is timed makes the launches that its graph would replay.

use hotspare_model::ops::OpsError;

use super::graph_budget::NUM_OTHER_LAUNCHES;
use super::memory::device_error;
use super::state::CudaOps;
use crate::Device;
use crate::profile::LaunchTime;

/// Launches that a step makes at most for each that a decode step has: chunks of prompts widen
/// quantized weights first.
const MAX_LAUNCHES_TIMES: usize = 3;

impl<D: Device> CudaOps<D> {
    /// Times the launches of the next `num_steps` steps, which run as single launches; `false`
    /// where the device cannot.
    ///
    /// # Errors
    /// What the device says.
    pub fn begin_profile(&mut self, num_steps: usize) -> Result<bool, OpsError> {
        let per_step = MAX_LAUNCHES_TIMES * (self.num_step_launches + NUM_OTHER_LAUNCHES);
        let begun = self.device.begin_profile(num_steps * per_step);
        self.is_profiled = begun.map_err(|error| device_error(&error))?;
        Ok(self.is_profiled)
    }

    /// What they took, in order, the draw of tokens included.
    ///
    /// # Errors
    /// None were timed, or more than there was room for; what the device says.
    pub fn end_profile(&mut self) -> Result<Vec<LaunchTime>, OpsError> {
        self.is_profiled = false;
        let times = self.device.end_profile();
        times.map_err(|error| device_error(&error))
    }
}
