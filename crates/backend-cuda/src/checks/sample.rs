//! The sampler: the CPU's tokens, one after the other.
//!
//! Each check draws several tokens of a sequence, so that counts and last tokens are carried on the
//! device.
//!
//! Invariant: tokens are equal, not only likely.

use std::sync::Arc;

use hotspare_batch::{SamplingParams, SlotInit, StopParams};
use hotspare_sampler::{Scratch, SlotState, sample_row};

use super::support::{Random, poisoned, upload, wrong};
use crate::kernels::{CountPair, NO_TOKEN, Sample, SampleRow, counts_table};
use crate::{Address, LaunchError, Launcher};

/// Places of a slot's table of counts.
const CAPACITY: usize = 64;
/// Tokens drawn of each sequence.
const NUM_DRAWS: usize = 3;

/// A sequence on both sides.
struct Sequence {
    sampling: SamplingParams,
    stop: StopParams,
    slot: SlotState,
    ids: Vec<u32>,
    num_prompt: usize,
}

impl Sequence {
    fn new(random: &mut Random, vocab_size: usize) -> Self {
        let sampling = SamplingParams {
            temperature: random.choose(&[0.0, 0.3, 1.0, 1.7]),
            top_k: random.choose(&[0, 0, 1, 7, 50, 100_000]),
            top_p: random.choose(&[1.0, 1.0, 0.1, 0.7, 0.95, 0.999]),
            min_p: random.choose(&[0.0, 0.0, 0.02, 0.3]),
            ..SamplingParams::default()
        };
        Self::with(random, vocab_size, sampling)
    }

    /// With the seed, penalties, biases and masks still to be drawn.
    fn with(random: &mut Random, vocab_size: usize, mut sampling: SamplingParams) -> Self {
        let maybe = |random: &mut Random| random.below(2) == 1;
        let token = |random: &mut Random| random.below(vocab_size) as u32;
        let tokens = |random: &mut Random, max: usize| -> Vec<u32> {
            (0..random.within(1, max)).map(|_| token(random)).collect()
        };
        sampling.seed = random.next();
        sampling.choice = random.below(3) as u32;
        if maybe(random) {
            sampling.repetition_penalty = 1.3;
            sampling.frequency_penalty = 0.4;
            sampling.presence_penalty = -0.2;
        }
        if maybe(random) {
            // Twice the same token, and one that is not there.
            let twice = token(random);
            sampling.logit_bias = vec![(twice, 1.5), (twice, -0.25), (u32::MAX - 1, 9.0)];
        }
        if random.below(4) == 0 {
            sampling.allowed_token_ids = tokens(random, 40);
        }
        let stop = StopParams {
            min_tokens: random.choose(&[0, 0, 5]),
            eos_token_ids: tokens(random, 2),
            stop_token_ids: tokens(random, 2),
            ..StopParams::default()
        };
        let ids = tokens(random, 12);
        let num_prompt = random.within(1, ids.len());
        let mut slot = SlotState::default();
        slot.reset(&SlotInit {
            slot: 0,
            token_ids: ids.clone().into(),
            num_prompt_tokens: num_prompt as u32,
            sampling: Arc::new(sampling.clone()),
            stop: Arc::new(stop.clone()),
        });
        Self {
            sampling,
            stop,
            slot,
            ids,
            num_prompt,
        }
    }

    fn has_penalties(&self) -> bool {
        self.sampling.repetition_penalty != 1.0
    }

    /// Tokens of prompt or output, and how often each is in the output.
    fn counts(&self) -> Vec<CountPair> {
        let mut counts = std::collections::BTreeMap::new();
        for (i, &id) in self.ids.iter().enumerate() {
            *counts.entry(id).or_insert(0) += u32::from(i >= self.num_prompt);
        }
        counts.into_iter().map(|(id, count)| [id, count]).collect()
    }
}

/// Lists of all rows, as the device takes them.
#[derive(Default)]
struct Lists {
    rows: Vec<SampleRow>,
    masked: Vec<u32>,
    bias_tokens: Vec<u32>,
    biases: Vec<f32>,
    masks: Vec<u32>,
}

impl Lists {
    /// Adds the row of `sequence`, which has `slot`; `drawn` tokens were drawn before.
    fn push(&mut self, sequence: &Sequence, slot: usize, drawn: usize, vocab_size: usize) {
        let sampling = &sequence.sampling;
        let (masked_start, bias_start) = (self.masked.len(), self.biases.len());
        let num_output = sequence.ids.len() - sequence.num_prompt + drawn;
        if num_output < sequence.stop.min_tokens as usize {
            self.masked.extend(&sequence.stop.eos_token_ids);
            self.masked.extend(&sequence.stop.stop_token_ids);
        }
        self.bias_tokens
            .extend(sampling.logit_bias.iter().map(|(token, _)| token));
        self.biases
            .extend(sampling.logit_bias.iter().map(|(_, bias)| bias));
        let words = vocab_size.div_ceil(32);
        let mut allowed = NO_TOKEN;
        if !sampling.allowed_token_ids.is_empty() {
            allowed = (self.masks.len() / words) as u32;
            let mut mask = vec![0u32; words];
            for &token in &sampling.allowed_token_ids {
                mask[token as usize / 32] |= 1 << (token % 32);
            }
            self.masks.extend(mask);
        }
        self.rows.push(SampleRow {
            temperature: sampling.temperature,
            top_p: sampling.top_p,
            min_p: sampling.min_p,
            top_k: sampling.top_k,
            repetition_penalty: sampling.repetition_penalty,
            frequency_penalty: sampling.frequency_penalty,
            presence_penalty: sampling.presence_penalty,
            slot: slot as u32,
            seed_low: sampling.seed as u32,
            seed_high: (sampling.seed >> 32) as u32,
            position: (sequence.ids.len() + drawn) as u32,
            choice: sampling.choice,
            masked_start: masked_start as u32,
            masked_end: self.masked.len() as u32,
            bias_start: bias_start as u32,
            bias_end: self.biases.len() as u32,
            counts_start: (slot * CAPACITY) as u32,
            counts_capacity: if sequence.has_penalties() {
                CAPACITY as u32
            } else {
                0
            },
            allowed,
            // A grammar that allows what the request does.
            grammar: allowed,
        });
    }
}

/// Logits of several kinds: spread, nearly flat, with ties, with unusable numbers.
fn random_logits(random: &mut Random, vocab_size: usize) -> Vec<f32> {
    let spread = random.choose(&[0.5, 8.0, 30.0]);
    let has_ties = random.below(3) == 0;
    let float = |random: &mut Random| match has_ties {
        true => (random.float() * spread).round(),
        false => random.float() * spread,
    };
    let mut logits: Vec<f32> = (0..vocab_size).map(|_| float(random)).collect();
    let at = random.below(vocab_size);
    match random.below(16) {
        0 => logits[at] = f32::NAN,
        1 => logits[at] = f32::INFINITY,
        2 => logits.fill(f32::NEG_INFINITY),
        3..8 => logits[at] = f32::NEG_INFINITY,
        _ => {}
    }
    logits
}

/// Sequences in the middle of being drawn.
struct Drawing {
    vocab_size: usize,
    sequences: Vec<Sequence>,
    /// Tokens drawn: those with unusable logits fall behind.
    drawn: Vec<usize>,
    expected_last: Vec<u32>,
    counts: Address,
    last_tokens: Address,
}

impl Drawing {
    fn new(
        launcher: &mut dyn Launcher,
        vocab_size: usize,
        sequences: Vec<Sequence>,
    ) -> Result<Self, LaunchError> {
        let num_rows = sequences.len();
        let tables = sequences
            .iter()
            .map(|sequence| counts_table(&sequence.counts(), CAPACITY));
        let counts: Vec<CountPair> = tables.flatten().collect();
        Ok(Self {
            vocab_size,
            sequences,
            drawn: vec![0; num_rows],
            expected_last: vec![NO_TOKEN; num_rows],
            counts: upload(launcher, &counts)?,
            last_tokens: upload(launcher, &vec![NO_TOKEN; num_rows])?,
        })
    }

    /// The CPU's tokens for new logits, and the same step's input for the device.
    fn step(&mut self, random: &mut Random) -> (Lists, Vec<f32>, Vec<u32>) {
        let mut lists = Lists::default();
        let (mut logits, mut expected): (Vec<f32>, Vec<u32>) = (Vec::new(), Vec::new());
        for (slot, sequence) in self.sequences.iter_mut().enumerate() {
            lists.push(sequence, slot, self.drawn[slot], self.vocab_size);
            let mut row = random_logits(random, self.vocab_size);
            logits.extend(&row);
            let position = (sequence.ids.len() + self.drawn[slot]) as u32;
            let scratch = &mut Scratch::default();
            let sampled = sample_row(&mut row, &mut sequence.slot, position, scratch);
            let token = sampled.map_or(NO_TOKEN, |sampled| sampled.token);
            if token != NO_TOKEN {
                self.expected_last[slot] = token;
                self.drawn[slot] += 1;
            }
            expected.push(token);
        }
        (lists, logits, expected)
    }

    fn check_step(
        &mut self,
        launcher: &mut dyn Launcher,
        random: &mut Random,
    ) -> Result<(), LaunchError> {
        let (lists, logits, expected) = self.step(random);
        let num_rows = expected.len();
        let tokens = poisoned(launcher, 4 * num_rows)?;
        let args = Sample {
            logits: upload(launcher, &logits)?,
            rows: upload(launcher, &lists.rows)?,
            masked: upload(launcher, &lists.masked)?,
            bias_tokens: upload(launcher, &lists.bias_tokens)?,
            biases: upload(launcher, &lists.biases)?,
            masks: upload(launcher, &lists.masks)?,
            counts: self.counts,
            tokens,
            last_tokens: self.last_tokens,
            chunk_keys: poisoned(launcher, 8 * num_rows * Sample::num_chunks(self.vocab_size))?,
            block_sums: poisoned(launcher, 8 * num_rows * Sample::num_blocks(self.vocab_size))?,
            vocab_size: self.vocab_size as u32,
            stride: self.vocab_size as u32,
        };
        args.launch(launcher, num_rows)?;
        let (mut found, mut last) = (vec![0u32; num_rows], vec![0u32; num_rows]);
        launcher.read(tokens, bytemuck::cast_slice_mut(&mut found))?;
        launcher.read(self.last_tokens, bytemuck::cast_slice_mut(&mut last))?;
        for (i, sequence) in self.sequences.iter().enumerate() {
            if (found[i], last[i]) != (expected[i], self.expected_last[i]) {
                return Err(wrong(format!(
                    "sample of {}, row {i}: {} (last {}), the CPU's {} (last {}): {:?}",
                    self.vocab_size,
                    found[i],
                    last[i],
                    expected[i],
                    self.expected_last[i],
                    sequence.sampling
                )));
            }
        }
        Ok(())
    }
}

/// Rows with unlike parameters, drawn together, several tokens each.
pub(crate) fn sample(launcher: &mut dyn Launcher, seed: u64) -> Result<(), LaunchError> {
    let mut random = Random::new("sample", seed);
    for _ in 0..6 {
        let vocab_size = random.choose(&[1, 37, 300, 2050, 4500]);
        let sequences = (0..random.within(1, 6)).map(|_| Sequence::new(&mut random, vocab_size));
        let sequences = sequences.collect();
        let mut drawing = Drawing::new(launcher, vocab_size, sequences)?;
        for _ in 0..NUM_DRAWS {
            drawing.check_step(launcher, &mut random)?;
        }
        launcher.free_all();
    }
    match seed {
        0 => large_vocabularies(launcher, &mut random),
        _ => Ok(()),
    }
}

/// Vocabularies of models, each way of drawing in one row.
fn large_vocabularies(launcher: &mut dyn Launcher, random: &mut Random) -> Result<(), LaunchError> {
    for vocab_size in [151_936, 262_144] {
        let ways: [(f32, u32, f32); 5] = [
            (0.0, 0, 1.0),
            (1.0, 0, 1.0),
            (0.7, 50, 0.9),
            (1.0, 100_000, 1.0),
            (1.0, 0, 0.95),
        ];
        let sequence = |(temperature, top_k, top_p)| {
            let sampling = SamplingParams {
                temperature,
                top_k,
                top_p,
                ..SamplingParams::default()
            };
            Sequence::with(random, vocab_size, sampling)
        };
        let sequences = ways.map(sequence).into();
        Drawing::new(launcher, vocab_size, sequences)?.check_step(launcher, random)?;
        launcher.free_all();
    }
    Ok(())
}
