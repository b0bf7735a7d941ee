//! Shadowing: the spare that would serve next reads along what running streams were given.
//!
//! It reads into its own prefix cache, so that taking over costs the last few dozen tokens of each
//! stream and not all of them. It works in rounds: a bounded number of new tokens of those streams
//! that are furthest behind, then a rest in proportion to the time that the round took, so that the
//! engine that serves keeps its device. Clients, usage and counters see nothing of it.
//!
//! Invariant: one round is under way at most; the first request of a client's that the spare gets
//! cancels what is left of it. What an engine has not survived is not given to a spare.

use std::sync::Arc;
use std::time::{Duration, Instant};

use hotspare_batch::{FinishReason, Generate, RejectReason, RequestId, SamplingParams, StopParams};
use hotspare_link::EngineHello;
use tokio::sync::mpsc;
use tokio::time::sleep;

use crate::FrontConfig;
use crate::client::EngineClient;
use crate::kv_mirror::copies_blocks;
use crate::shadow_plan::{Extent, ShadowLimits, next_bound, plan};
use crate::slot::EngineSlot;
use crate::target::{Arrival, ArrivalKind, Feed, LossCause, Target};
use crate::trail::{Trail, Trails};

/// What a spare reads along.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ShadowMode {
    /// Nothing.
    Off,
    /// The prompts of running streams.
    Prompts,
    /// Prompts and what was answered so far.
    Full,
    /// As `Full` on a card, nothing where engines keep their KV blocks for the next one.
    #[default]
    Auto,
}

impl ShadowMode {
    /// Whether the engine that said `hello` is to read along.
    pub(crate) fn reads(self, hello: &EngineHello) -> bool {
        match self {
            Self::Off => false,
            Self::Prompts | Self::Full => true,
            Self::Auto => !copies_blocks(hello),
        }
    }
}

/// Of the blocks of a spare, so many eighths are for what it reads along: the rest is for what a
/// stream that is taken over needs next.
const NUM_HELD_EIGHTHS: usize = 7;

/// New tokens of the first round, of which nobody knows how long it takes.
const FIRST_NUM_TOKENS: usize = 64;

/// See the module.
pub(crate) struct Shadow {
    slot: Arc<EngineSlot>,
    trails: Arc<Trails>,
    interval: Duration,
    min_lag_tokens: usize,
    max_num_tokens: usize,
    max_round_time: Duration,
    /// Of the next round.
    num_tokens: usize,
    max_load_percent: u32,
    num_requests: u64,
}

/// A sequence in a round.
struct Reading {
    trail: Arc<Trail>,
    num_ids: usize,
    is_answered: bool,
}

impl Shadow {
    pub(crate) fn new(config: &FrontConfig, slot: Arc<EngineSlot>, trails: Arc<Trails>) -> Self {
        Self {
            slot,
            trails,
            interval: Duration::from_millis(config.spare_shadow_interval_ms),
            min_lag_tokens: config.spare_shadow_min_lag_tokens,
            max_num_tokens: config.spare_shadow_max_num_tokens,
            max_round_time: Duration::from_millis(config.spare_shadow_max_round_ms),
            num_tokens: FIRST_NUM_TOKENS,
            max_load_percent: config.spare_shadow_max_load_percent.clamp(1, 100),
            num_requests: 0,
        }
    }

    /// Runs as long as the front.
    pub(crate) async fn run(mut self) {
        if self.trails.mode() == ShadowMode::Off {
            return;
        }
        let mut states = self.slot.subscribe();
        loop {
            states.borrow_and_update();
            let spare = self.slot.next_main();
            let mode = self.trails.mode();
            let Some(spare) = spare.filter(|spare| mode.reads(spare.hello())) else {
                if states.changed().await.is_err() {
                    return;
                }
                continue;
            };
            let started = Instant::now();
            let num_tokens = self.round(&spare).await;
            let took = started.elapsed();
            if num_tokens > 0 {
                let next = next_bound(self.num_tokens, num_tokens, took, self.max_round_time);
                self.num_tokens = next.min(self.max_num_tokens);
            }
            sleep(self.rest(took)).await;
        }
    }

    /// How long the spare rests after a round that took so long.
    fn rest(&self, took: Duration) -> Duration {
        let percent = self.max_load_percent;
        (took * (100 - percent) / percent).max(self.interval)
    }

    /// One round; returns how many new tokens were in it.
    async fn round(&mut self, spare: &Arc<EngineClient>) -> usize {
        let hello = spare.hello();
        let trails = self.trails.live(&hello.model_hash);
        let extents: Vec<Extent> = trails
            .iter()
            .map(|trail| extent(trail, hello.engine_id))
            .collect();
        let block_size = (hello.block_size as usize).max(1);
        let limits = ShadowLimits {
            block_size,
            min_lag_tokens: self.min_lag_tokens,
            max_num_tokens: self.num_tokens.max(block_size),
            max_num_held_tokens: hello.num_blocks as usize / 8 * NUM_HELD_EIGHTHS * block_size,
        };
        let round = plan(&limits, &extents);
        let news = round
            .iter()
            .map(|&(place, end)| end - extents[place].num_read);
        let num_tokens = news.sum();
        let readings = round.into_iter().map(|(place, num_ids)| Reading {
            trail: Arc::clone(&trails[place]),
            num_ids,
            is_answered: false,
        });
        self.read(spare, readings.collect()).await;
        num_tokens
    }

    /// Lets the spare read, and waits until it has answered to all.
    async fn read(&mut self, spare: &Arc<EngineClient>, mut readings: Vec<Reading>) {
        // Admission and end of each.
        let (sender, mut answers) = mpsc::channel((2 * readings.len()).max(1));
        let mut num_open = 0;
        for (index, reading) in readings.iter_mut().enumerate() {
            let request = request(self.num_requests, &reading.trail, reading.num_ids);
            self.num_requests += 1;
            let feed = Feed::new(index as u32, sender.clone());
            // Where it serves by now or has no room, the next round will tell.
            reading.is_answered = spare.submit(request, feed).is_err();
            num_open += usize::from(!reading.is_answered);
        }
        drop(sender);
        while num_open > 0
            && let Some(answer) = answers.recv().await
        {
            let Some(reading) = readings.get_mut(answer.index as usize) else {
                continue;
            };
            let is_last = on_answer(reading, answer, spare.hello().engine_id);
            num_open -= usize::from(is_last && !reading.is_answered);
            reading.is_answered |= is_last;
        }
    }
}

fn extent(trail: &Trail, engine_id: u64) -> Extent {
    Extent {
        num_readable: trail.num_readable(),
        num_read: trail.num_read(engine_id),
    }
}

/// Ids that this engine could read along and has not, in whole blocks.
pub(crate) fn num_unread(trails: &Trails, hello: &EngineHello) -> usize {
    let block_size = (hello.block_size as usize).max(1);
    let live = trails.live(&hello.model_hash);
    let unread = live
        .iter()
        .map(|trail| extent(trail, hello.engine_id).num_unread(block_size));
    unread.sum()
}

/// Takes an answer; whether it was the last one.
fn on_answer(reading: &Reading, answer: Arrival, engine_id: u64) -> bool {
    let Reading { trail, num_ids, .. } = reading;
    match answer.kind {
        ArrivalKind::Admitted => return false,
        ArrivalKind::Event(event) => match event.finish {
            None => return false,
            Some(FinishReason::Length) => trail.on_read(engine_id, *num_ids),
            Some(FinishReason::Cancelled) => {}
            Some(_) => trail.refuse(),
        },
        ArrivalKind::Rejected(RejectReason::Draining | RejectReason::QueueFull { .. }) => {}
        ArrivalKind::Rejected(RejectReason::Impossible(_)) => trail.refuse(),
        // It may have ended over what it read: no other spare is to.
        ArrivalKind::Lost(loss) if loss.cause == LossCause::Own => trail.refuse(),
        ArrivalKind::Lost(_) | ArrivalKind::NotReplayed(_) | ArrivalKind::Overflow => {}
    }
    true
}

/// Read so many ids, draw nothing.
fn request(number: u64, trail: &Trail, num_ids: usize) -> Generate {
    let first = RequestId::FIRST_SHADOW.0;
    Generate {
        // Numbers are used again after a time that no round lasts.
        request_id: RequestId(first + number % (RequestId::CANARY.0 - first)),
        attempt: 0,
        ids: trail.ids(num_ids),
        num_delivered: 0,
        sampling: SamplingParams::greedy(),
        stop: StopParams {
            max_tokens: 1,
            ..StopParams::default()
        },
        priority: i32::MAX,
        deadline_ms: None,
        block_hash_keys: trail.block_hash_keys.clone(),
        prefill_only: true,
    }
}

#[cfg(test)]
#[path = "shadow_test.rs"]
mod shadow_test;
