//! Forward passes at load in which nothing runs: a library plans its products, and decode steps are
//! captured as graphs, largest first.
//!
//! Invariant: a pass that fails costs a plan or a graph and a warning, never the engine, unless the
//! device itself is lost; nothing is allocated while capturing; when the last pass is over, graphs
//! hold no more than they may.

use std::collections::VecDeque;
use std::time::Instant;

use hotspare_model::ops::{OpsError, WarmUp};

use super::buckets::GraphKey;
use super::graphs::{MIN_GRAPH_BYTES, Mode};
use super::library::Use;
use super::state::CudaOps;
use crate::Device;

/// Captures that fail one after the other before the rest is left.
const MAX_FAILURES: usize = 3;

/// One pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pass {
    /// Of products of so many rows.
    Plan(usize),
    /// Of a decode step.
    Capture(GraphKey),
}

/// What is still to be done.
#[derive(Debug)]
pub(super) struct WarmUps {
    passes: VecDeque<Pass>,
    current: Option<Pass>,
    num_passes: usize,
    /// Captures that failed in a row.
    num_failures: usize,
    started: Instant,
    /// What was free before the first capture.
    free_bytes_before: Option<usize>,
    /// What graphs held when the current capture began.
    held_bytes_before: usize,
    /// What one capture took, at most.
    max_taken_bytes: usize,
    /// Graphs that were left out, or given back, because all hold what they may.
    num_left_out: usize,
}

impl<D: Device> CudaOps<D> {
    /// Whether a pass is under way, in which nothing runs.
    pub(super) fn is_warming_up(&self) -> bool {
        let warm_up = self.warm_up.as_ref();
        warm_up.is_some_and(|warm_up| warm_up.current.is_some())
    }

    /// Begins the next pass; `None` where there are no more.
    pub(super) fn next_pass(&mut self) -> Option<WarmUp> {
        if self.warm_up.is_none() {
            self.warm_up = Some(self.list_passes());
        }
        while let Some(pass) = self.warm_up.as_mut()?.passes.pop_front() {
            self.warm_up.as_mut()?.current = Some(pass);
            let has_begun = self.begin_pass(pass);
            let warm_up = self.warm_up.as_mut()?;
            if has_begun {
                return Some(WarmUp {
                    done: (warm_up.num_passes - warm_up.passes.len() - 1) as u64,
                    total: warm_up.num_passes as u64,
                });
            }
            warm_up.current = None;
        }
        self.report_graphs();
        None
    }

    fn list_passes(&self) -> WarmUps {
        let plans = self.library.buckets().into_iter().map(Pass::Plan);
        let mut keys = self.graph_budget.keys.clone();
        keys.sort_by(|a, b| b.cmp(a));
        let passes: VecDeque<Pass> = plans.chain(keys.into_iter().map(Pass::Capture)).collect();
        WarmUps {
            current: None,
            num_passes: passes.len(),
            passes,
            num_failures: 0,
            started: Instant::now(),
            free_bytes_before: None,
            held_bytes_before: 0,
            max_taken_bytes: 0,
            num_left_out: 0,
        }
    }

    pub(super) fn free_bytes(&self) -> usize {
        self.device.memory().map_or(0, |memory| memory.free_bytes)
    }

    fn begin_pass(&mut self, pass: Pass) -> bool {
        let Some(work) = self.work.take() else {
            return false;
        };
        let (num_rows, key) = match pass {
            Pass::Plan(num_rows) => (num_rows, None),
            Pass::Capture(key) => (key.num_rows, Some(key)),
        };
        let max_logits = work.shape.max_logits;
        let num_logits = key.map_or(num_rows.min(max_logits), |key| key.num_rows);
        self.step
            .take_padding([num_rows, num_logits], key, &work.shape, &mut self.blob);
        self.fault.clone_from(&self.death);
        self.lacks_memory = false;
        let begun = match pass {
            Pass::Plan(_) => {
                (self.mode, self.library.now) = (Mode::Planning, Use::Planning);
                true
            }
            Pass::Capture(key) => self.begin_capture(key),
        };
        if begun {
            self.resolve_tokens(&work);
        }
        self.work = Some(work);
        begun
    }

    fn begin_capture(&mut self, key: GraphKey) -> bool {
        let free_bytes = self.free_bytes();
        if free_bytes < MIN_GRAPH_BYTES {
            self.leave_graphs(&format!("{free_bytes} bytes are free"));
            return false;
        }
        if let Some(warm_up) = &mut self.warm_up {
            warm_up.free_bytes_before.get_or_insert(free_bytes);
        }
        if !self.make_room(key) {
            return false;
        }
        match self.device.begin_capture() {
            Ok(true) => {
                (self.mode, self.library.now) = (Mode::Capturing, Use::None);
                true
            }
            Ok(false) => {
                self.leave_graphs("the device captures nothing");
                false
            }
            Err(error) => {
                self.capture_failed(key, &error.to_string());
                false
            }
        }
    }

    /// What graphs hold, as far as it shows in what is free.
    fn held_bytes(&self) -> usize {
        let before = self.warm_up.as_ref().and_then(|w| w.free_bytes_before);
        before.map_or(0, |before| before.saturating_sub(self.free_bytes()))
    }

    /// Whether one more graph may be held, for which a less important one is given back if need be:
    /// the largest come first, and the most important last.
    fn make_room(&mut self, key: GraphKey) -> bool {
        let (held_bytes, max_bytes) = (self.held_bytes(), self.graph_budget.max_bytes);
        let Some(warm_up) = &mut self.warm_up else {
            return false;
        };
        warm_up.held_bytes_before = held_bytes;
        if held_bytes.saturating_add(warm_up.max_taken_bytes) <= max_bytes {
            return true;
        }
        warm_up.num_left_out += 1;
        let least = self.graphs.least_important();
        let Some(least) = least.filter(|least| least.importance() > key.importance()) else {
            return false;
        };
        self.graphs.remove(&mut self.device, least);
        let held_bytes = self.held_bytes();
        if let Some(warm_up) = &mut self.warm_up {
            warm_up.held_bytes_before = held_bytes;
        }
        true
    }

    /// After a capture: gives the least important graph back where all hold more than they may.
    fn stay_within(&mut self) {
        let held_bytes = self.held_bytes();
        let max_bytes = self.graph_budget.max_bytes;
        let Some(warm_up) = &mut self.warm_up else {
            return;
        };
        let taken = held_bytes.saturating_sub(warm_up.held_bytes_before);
        warm_up.max_taken_bytes = warm_up.max_taken_bytes.max(taken);
        if held_bytes <= max_bytes || taken == 0 {
            return;
        }
        warm_up.num_left_out += 1;
        if let Some(least) = self.graphs.least_important() {
            self.graphs.remove(&mut self.device, least);
        }
    }

    /// Ends a pass.
    ///
    /// # Errors
    /// The device is lost.
    pub(super) fn end_pass(&mut self) -> Result<(), OpsError> {
        let current = self.warm_up.as_mut().and_then(|w| w.current.take());
        let mode = std::mem::take(&mut self.mode);
        self.library.now = Use::None;
        self.step.clear();
        let fault = self.fault.take();
        match (current, mode) {
            (Some(Pass::Plan(_)), _) => self.end_planning(fault),
            (Some(Pass::Capture(key)), Mode::Capturing) => self.end_capture(key, fault)?,
            _ => {}
        }
        Ok(())
    }

    fn end_planning(&mut self, fault: Option<String>) {
        let is_plan = |pass: &Pass| matches!(pass, Pass::Plan(_));
        let passes = self.warm_up.as_mut().map(|warm_up| &mut warm_up.passes);
        match (fault, passes) {
            (Some(reason), passes) => {
                self.library.close(&reason);
                passes.into_iter().for_each(|p| p.retain(|p| !is_plan(p)));
            }
            (None, Some(passes)) if passes.iter().any(is_plan) => {}
            (None, _) => self.library.end_planning(),
        }
    }

    fn end_capture(&mut self, key: GraphKey, fault: Option<String>) -> Result<(), OpsError> {
        let failure = match (self.device.end_capture(), fault) {
            (Ok(graph), None) => {
                self.graphs.insert(key, graph);
                if let Some(warm_up) = &mut self.warm_up {
                    warm_up.num_failures = 0;
                }
                self.stay_within();
                return Ok(());
            }
            (Ok(graph), Some(reason)) => {
                // Half a step: never run.
                self.device.drop_graph(graph);
                reason
            }
            (Err(error), None) => error.to_string(),
            (Err(_), Some(reason)) => reason,
        };
        self.check_alive()?;
        self.capture_failed(key, &failure);
        Ok(())
    }

    fn capture_failed(&mut self, key: GraphKey, reason: &str) {
        let num_rows = key.num_rows;
        tracing::warn!(
            num_rows,
            reason,
            "decode steps of this size run without a graph"
        );
        let Some(warm_up) = &mut self.warm_up else {
            return;
        };
        warm_up.num_failures += 1;
        if warm_up.num_failures == MAX_FAILURES {
            self.leave_graphs("captures fail one after the other");
        }
    }

    /// Captures no more.
    fn leave_graphs(&mut self, reason: &str) {
        if let Some(warm_up) = &mut self.warm_up {
            let num_left = warm_up.passes.len();
            warm_up.passes.clear();
            let num_graphs = self.graphs.len();
            tracing::warn!(num_graphs, num_left, reason, "no more graphs are captured");
        }
    }

    fn report_graphs(&self) {
        let Some(warm_up) = &self.warm_up else {
            return;
        };
        if warm_up.num_left_out > 0 {
            tracing::warn!(
                num_graphs = self.graphs.len(),
                num_left_out = warm_up.num_left_out,
                max_bytes = self.graph_budget.max_bytes,
                "graphs take more memory than was seen before; the others run as single launches"
            );
        }
        if self.graphs.len() == 0 {
            return;
        }
        tracing::info!(
            num_graphs = self.graphs.len(),
            elapsed_ms = warm_up.started.elapsed().as_millis() as u64,
            device_bytes = self.held_bytes(),
            max_device_bytes = self.graph_budget.max_bytes,
            "decode steps are captured"
        );
    }
}
