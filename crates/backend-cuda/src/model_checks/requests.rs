//! What requests ask for, on a whole model: every way of sampling, look-ahead, graphs, and memory
//! that does not suffice.
//!
//! Invariant: tokens are the CPU sampler's for the device's logits; neither look-ahead nor graphs
//! change one.

use std::path::Path;
use std::sync::Arc;

use hotspare_batch::{
    Batch, Executor, Row, RowError, SamplingParams, SlotInit, StepOutput, StopParams,
    TOKEN_FROM_DEVICE, TokenId,
};

use super::CheckError;
use super::harness::{BLOCK_SIZE, Harness, Settings, load, scrambled_blocks};
use crate::kernels::SPLIT_KEYS;
use crate::ops::MAX_NUM_BIASES;
use crate::{Device, DeviceMemory};

/// Requests of unlike kinds.
fn requests(vocab_size: u32) -> Vec<(SamplingParams, StopParams)> {
    let base = SamplingParams {
        temperature: 0.8,
        seed: 0x1234_5678_9ABC_DEF0,
        ..SamplingParams::default()
    };
    let stop = StopParams::default();
    let early: Vec<TokenId> = (0..vocab_size / 2).collect();
    vec![
        (
            SamplingParams {
                num_logprobs: Some(3),
                num_prompt_logprobs: Some(2),
                top_p: 0.9,
                ..base.clone()
            },
            stop.clone(),
        ),
        (
            SamplingParams {
                repetition_penalty: 1.4,
                frequency_penalty: 0.5,
                presence_penalty: 0.25,
                top_k: 40,
                choice: 3,
                ..base.clone()
            },
            stop.clone(),
        ),
        (
            SamplingParams {
                logit_bias: vec![(5, 4.0), (9, -100.0), (17, 3.5)],
                min_p: 0.05,
                num_logprobs: Some(0),
                ..base.clone()
            },
            StopParams {
                min_tokens: 3,
                eos_token_ids: early,
                ..StopParams::default()
            },
        ),
        (
            SamplingParams {
                allowed_token_ids: vec![1, 3, 77, 200, vocab_size + 9],
                temperature: 1.7,
                ..base
            },
            stop,
        ),
    ]
}

/// What each of [`requests`] may draw: the first everything, the others three tokens of four, of
/// a mask that ends before the vocabulary does.
fn grammars(vocab_size: usize) -> [Option<Arc<[u32]>>; 4] {
    let mask = |pattern: u32| Some(vec![pattern; vocab_size / 32 - 1].into());
    [
        None,
        mask(0x7777_7777),
        mask(0xDDDD_DDDD),
        // Of the ids that the request allows 1, 3 and 200 are left.
        mask(0xBBBB_BBFF ^ (1 << 13)),
    ]
}

/// Draws by every parameter, together and resumed; every token is held to the CPU's sampler.
/// Returns how many were.
///
/// # Errors
/// What differs.
pub fn check_sampling<D: Device>(
    device: D,
    path: &Path,
    settings: Settings,
    num_new: usize,
) -> Result<usize, CheckError> {
    let mut harness = Harness::load(device, path, settings)?;
    let prompts: [&[TokenId]; 4] = [&[1, 40, 77, 5, 200, 9], &[3, 3, 3, 8], &[11; 19], &[250]];
    let requests = requests(harness.vocab_size as u32);
    let mut indices = Vec::new();
    for ((sampling, stop), prompt) in requests.iter().zip(prompts) {
        indices.push(harness.add_resumed(prompt, prompt.len(), sampling, stop));
    }
    // A grammar may be on top of anything: of penalties, of a minimum length, of other masks.
    let masks = grammars(harness.vocab_size);
    for (&index, mask) in indices.iter().zip(&masks) {
        harness.sequences[index].mask.clone_from(mask);
    }
    while harness.sequences[indices[3]].output().len() < num_new {
        let chunk = |&i: &usize| (i, harness.sequences[i].num_waiting().min(20));
        let chunks: Vec<_> = indices.iter().map(chunk).collect();
        harness.step(&chunks)?;
    }
    for ((sampling, stop), (&index, prompt)) in requests.iter().zip(indices.iter().zip(prompts)) {
        let ids = harness.sequences[index].ids.clone();
        let cut = &ids[..ids.len() - 1];
        let resumed = harness.add_resumed(cut, prompt.len(), sampling, stop);
        harness.sequences[resumed].mask = harness.sequences[index].mask.clone();
        harness.run_alone(resumed, usize::MAX, ids.len() - prompt.len())?;
        if harness.sequences[resumed].ids != ids {
            return Err(CheckError(format!("resumed, another token: {sampling:?}")));
        }
    }
    Ok(harness.num_held)
}

/// A decode loop over an executor, `depth` steps ahead.
pub(crate) struct Loop {
    prompts: Vec<Vec<TokenId>>,
    blocks: Vec<Vec<u32>>,
    drawn: Vec<Vec<TokenId>>,
    num_submitted: usize,
}

impl Loop {
    pub(crate) fn new(prompts: &[&[TokenId]], num_new: usize) -> Self {
        let mut free = scrambled_blocks();
        let blocks = prompts.iter().map(|prompt| {
            let num_blocks = (prompt.len() + num_new).div_ceil(BLOCK_SIZE);
            free.split_off(free.len() - num_blocks)
        });
        Self {
            blocks: blocks.collect(),
            prompts: prompts.iter().map(|prompt| prompt.to_vec()).collect(),
            drawn: vec![Vec::new(); prompts.len()],
            num_submitted: 0,
        }
    }

    /// The next step's batch: whole prompts first, then a token of each.
    pub(crate) fn batch(&mut self) -> Batch {
        let step = self.num_submitted;
        self.num_submitted += 1;
        let mut batch = Batch {
            step: step as u64,
            ..Batch::default()
        };
        for (slot, prompt) in self.prompts.iter().enumerate() {
            let first_token = batch.token_ids.len() as u32;
            let first_block = batch.block_tables.len() as u32;
            match step {
                0 => batch.token_ids.extend(prompt),
                _ => batch.token_ids.push(TOKEN_FROM_DEVICE),
            }
            batch.block_tables.extend(&self.blocks[slot]);
            if step == 0 {
                batch.slot_inits.push(SlotInit {
                    slot: slot as u32,
                    token_ids: prompt.clone().into(),
                    num_prompt_tokens: prompt.len() as u32,
                    sampling: Arc::new(SamplingParams {
                        seed: slot as u64,
                        temperature: 0.7,
                        presence_penalty: 0.5,
                        ..SamplingParams::default()
                    }),
                    stop: Arc::new(StopParams::default()),
                });
            }
            batch.rows.push(Row {
                slot: slot as u32,
                num_computed_tokens: match step {
                    0 => 0,
                    step => (prompt.len() + step - 1) as u32,
                },
                tokens: first_token..batch.token_ids.len() as u32,
                blocks: first_block..batch.block_tables.len() as u32,
                samples: true,
                wants_prompt_logprobs: false,
                next_prompt_token: None,
            });
        }
        batch
    }

    fn take(&mut self, output: StepOutput) -> Result<(), CheckError> {
        for (drawn, row) in self.drawn.iter_mut().zip(output.rows) {
            let token = row.token_ids.iter().next().copied();
            let what = || CheckError(format!("no token: {:?}", row.error));
            drawn.push(token.ok_or_else(what)?);
        }
        Ok(())
    }
}

/// Draws `num_new` tokens for three sequences, `depth` steps in flight; returns them.
///
/// # Errors
/// What the device says.
fn run_loop(
    executor: &mut dyn Executor,
    depth: usize,
    num_new: usize,
) -> Result<Vec<Vec<TokenId>>, CheckError> {
    // The second is longer than a split of attention.
    let mut state = Loop::new(&[&[1, 40, 77], &[9; SPLIT_KEYS + 4], &[300]], num_new);
    let mut num_done = 0;
    while num_done < num_new {
        while state.num_submitted < num_new && state.num_submitted - num_done < depth {
            let batch = state.batch();
            executor.submit(batch).map_err(CheckError::new)?;
        }
        let output = executor.wait().map_err(CheckError::new)?;
        if output.step != num_done as u64 {
            return Err(CheckError::new("outputs out of order"));
        }
        state.take(output)?;
        num_done += 1;
    }
    Ok(state.drawn)
}

/// The same tokens step by step, two steps in flight, and as graphs, each on a device of its own;
/// `ended` sees the last.
///
/// # Errors
/// What differs.
pub fn check_lookahead<D: Device>(
    [first, second, third]: [D; 3],
    path: &Path,
    settings: Settings,
    num_new: usize,
    ended: impl FnOnce(&D),
) -> Result<(), CheckError> {
    let plain = Settings {
        uses_graphs: false,
        ..settings
    };
    let mut executor = load(first, path, plain)?;
    let expected = run_loop(&mut executor, 1, num_new)?;
    let mut executor = load(second, path, plain)?;
    let drawn = run_loop(&mut executor, 2, num_new)?;
    if drawn != expected {
        return Err(CheckError(format!(
            "two in flight: {drawn:?}, not {expected:?}"
        )));
    }
    let graphs = Settings {
        uses_graphs: true,
        ..settings
    };
    let mut executor = load(third, path, graphs)?;
    let drawn = run_loop(&mut executor, 2, num_new)?;
    ended(executor.into_runner().ops_mut().device());
    match drawn == expected {
        true => Ok(()),
        false => Err(CheckError(format!(
            "as graphs: {drawn:?}, not {expected:?}"
        ))),
    }
}

/// What one request cannot have fails that request and no other: a token that no slot drew, and
/// more biases than there is room for.
///
/// # Errors
/// Another row failed, or not the one that should.
pub fn check_refusals<D: Device>(
    device: D,
    path: &Path,
    settings: Settings,
) -> Result<(), CheckError> {
    let mut executor = load(device, path, settings)?;
    let mut state = Loop::new(&[&[1, 40, 77], &[9; 5], &[30]], 1);
    let expected = {
        let batch = state.batch();
        executor.submit(batch).map_err(CheckError::new)?;
        executor.wait().map_err(CheckError::new)?
    };
    state.num_submitted = 0;
    let mut batch = state.batch();
    let biases = (0..=MAX_NUM_BIASES as u32).map(|id| (id, 1.0));
    batch.slot_inits[0].sampling = Arc::new(SamplingParams {
        logit_bias: biases.collect(),
        ..SamplingParams::greedy()
    });
    // A slot that never had a token.
    batch.slot_inits[2].token_ids = Arc::from([]);
    batch.token_ids[8] = TOKEN_FROM_DEVICE;
    executor.submit(batch).map_err(CheckError::new)?;
    let found = executor.wait().map_err(CheckError::new)?;
    let errors: Vec<_> = found.rows.iter().map(|row| row.error.clone()).collect();
    let is_right = matches!(
        errors[..],
        [
            Some(RowError::TooManyBiases { .. }),
            None,
            Some(RowError::InvalidLogits { position: 1 })
        ]
    );
    if !is_right || found.rows[1] != expected.rows[1] {
        return Err(CheckError(format!(
            "{:?}, before {:?}",
            found.rows, expected.rows
        )));
    }
    Ok(())
}

/// How many KV blocks a model gets on a device, and how much of its memory is then free.
///
/// # Errors
/// It does not load.
pub fn load_blocks<D: Device>(
    device: D,
    path: &Path,
    settings: Settings,
) -> Result<(usize, DeviceMemory), CheckError> {
    let executor = load(device, path, settings)?;
    let num_blocks = executor.info().num_blocks;
    let memory = executor.into_runner().ops_mut().device().memory();
    Ok((num_blocks, memory.map_err(CheckError::new)?))
}

/// A device with too little memory is refused with what was needed, what was free and which
/// options help; returns the message.
///
/// # Errors
/// It was not, or not with all of that.
pub fn check_memory<D: Device>(
    device: D,
    path: &Path,
    settings: Settings,
) -> Result<String, CheckError> {
    let Err(CheckError(error)) = load(device, path, settings) else {
        return Err(CheckError::new("the model fits"));
    };
    for part in ["needs", "bytes", "free"] {
        if !error.contains(part) {
            return Err(CheckError(format!("`{error}` does not say {part}")));
        }
    }
    Ok(error)
}
