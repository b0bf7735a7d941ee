//! [`CudaOps`]: what it has, and how launches, steps and results pass through it.
//!
//! A batch that breaks a bound is a fault of the step: until the next `begin` every operation is
//! then empty, and sampling reports it. So it is where the driver has no memory left: graphs are
//! then given back, and the step can be tried again. A failure of the device is for ever.
//!
//! Invariant: buffers are resized in every mode as if each operation ran, so that a replayed step
//! leaves the same state as one of single launches.

use std::collections::VecDeque;
use std::time::Instant;

use hotspare_batch::{Batch, RowOutput, StepTimings};
use hotspare_model::ops::OpsError;

use super::blob::Blob;
use super::buffer::CudaBuffer;
use super::graph_budget::GraphBudget;
use super::graphs::{Graphs, Mode};
use super::layers::Layers;
use super::library::{Library, Use};
use super::memory::device_error;
use super::moe::MoeSpace;
use super::results::{Awaited, parts};
use super::sampling::Sampling;
use super::space::Space;
use super::step::Step;
use super::warm_up::WarmUps;
use super::work::Work;
use crate::kernels::ResolveTokens;
use crate::{CudaOptions, Device, Dtype, LaunchError};

/// The CUDA backend over a device.
#[derive(Debug)]
pub struct CudaOps<D: Device> {
    pub(super) device: D,
    pub(super) options: CudaOptions,
    /// Before anything was allocated.
    pub(super) free_bytes_at_start: usize,
    /// Where weights are widened.
    pub(super) space: Option<Space>,
    pub(super) layers: Layers,
    pub(super) moe_space: MoeSpace,
    pub(super) vocab_size: usize,
    pub(super) max_logits: usize,
    pub(super) kv_dtype: Dtype,
    /// Allocated last, before the KV cache.
    pub(super) work: Option<Work>,
    pub(super) step: Step,
    pub(super) blob: Blob,
    awaited: VecDeque<Awaited>,
    pub(super) library: Library,
    pub(super) graphs: Graphs,
    /// What graphs may take; known once workspaces are there.
    pub(super) graph_budget: GraphBudget,
    /// Launches of a decode step, about, as the layers and weights that were loaded have them.
    pub(super) num_step_launches: usize,
    /// Whether decode steps have no graphs: they were given back.
    gave_graphs_back: bool,
    /// What is done at load; `None` before.
    pub(super) warm_up: Option<WarmUps>,
    pub(super) mode: Mode,
    /// Whether launches are timed, and therefore made one by one.
    pub(super) is_profiled: bool,
    pub(super) fault: Option<String>,
    /// Whether `fault` is that the driver has no memory left.
    pub(super) lacks_memory: bool,
    /// The device's own failure: it cannot be used again.
    pub(super) death: Option<String>,
    pub(super) timings: StepTimings,
    step_start: Option<Instant>,
}

impl<D: Device> CudaOps<D> {
    /// A backend on `device`, whose memory is measured now.
    ///
    /// # Errors
    /// What the device says.
    pub fn new(mut device: D, options: CudaOptions) -> Result<Self, OpsError> {
        let memory = device.memory().map_err(|error| device_error(&error))?;
        Ok(Self {
            free_bytes_at_start: memory.free_bytes,
            library: Library::open(&mut device, &options),
            device,
            space: None,
            layers: Layers::default(),
            moe_space: MoeSpace::default(),
            vocab_size: 0,
            max_logits: options.limits.max_num_seqs.max(1),
            kv_dtype: Dtype::F16,
            options,
            work: None,
            step: Step::default(),
            blob: Blob::default(),
            awaited: VecDeque::new(),
            graphs: Graphs::default(),
            graph_budget: GraphBudget::default(),
            num_step_launches: 0,
            gave_graphs_back: false,
            warm_up: None,
            mode: Mode::Single,
            is_profiled: false,
            fault: None,
            lacks_memory: false,
            death: None,
            timings: StepTimings::default(),
            step_start: None,
        })
    }

    /// The device, for logs and tests.
    pub fn device(&self) -> &D {
        &self.device
    }

    pub(super) fn fail(&mut self, what: impl Into<String>) {
        self.fault.get_or_insert_with(|| what.into());
        self.step.clear();
    }

    fn fail_with(&mut self, error: &LaunchError) {
        match error {
            LaunchError::Misuse(_) => {}
            LaunchError::OutOfMemory { .. } => self.lacks_memory = true,
            // Nothing runs: whether the device is lost, the end of the pass finds out.
            _ if self.is_warming_up() => {}
            _ => {
                self.death.get_or_insert_with(|| error.to_string());
            }
        }
        self.fail(error.to_string());
    }

    /// Whether operations do anything.
    pub(super) fn is_well(&self) -> bool {
        self.fault.is_none()
    }

    /// Queues what `launch` queues, unless the step failed, is to be replayed or only planned.
    pub(super) fn run(&mut self, launch: impl FnOnce(&mut D) -> Result<(), LaunchError>) {
        if self.mode != Mode::Planning {
            self.run_or_plan(|device, _| launch(device));
        }
    }

    /// As `run`, and also where only the library's products are planned.
    pub(super) fn run_or_plan(
        &mut self,
        launch: impl FnOnce(&mut D, &mut Library) -> Result<(), LaunchError>,
    ) {
        if self.fault.is_some() || matches!(self.mode, Mode::Replaying(_)) {
            return;
        }
        if let Err(error) = launch(&mut self.device, &mut self.library) {
            self.fail_with(&error);
        }
    }

    /// Whether decode steps are padded to the sizes that graphs have.
    pub(super) fn pads_for_graphs(&self) -> bool {
        self.options.uses_graphs && !self.gave_graphs_back
    }

    /// Frees what the driver keeps for graphs; decode steps run as single launches from now on.
    fn give_graphs_back(&mut self, reason: &str) {
        self.gave_graphs_back = true;
        let num_graphs = self.graphs.give_back(&mut self.device);
        tracing::warn!(
            reason,
            num_graphs,
            "the device ran out of memory in a step; decode steps run without graphs from now on"
        );
    }

    /// Puts `num_rows` rows of `out` in use; `false` where the step failed or fails by it.
    pub(super) fn resize(
        &mut self,
        what: &'static str,
        fits: bool,
        num_rows: usize,
        out: &mut CudaBuffer,
    ) -> bool {
        if self.fault.is_some() || !fits {
            self.fail(format!("{what}: widths do not fit"));
            let _ = out.resize(0);
            return false;
        }
        if !out.resize(num_rows) {
            self.fail(format!("{what}: more rows than its buffer holds"));
            return false;
        }
        true
    }

    /// Starts a step.
    pub(super) fn begin_step(&mut self, batch: &Batch) {
        self.step_start = Some(Instant::now());
        self.fault.clone_from(&self.death);
        self.lacks_memory = false;
        self.mode = Mode::Single;
        self.library.now = Use::None;
        self.step.clear();
        if self.fault.is_some() {
            return;
        }
        let Some(mut work) = self.work.take() else {
            return self.fail("a step before the KV cache was allocated");
        };
        let started = self.start_step(&mut work, batch);
        self.work = Some(work);
        match started {
            Err(StepError::Batch(what)) => self.fail(what),
            Err(StepError::Device(error)) => self.fail_with(&error),
            Ok(()) => {}
        }
    }

    fn start_step(&mut self, work: &mut Work, batch: &Batch) -> Result<(), StepError> {
        for init in &batch.slot_inits {
            if init.slot as usize >= work.slots.len() {
                let what = format!("slot {} does not exist", init.slot);
                return Err(StepError::Batch(what));
            }
            work.slots
                .reset(&mut self.device, work.upload_bytes, init)?;
        }
        let pads = self.pads_for_graphs();
        let (shape, slots) = (&work.shape, &work.slots);
        let taken = self.step.take(batch, shape, slots, pads, &mut self.blob);
        taken.map_err(StepError::Batch)?;
        self.step.place_tops(work.results.max_tops);
        self.step.pack_entries(&mut self.blob);
        if self.blob.bytes().len() > work.blob_bytes {
            let num_bytes = self.blob.bytes().len();
            return Err(StepError::Batch(format!("a step of {num_bytes} bytes")));
        }
        self.device.upload(work.blob_at, self.blob.bytes())?;
        let (rows, masks) = (&batch.rows, &batch.token_masks);
        work.slots
            .put_masks(&mut self.device, work.upload_bytes, rows, masks)?;
        if let Some(key) = self.step.key
            && !self.is_profiled
        {
            self.mode = self.graphs.mode(key);
        }
        if !self.step.is_decode {
            self.library.now = Use::Products;
        }
        if self.step.has_device_tokens || self.step.key.is_some() {
            self.resolve_tokens(work);
        }
        Ok(())
    }

    /// Puts tokens that slots drew in their places.
    pub(super) fn resolve_tokens(&mut self, work: &Work) {
        let args = ResolveTokens {
            token_ids: self.step.ids_part.at(work.blob_at),
            from_slots: self.step.from_slots_part.at(work.blob_at),
            last_tokens: work.slots.last_tokens,
            num_tokens: self.step.num_padded as u32,
            unused: 0,
        };
        self.run(|device| args.launch(device));
    }

    /// Ends the part of a step that a graph holds.
    pub(super) fn end_launches(&mut self) -> Result<(), LaunchError> {
        match std::mem::take(&mut self.mode) {
            Mode::Replaying(graph) if self.fault.is_none() => self.device.replay(graph),
            _ => Ok(()),
        }
    }

    /// Queues sampling and the copy of its results.
    pub(super) fn queue_sample(&mut self, logits: &mut CudaBuffer) -> Result<(), OpsError> {
        if let Err(error) = self.end_launches() {
            self.fail_with(&error);
        }
        if self.fault.is_none() && logits.rows.num_rows != self.step.num_logits {
            self.fail("sample: not a row of logits for each one needed");
        }
        if let Some(what) = self.fault.clone() {
            return Err(self.failure(what));
        }
        let Some(work) = &self.work else {
            return Err(OpsError::Device("no step was begun".to_owned()));
        };
        let step = &self.step;
        let tops = step.entries.iter().map(|entry| entry.num_top as usize);
        let parts = parts(step.sampled.len(), step.entries.len(), tops.sum());
        let sampling = |slot| work.slots.sampling(slot);
        let refusal = |slot| work.slots.refusal(slot);
        let mut awaited = Awaited::new(
            step,
            parts,
            |row| refusal(row.slot).filter(|_| row.samples),
            |row| sampling(row.slot).num_logprobs.is_some(),
        );
        let mut sampling = Sampling {
            device: &mut self.device,
            library: &mut self.library,
            space: self.space,
            work,
            step,
            parts,
        };
        let queued = sampling.queue(logits).and_then(|()| {
            let has_results = parts.end > 0;
            has_results
                .then(|| sampling.device.start_read(work.results_at, parts.end))
                .transpose()
        });
        match queued {
            Ok(ticket) => awaited.ticket = ticket,
            Err(error @ LaunchError::OutOfMemory { .. }) => {
                // Some rows may have drawn: the step cannot be tried again.
                awaited.refuse();
                self.give_graphs_back(&error.to_string());
            }
            Err(error) => {
                self.fail_with(&error);
                return Err(device_error(&error));
            }
        }
        self.set_drawn();
        self.awaited.push_back(awaited);
        if let Some(start) = self.step_start.take() {
            self.timings.total_ns += start.elapsed().as_nanos() as u64;
        }
        Ok(())
    }

    /// A step's failure before anything was drawn.
    fn failure(&mut self, what: String) -> OpsError {
        if !self.lacks_memory {
            return OpsError::Device(what);
        }
        self.give_graphs_back(&what);
        self.library.give_up(&what);
        OpsError::OutOfMemory {
            what: "a step",
            needed_bytes: 0,
            reason: what,
        }
    }

    /// From now on the last token of each row that samples is the device's.
    fn set_drawn(&mut self) {
        if let Some(work) = &mut self.work {
            for row in self.step.rows.iter().filter(|row| row.samples) {
                work.slots.set_drawn(row.slot);
            }
        }
    }

    /// Waits for the results of the oldest step.
    pub(super) fn fetch_sample(&mut self) -> Result<Vec<RowOutput>, OpsError> {
        let mut awaited = self
            .awaited
            .pop_front()
            .ok_or_else(|| OpsError::Device("no step is under way".to_owned()))?;
        let mut bytes = vec![0; awaited.parts.end];
        if let Some(ticket) = awaited.ticket.take() {
            match self.device.finish_read(ticket, &mut bytes) {
                Ok(()) => {}
                Err(LaunchError::OutOfMemory { .. }) => awaited.refuse(),
                Err(error) => {
                    self.fail_with(&error);
                    return Err(device_error(&error));
                }
            }
        }
        Ok(awaited.outputs(&bytes))
    }
}

/// Why a step cannot start.
enum StepError {
    Batch(String),
    Device(LaunchError),
}

impl From<LaunchError> for StepError {
    fn from(error: LaunchError) -> Self {
        Self::Device(error)
    }
}
