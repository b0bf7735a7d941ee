//! Shadowing: the engine that would serve next reads along what running streams were given.
//!
//! It reads into its own prefix cache, so that taking over costs the last few dozen tokens of each
//! stream and not all of them. It works in rounds: a bounded number of new tokens of those streams
//! that are furthest behind, then, for a spare, a rest in proportion to the time that the round
//! took, so that the engine that serves keeps its device. Clients, usage and counters see nothing
//! of it. Which engine it is, of this node or of the peer, is known to `readers`.
//!
//! Invariant: one round is under way at most; a client's request that the reader gets cancels what
//! is left of it. What an engine has not survived is not given to a reader.

use std::sync::Arc;
use std::time::{Duration, Instant};

use hotspare_batch::{FinishReason, Generate, RejectReason, SamplingParams, StopParams};
use hotspare_link::EngineHello;
use tokio::sync::mpsc;
use tokio::time::sleep;

use crate::FrontConfig;
use crate::client::EngineClient;
use crate::kv_mirror::copies_blocks;
use crate::readers::Readers;
use crate::shadow_plan::{Extent, ShadowLimits, next_bound, plan};
use crate::slot::EngineSlot;
use crate::target::{Arrival, ArrivalKind, Feed, LossCause, Target};
use crate::trail::{Trail, Trails};

/// What a reader reads along.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
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

/// From a round in which there was nothing to read to the next one, at least.
const IDLE_PAUSE: Duration = Duration::from_millis(20);

/// The same where the reader took nothing, as it works for clients.
const REFUSED_PAUSE: Duration = Duration::from_millis(100);

/// How often it is asked whether there is a reader, where nothing tells of it.
const READER_POLL: Duration = Duration::from_millis(100);

/// See the module.
pub(crate) struct Shadow {
    slot: Arc<EngineSlot>,
    readers: Arc<Readers>,
    trails: Arc<Trails>,
    interval: Duration,
    min_lag_tokens: usize,
    max_num_tokens: usize,
    max_round_time: Duration,
    /// Of the next round.
    num_tokens: usize,
    max_load_percent: u32,
}

/// How a round was.
enum Round {
    /// Nothing runs.
    Idle,
    /// There is nothing new of what runs.
    CaughtUp,
    /// The reader took nothing.
    Refused,
    /// It had so many new tokens.
    Read(usize),
}

/// A sequence in a round.
struct Reading {
    trail: Arc<Trail>,
    num_ids: usize,
    is_answered: bool,
}

impl Shadow {
    pub(crate) fn new(
        config: &FrontConfig,
        slot: &Arc<EngineSlot>,
        readers: &Arc<Readers>,
        trails: &Arc<Trails>,
    ) -> Self {
        Self {
            slot: Arc::clone(slot),
            readers: Arc::clone(readers),
            trails: Arc::clone(trails),
            interval: Duration::from_millis(config.spare_shadow_interval_ms),
            min_lag_tokens: config.spare_shadow_min_lag_tokens,
            max_num_tokens: config.spare_shadow_max_num_tokens,
            max_round_time: Duration::from_millis(config.spare_shadow_max_round_ms),
            num_tokens: FIRST_NUM_TOKENS,
            max_load_percent: config.spare_shadow_max_load_percent.clamp(1, 100),
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
            let Some(reader) = self.readers.reader() else {
                tokio::select! {
                    changed = states.changed() => if changed.is_err() {
                        return;
                    },
                    () = sleep(READER_POLL), if self.readers.depends_on_role() => {}
                }
                continue;
            };
            let started = Instant::now();
            let round = self.round(&reader.client).await;
            let took = started.elapsed();
            let pause = match round {
                Round::Idle => IDLE_PAUSE,
                Round::CaughtUp => Duration::ZERO,
                Round::Refused => REFUSED_PAUSE,
                Round::Read(num_tokens) => {
                    let next = next_bound(self.num_tokens, num_tokens, took, self.max_round_time);
                    self.num_tokens = next.min(self.max_num_tokens);
                    match reader.shares_device {
                        true => self.rest(took),
                        false => Duration::ZERO,
                    }
                }
            };
            sleep(pause.max(self.interval)).await;
        }
    }

    /// How long a spare rests after a round that took so long.
    fn rest(&self, took: Duration) -> Duration {
        let percent = self.max_load_percent;
        took * (100 - percent) / percent
    }

    async fn round(&self, spare: &Arc<EngineClient>) -> Round {
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
        if num_tokens == 0 {
            return match trails.is_empty() {
                true => Round::Idle,
                false => Round::CaughtUp,
            };
        }
        let readings = round.into_iter().map(|(place, num_ids)| Reading {
            trail: Arc::clone(&trails[place]),
            num_ids,
            is_answered: false,
        });
        match self.read(spare, readings.collect()).await {
            true => Round::Read(num_tokens),
            false => Round::Refused,
        }
    }

    /// Lets the spare read, and waits until it has answered to all; whether it took any in.
    async fn read(&self, spare: &Arc<EngineClient>, mut readings: Vec<Reading>) -> bool {
        // Admission and end of each.
        let (sender, mut answers) = mpsc::channel((2 * readings.len()).max(1));
        let (mut num_open, mut is_taken) = (0, false);
        for (index, reading) in readings.iter_mut().enumerate() {
            let request = request(&self.trails, &reading.trail, reading.num_ids);
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
            is_taken |= matches!(answer.kind, ArrivalKind::Admitted);
            let is_last = on_answer(reading, answer, spare.hello().engine_id);
            num_open -= usize::from(is_last && !reading.is_answered);
            reading.is_answered |= is_last;
        }
        is_taken
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
fn request(trails: &Trails, trail: &Trail, num_ids: usize) -> Generate {
    Generate {
        request_id: trails.next_shadow_id(),
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
