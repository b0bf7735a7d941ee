//! What graphs may take of the card's memory: planned before the KV cache gets the rest.
//!
//! The driver says nowhere what a graph takes, and takes memory for them in large pieces. So a few
//! graphs of as many launches as a decode step has are captured first, what is free before and
//! after is compared, and they are given back. Nothing of them runs.
//!
//! Invariant: no more graphs are planned than their bound and what they were seen to take allow;
//! where there is not room for all, those of short contexts and few rows are.

use hotspare_model::ops::OpsError;

use super::buckets::{GraphKey, graph_keys};
use super::graphs::MAX_GRAPHS;
use super::memory::device_error;
use super::state::CudaOps;
use crate::kernels::ResolveTokens;
use crate::{Device, KvBudget, LaunchError};

/// Graphs that are captured to see what they take: enough that what is too little for a piece of
/// memory of its own shows in their sum.
pub(super) const NUM_SAMPLES: usize = 16;
/// Pieces in which drivers take memory, as far as is known: what was taken may be this much more or
/// less than what is held.
const CHUNK_BYTES: usize = 2 << 20;
/// Launches of a decode step beside those of layers and weights: ids, embedding, gathered rows and
/// the output matrix where it is the embedding's.
pub(super) const NUM_OTHER_LAUNCHES: usize = 6;

/// What is planned.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct GraphBudget {
    /// Sizes to capture, the most important first.
    pub(super) keys: Vec<GraphKey>,
    /// What one takes, with some to spare.
    pub(super) bytes_per_graph: usize,
    /// What all may hold.
    pub(super) max_bytes: usize,
}

impl GraphBudget {
    /// For `keys`, the most important first, when `num_samples` graphs were seen to take
    /// `sample_bytes`.
    fn new(
        mut keys: Vec<GraphKey>,
        [num_samples, sample_bytes]: [usize; 2],
        bound_bytes: usize,
    ) -> Self {
        // What was not seen may be up to a piece; real steps have longer arguments than samples.
        let seen = (sample_bytes + CHUNK_BYTES).div_ceil(num_samples.max(1));
        let bytes_per_graph = seen + seen / 4;
        keys.truncate(bound_bytes / bytes_per_graph);
        let wanted = keys.len() * bytes_per_graph;
        let max_bytes = match keys.is_empty() {
            true => 0,
            false => wanted.next_multiple_of(CHUNK_BYTES) + CHUNK_BYTES,
        };
        Self {
            keys,
            bytes_per_graph,
            max_bytes: max_bytes.min(bound_bytes),
        }
    }
}

impl<D: Device> CudaOps<D> {
    /// Plans the graphs of decode steps. Workspaces are allocated, the KV cache is not.
    ///
    /// # Errors
    /// The device is lost.
    pub(super) fn plan_graphs(&mut self) -> Result<(), OpsError> {
        self.graph_budget = GraphBudget::default();
        let bound_bytes = self.options.max_graph_bytes;
        let keys = match (&self.work, self.pads_for_graphs()) {
            (Some(work), true) => graph_keys(&work.shape, MAX_GRAPHS),
            _ => return Ok(()),
        };
        if bound_bytes == 0 {
            return Ok(());
        }
        let num_wanted = keys.len();
        let num_launches = self.num_step_launches + NUM_OTHER_LAUNCHES;
        let Some(samples) = self.measure_graphs(num_launches)? else {
            return Ok(());
        };
        let mut budget = GraphBudget::new(keys, samples, bound_bytes);
        let (num_planned, bytes_per_graph) = (budget.keys.len(), budget.bytes_per_graph);
        tracing::debug!(num_launches, bytes_per_graph, "what a graph takes");
        if num_planned < num_wanted {
            tracing::warn!(
                num_wanted,
                num_planned,
                bytes_per_graph,
                bound_bytes,
                "not all decode steps run as graphs: --max-cuda-graph-memory-bytes bounds them"
            );
        }
        // A cache of a given size leaves the rest to whoever comes.
        if !matches!(self.options.kv_budget, KvBudget::Utilization(_)) {
            budget.max_bytes = bound_bytes;
        }
        self.graph_budget = budget;
        Ok(())
    }

    /// Captures graphs of `num_launches` each and gives them back; how many there were and what
    /// they took, or `None` where the device captures nothing.
    fn measure_graphs(&mut self, num_launches: usize) -> Result<Option<[usize; 2]>, OpsError> {
        let Some(work) = &self.work else {
            return Ok(None);
        };
        let (blob_at, last_tokens) = (work.blob_at, work.slots.last_tokens);
        let launch = ResolveTokens {
            token_ids: blob_at,
            from_slots: blob_at,
            last_tokens,
            num_tokens: 1,
            unused: 0,
        };
        let free_before = self.free_bytes();
        let mut graphs = Vec::with_capacity(NUM_SAMPLES);
        let mut failure = None;
        while graphs.len() < NUM_SAMPLES && failure.is_none() {
            match self.device.begin_capture() {
                Ok(true) => {}
                Ok(false) => return Ok(None),
                Err(error) => {
                    failure = Some(error);
                    break;
                }
            }
            let mut launches = (0..num_launches).map(|_| launch.launch(&mut self.device));
            failure = launches.find_map(Result::err);
            match self.device.end_capture() {
                Ok(graph) if failure.is_none() => graphs.push(graph),
                Ok(graph) => self.device.drop_graph(graph),
                Err(error) => failure = failure.or(Some(error)),
            }
        }
        let taken = free_before.saturating_sub(self.free_bytes());
        let num_samples = graphs.len();
        for graph in graphs {
            self.device.drop_graph(graph);
        }
        if let Some(error) = failure {
            tracing::warn!(%error, "what graphs take could not be measured in full");
            self.check_alive()?;
        }
        Ok(Some([num_samples, taken]))
    }

    /// After a capture that failed: whether it was the capture alone.
    ///
    /// # Errors
    /// The device is lost.
    pub(super) fn check_alive(&mut self) -> Result<(), OpsError> {
        if let Some(work) = &self.work
            && let Err(error) = self.device.read(work.results_at, &mut [0; 4])
            && !matches!(error, LaunchError::Misuse(_))
        {
            return Err(device_error(&error));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(num: usize) -> Vec<GraphKey> {
        let key = |num_rows| GraphKey { num_rows, level: 0 };
        (1..=num).map(key).collect()
    }

    #[test]
    fn the_most_important_are_kept_within_the_bound() {
        // A MiB each, and an eighth of one that may not have been seen; a quarter to spare.
        let taken = [NUM_SAMPLES, NUM_SAMPLES << 20];
        let bytes_per_graph = ((1 << 20) + (2 << 20) / NUM_SAMPLES) * 5 / 4;
        let all = GraphBudget::new(keys(35), taken, 512 << 20);
        assert_eq!(all.keys, keys(35));
        assert_eq!(all.bytes_per_graph, bytes_per_graph);
        assert!(all.max_bytes >= 35 * bytes_per_graph);
        assert!(all.max_bytes <= 35 * bytes_per_graph + 2 * CHUNK_BYTES);
        let some = GraphBudget::new(keys(35), taken, 10 << 20);
        assert_eq!(some.keys, keys((10 << 20) / bytes_per_graph));
        assert_eq!(some.max_bytes, 10 << 20);
        let none = GraphBudget::new(keys(35), taken, 1 << 20);
        assert_eq!((none.keys.len(), none.max_bytes), (0, 0));
    }

    #[test]
    fn what_is_too_small_to_be_seen_is_counted_all_the_same() {
        let budget = GraphBudget::new(keys(256), [NUM_SAMPLES, 0], 512 << 20);
        assert_eq!(budget.bytes_per_graph, CHUNK_BYTES / NUM_SAMPLES * 5 / 4);
        assert_eq!(budget.keys.len(), 256);
        // Nothing was captured: a whole piece each.
        let budget = GraphBudget::new(keys(256), [0, 0], 512 << 20);
        assert_eq!(budget.bytes_per_graph, CHUNK_BYTES * 5 / 4);
    }
}
