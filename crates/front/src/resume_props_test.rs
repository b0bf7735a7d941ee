//! Wherever a sequence is cut, what continues it is what would have gone on: the real scheduler,
//! sampler and text pipeline around made-up logits.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use hotspare_batch::{
    Generate, RequestId, RowOutput, SamplingParams, SequenceEvent, StepOutput, StepTimings,
    StopParams, TokenId,
};
use hotspare_journal::{ChoiceStart, JobParams, Journal, JournalConfig};
use hotspare_sampler::{Scratch, SlotState, sample_row};
use hotspare_scheduler::{Scheduler, SchedulerConfig};
use hotspare_text::{Detokenizer, StopBuffer};
use proptest::prelude::*;

use crate::ChoiceDelta;
use crate::choice::{Choice, ChoiceText, Progress};
use crate::testing::text_model;

const TEXTS: [&str; 12] = [
    "</s>",
    "a",
    "b",
    "c",
    "END",
    "E",
    "ND",
    "x",
    "y",
    "\u{0120}z",
    "Ã",
    "©",
];

const NOW: Duration = Duration::ZERO;

/// An engine without a model: its logits are a hash of the sequence's ids.
struct Engine {
    scheduler: Scheduler,
    slots: Vec<(SlotState, Vec<TokenId>)>,
    scratch: Scratch,
}

impl Engine {
    fn new() -> Self {
        let config = SchedulerConfig {
            max_num_seqs: 2,
            max_num_batched_tokens: 16,
            max_model_len: 128,
            block_size: 4,
            num_blocks: 64,
            max_num_waiting: 4,
            max_num_in_flight: 1,
            ..SchedulerConfig::default()
        };
        Self {
            scheduler: Scheduler::new(config).expect("the configuration is sound"),
            slots: vec![Default::default(); 2],
            scratch: Scratch::default(),
        }
    }

    /// Runs a step; none where nothing is left to do.
    fn step(&mut self) -> Option<Vec<SequenceEvent>> {
        let batch = self.scheduler.schedule(0)?;
        for init in &batch.slot_inits {
            let (state, ids) = &mut self.slots[init.slot as usize];
            state.reset(init);
            *ids = init.token_ids.to_vec();
        }
        let mut rows = Vec::new();
        for row in &batch.rows {
            let (state, ids) = &mut self.slots[row.slot as usize];
            let mut output = RowOutput {
                slot: row.slot,
                ..RowOutput::default()
            };
            if row.samples {
                let len = row.context_len();
                assert_eq!(len, ids.len(), "every id is known");
                let mut logits = logits(ids);
                let drawn = sample_row(&mut logits, state, len as u32, &mut self.scratch)
                    .expect("something is left to draw");
                ids.push(drawn.token);
                output.logprobs.extend(drawn.logprobs);
                output.token_ids.push(drawn.token);
            }
            rows.push(output);
        }
        let step = batch.step;
        let timings = StepTimings::default();
        let output = StepOutput {
            step,
            rows,
            timings,
            kv_saved: Vec::new(),
        };
        self.scheduler.commit(output, 0).expect("the step was ours");
        let mut events = Vec::new();
        self.scheduler.drain_events(&mut events);
        Some(events)
    }
}

fn logits(ids: &[TokenId]) -> Vec<f32> {
    let bytes: Vec<u8> = ids.iter().flat_map(|id| id.to_le_bytes()).collect();
    let mut hash = [0; TEXTS.len()];
    blake3::Hasher::new()
        .update(&bytes)
        .finalize_xof()
        .fill(&mut hash);
    hash.iter().map(|&byte| f32::from(byte) / 32.0).collect()
}

#[derive(Clone, Debug)]
struct Case {
    prompt: Vec<TokenId>,
    sampling: SamplingParams,
    stop: StopParams,
    stop_strings: Vec<String>,
    include_stop: bool,
}

impl Case {
    fn choice(&self) -> Choice {
        let stop_strings: Arc<[String]> = self.stop_strings.clone().into();
        let text = ChoiceText {
            detokenizer: Detokenizer::new(&text_model(&TEXTS), &self.prompt, true),
            stop_buffer: StopBuffer::new(&stop_strings, self.include_stop),
            stop_strings,
        };
        Choice::new(0, Some(text), self.include_stop, self.stop.min_tokens)
    }

    fn generate(&self) -> Generate {
        Generate {
            request_id: RequestId(4),
            attempt: 0,
            ids: self.prompt.clone(),
            num_delivered: 0,
            sampling: self.sampling.clone(),
            stop: self.stop.clone(),
            priority: 0,
            deadline_ms: None,
            block_hash_keys: Vec::new(),
            prefill_only: false,
        }
    }

    /// The deltas, where the engine dies after so many further tokens each time. With `rebuilds`
    /// the text pipeline is lost too, and is given the delivered ids again.
    fn run(&self, cuts: &[usize], rebuilds: bool) -> Vec<ChoiceDelta> {
        let journal = Journal::new(JournalConfig {
            max_request_bytes: 1 << 20,
            max_bytes: 1 << 20,
        });
        let params = JobParams {
            sampling: self.sampling.clone(),
            stop: self.stop.clone(),
            priority: 0,
            deadline_ms: None,
            block_hash_keys: Vec::new(),
        };
        let start = ChoiceStart {
            request_id: RequestId(4),
            prompt: self.prompt.as_slice().into(),
            choice: self.sampling.choice,
            max_tokens: self.stop.max_tokens,
        };
        let mut record = journal.begin(params, vec![start]);
        let mut cuts = cuts.iter().copied();
        let mut until_cut = cuts.next();
        let (mut choice, mut out) = (self.choice(), VecDeque::new());
        let mut engine = Engine::new();
        engine
            .scheduler
            .add(self.generate(), 0)
            .expect("there is room");
        for _ in 0..1_000 {
            if until_cut == Some(0) {
                until_cut = cuts.next();
                engine = Engine::new();
                let request = record.resume(0, NOW).expect("it runs");
                assert_eq!(request.num_delivered, choice.num_tokens());
                if rebuilds {
                    choice = self.choice();
                    let known = event(0, record.delivered(0));
                    choice.on_event(known, &mut VecDeque::new());
                }
                engine.scheduler.add(request, 0).expect("there is room");
            }
            for mut event in engine.step().expect("it has not ended") {
                if event.prompt.is_some() && !record.on_prompt_report(0) {
                    event.prompt = None;
                }
                record.deliver(0, &event.token_ids);
                until_cut = until_cut.map(|left| left.saturating_sub(event.token_ids.len()));
                match choice.on_event(event, &mut out) {
                    Progress::Open => {}
                    Progress::Done(_) | Progress::DoneEarly => return out.into(),
                    Progress::Failed(message) => panic!("{message}"),
                }
            }
        }
        panic!("it does not end: {out:?}");
    }
}

fn event(first_index: u32, token_ids: &[TokenId]) -> SequenceEvent {
    crate::testing::event(first_index, token_ids)
}

fn sampling() -> impl Strategy<Value = SamplingParams> {
    let filters = (0u32..5, prop_oneof![Just(1.0f32), 0.3..1.0f32], 0.0..0.3f32);
    let penalties = (
        prop_oneof![Just(1.0f32), 0.5..2.0f32],
        prop_oneof![Just(0.0f32), -1.0..1.0f32],
        prop_oneof![Just(0.0f32), -1.0..1.0f32],
    );
    let lists = (
        prop::collection::vec((0u32..12, -3.0..3.0f32), 0..3),
        prop_oneof![Just(vec![]), Just(vec![1, 2, 5, 6, 7])],
    );
    let temperature = prop_oneof![Just(0.0f32), 0.2..2.0f32];
    let rest = (any::<u64>(), 0u32..3, prop::option::of(0u32..3));
    (temperature, filters, penalties, lists, rest).prop_map(
        |(temperature, (top_k, top_p, min_p), penalties, (bias, allowed), rest)| SamplingParams {
            temperature,
            top_k,
            top_p,
            min_p,
            repetition_penalty: penalties.0,
            frequency_penalty: penalties.1,
            presence_penalty: penalties.2,
            logit_bias: bias,
            allowed_token_ids: allowed,
            seed: rest.0,
            choice: rest.1,
            num_logprobs: rest.2,
            num_prompt_logprobs: None,
        },
    )
}

fn case() -> impl Strategy<Value = Case> {
    let stop = (1u32..30, 0u32..12, any::<bool>(), any::<bool>());
    let stop_strings = prop::sample::subsequence(vec!["END", "xy", "aEN", "cc", "é"], 0..4);
    (
        prop::collection::vec(0u32..12, 1..20),
        sampling(),
        stop,
        stop_strings,
        any::<bool>(),
    )
        .prop_map(
            |(prompt, sampling, stop, stop_strings, include_stop)| Case {
                prompt,
                sampling,
                stop: StopParams {
                    max_tokens: stop.0,
                    min_tokens: stop.1.min(stop.0),
                    eos_token_ids: vec![0],
                    stop_token_ids: if stop.2 { vec![3] } else { Vec::new() },
                    ignore_eos: stop.3,
                },
                stop_strings: stop_strings.into_iter().map(str::to_owned).collect(),
                include_stop,
            },
        )
}

proptest! {
    #[test]
    fn a_cut_changes_nothing(
        case in case(),
        cuts in prop::collection::vec(0usize..12, 1..6),
    ) {
        let uncut = case.run(&[], false);
        prop_assert_eq!(&case.run(&cuts, false), &uncut);
        // What a rebuilt pipeline has not told yet is what the uncut one had not told.
        prop_assert_eq!(&case.run(&cuts, true), &uncut);
        for cut in 0..uncut.len() {
            prop_assert_eq!(&case.run(&[cut], false), &uncut, "at {}", cut);
        }
    }
}
