//! What the engine's loop does for the blocks: hands full ones to the writer and takes in those of
//! lost engines.
//!
//! K and V are copied on the device's thread, with a batch: first what comes in, then what goes
//! out, then the rows. Both are bounded for each step; a block that was overwritten before its turn
//! is not kept.
//!
//! Invariant: `in_flight` has one list for each batch in flight, in their order.

use std::collections::VecDeque;
use std::path::Path;

use hotspare_batch::{Batch, Generate, KvBlock, StepOutput};
use hotspare_scheduler::{CachedBlock, Scheduler};

use super::layout::Identity;
use super::source::MirrorSource;
use super::writer::MirrorWriter;
use crate::EngineOptions;

/// Lost engines whose blocks are looked through, at most: an engine may be lost before it has kept
/// what it had taken in.
const MAX_NUM_SOURCES: usize = 2;

/// See the module.
#[derive(Debug)]
pub(crate) struct KvKeeper {
    /// `None` where the executor cannot copy blocks.
    identity: Option<Identity>,
    num_blocks: usize,
    max_save_bytes_per_step: usize,
    max_load_bytes_per_step: usize,
    writer: Option<MirrorWriter>,
    /// The engine that was lost last comes first.
    sources: VecDeque<MirrorSource>,
    unsaved: VecDeque<CachedBlock>,
    in_flight: VecDeque<Vec<CachedBlock>>,
    loads: Vec<KvBlock>,
    load_bytes: usize,
}

impl KvKeeper {
    /// `identity`: `None` where blocks cannot be copied, or are not cached.
    pub(crate) fn new(
        options: &EngineOptions,
        identity: Option<Identity>,
        num_blocks: usize,
    ) -> Self {
        let writer = identity
            .as_ref()
            .and_then(|identity| start_writer(options, identity, num_blocks));
        Self {
            identity,
            num_blocks,
            max_save_bytes_per_step: options.max_kv_save_bytes_per_step,
            max_load_bytes_per_step: options.max_kv_load_bytes_per_step,
            writer,
            sources: VecDeque::new(),
            unsaved: VecDeque::new(),
            in_flight: VecDeque::new(),
            loads: Vec::new(),
            load_bytes: 0,
        }
    }

    /// Whether the scheduler is to say which blocks it caches.
    pub(crate) fn wants_reports(&self) -> bool {
        self.writer.is_some()
    }

    /// Blocks of the lost engine that wrote `path` may be taken in from now on.
    pub(crate) fn adopt(&mut self, path: &Path) {
        let Some(identity) = &self.identity else {
            return;
        };
        // A lost engine's pool may have been larger: files are bounded by their writers.
        match MirrorSource::open(path, identity, u64::MAX) {
            Ok(source) => {
                tracing::info!(
                    num_blocks = source.len(),
                    "a lost engine's KV blocks are there"
                );
                self.sources.push_front(source);
                self.sources.truncate(MAX_NUM_SOURCES);
            }
            Err(reason) => tracing::info!(%reason, "a lost engine's KV blocks are of no use"),
        }
    }

    /// The lost engines' streams run again.
    pub(crate) fn forget(&mut self) {
        self.sources.clear();
    }

    /// Whether the next batch has as much to take in as it may.
    pub(crate) fn is_full(&self) -> bool {
        self.load_bytes >= self.max_load_bytes_per_step
    }

    /// Takes in what lost engines computed of a sequence that is about to be added.
    pub(crate) fn import(&mut self, request: &Generate, scheduler: &mut Scheduler) {
        // Prompt log-probabilities need every position computed.
        if self.sources.is_empty() || request.sampling.num_prompt_logprobs.is_some() {
            return;
        }
        for source in &mut self.sources {
            let keys = &request.block_hash_keys;
            let loads = scheduler.import_prefix(&request.ids, keys, source);
            self.load_bytes += loads.iter().map(|load| load.bytes.len()).sum::<usize>();
            self.loads.extend(loads);
        }
        self.collect(scheduler);
    }

    /// After a commit: notes what became full.
    pub(crate) fn collect(&mut self, scheduler: &mut Scheduler) {
        // They are taken also where nobody wants them any more.
        let mut cached = Vec::new();
        scheduler.take_cached_blocks(&mut cached);
        if let Some(writer) = &self.writer {
            cached.retain(|cached| writer.wants(cached));
            self.unsaved.extend(cached);
            // More than the pool holds cannot all be there still.
            let num_old = self.unsaved.len().saturating_sub(self.num_blocks);
            self.unsaved.drain(..num_old);
        }
    }

    /// Adds what is to be copied to a batch that is about to be submitted.
    pub(crate) fn attach(&mut self, batch: &mut Batch, scheduler: &Scheduler) {
        self.load_bytes = 0;
        batch.kv_loads = std::mem::take(&mut self.loads);
        let mut saved = Vec::new();
        if !batch.kv_loads.is_empty() {
            // Streams stand still until the next token of each; what came in is kept afterwards.
            self.in_flight.push_back(saved);
            return;
        }
        let block_bytes = self
            .identity
            .as_ref()
            .map_or(0, |identity| identity.block_bytes);
        let max_num_saves = (self.max_save_bytes_per_step / block_bytes.max(1)).max(1);
        while saved.len() < max_num_saves
            && let Some(cached) = self.unsaved.pop_front()
        {
            if scheduler.is_cached(cached.id) {
                batch.kv_saves.push(cached.block);
                saved.push(cached);
            }
        }
        self.in_flight.push_back(saved);
    }

    /// Writes what came back with a batch's output.
    pub(crate) fn on_output(&mut self, output: &mut StepOutput) {
        let saved = self.in_flight.pop_front().unwrap_or_default();
        let Some(writer) = &mut self.writer else {
            return;
        };
        for (cached, kv) in saved.iter().zip(output.kv_saved.drain(..)) {
            if let Err(reason) = writer.write(cached, &kv.bytes) {
                tracing::warn!(%reason, "KV blocks are not kept for the next engine any more");
                self.writer = None;
                self.unsaved.clear();
                return;
            }
        }
    }
}

fn start_writer(
    options: &EngineOptions,
    identity: &Identity,
    num_blocks: usize,
) -> Option<MirrorWriter> {
    let path = options.kv_mirror_path.as_deref()?;
    let max_bytes = options.kv_mirror_memory_bytes;
    match MirrorWriter::create(path, identity.clone(), num_blocks, max_bytes) {
        Ok(writer) => Some(writer),
        Err(reason) => {
            let path = path.display();
            tracing::warn!(%reason, %path, "KV blocks are not kept for the next engine");
            None
        }
    }
}
