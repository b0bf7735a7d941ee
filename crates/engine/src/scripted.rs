//! A backend without a model: tokens that a test can predict, at a pace that it sets.
//!
//! It keeps a paged cache as a model does: each position holds a hash of all tokens up to it, found
//! through the block table alone. A wrong block, a stale prefix or a token from the wrong slot
//! changes every token that follows, so that tests of what is above it see such mistakes.
//!
//! Invariant: a drawn token is a function of the sequence's ids, and of seed and choice unless
//! temperature is 0. Steps, batches and request ids do not enter it.

use std::thread;
use std::time::{Duration, Instant};

use hotspare_batch::{
    Batch, BlockId, ExecutorError, ExecutorInfo, KvBlock, Row, RowError, RowOutput, SamplingParams,
    SlotInit, StepOutput, StepRunner, StepTimings, StopParams, TOKEN_FROM_DEVICE, TokenId,
    TokenLogprobs,
};
use serde::{Deserialize, Serialize};

/// How the scripted backend behaves.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ScriptedOptions {
    /// Ids are below this. Default 512.
    pub vocab_size: u32,
    /// Lowest id that is drawn; leaves out special tokens. Default 3.
    pub first_token_id: TokenId,
    /// Time of a step, microseconds. Default 0.
    pub step_time_us: u64,
    /// Time added for each token of the batch, nanoseconds. Default 0.
    pub token_time_ns: u64,
    /// Draw an end-of-sequence id after this many output tokens, where the request has one.
    /// Otherwise no id that ends a sequence is drawn. Default none.
    pub finish_after_tokens: Option<u32>,
    /// A row that holds this id fails, and only that row. Default none.
    pub failing_token_id: Option<TokenId>,
    /// The device fails at this step. Default none.
    pub device_error_at_step: Option<u64>,
}

impl Default for ScriptedOptions {
    fn default() -> Self {
        Self {
            vocab_size: 512,
            first_token_id: 3,
            step_time_us: 0,
            token_time_ns: 0,
            finish_after_tokens: None,
            failing_token_id: None,
            device_error_at_step: None,
        }
    }
}

impl ScriptedOptions {
    /// The first `num_tokens` tokens that follow `ids`, of which the last `num_delivered` are
    /// output: what an engine must answer. It does not apply stop conditions.
    pub fn continuation(
        &self,
        ids: &[TokenId],
        num_delivered: usize,
        sampling: &SamplingParams,
        stop: &StopParams,
        num_tokens: usize,
    ) -> Vec<TokenId> {
        let mut chain = ids.iter().fold(EMPTY, |chain, &id| extend(chain, id));
        (0..num_tokens)
            .map(|index| {
                let token = self.draw(chain, sampling, stop, num_delivered + index);
                chain = extend(chain, token);
                token
            })
            .collect()
    }

    /// What stands for the model's hash: equal for options that draw the same tokens.
    pub(crate) fn name(&self) -> String {
        let finish = self.finish_after_tokens.map_or(0, |n| u64::from(n) + 1);
        let parts = [self.vocab_size.into(), self.first_token_id.into(), finish];
        let hash = parts.iter().fold(EMPTY, |hash, part| mix(hash ^ part));
        format!("scripted-{hash:016x}")
    }

    /// The token after a sequence whose hash is `chain`, which has `num_output` output tokens.
    fn draw(
        &self,
        chain: u64,
        sampling: &SamplingParams,
        stop: &StopParams,
        num_output: usize,
    ) -> TokenId {
        let finishes = self
            .finish_after_tokens
            .is_some_and(|after| num_output >= after.max(stop.min_tokens) as usize);
        if finishes
            && !stop.ignore_eos
            && let Some(&eos) = stop.eos_token_ids.first()
        {
            return eos;
        }
        let key = match sampling.temperature {
            0.0 => 0,
            _ => mix(sampling.seed ^ mix(u64::from(sampling.choice) + 1)),
        };
        let range = self.vocab_size.saturating_sub(self.first_token_id).max(1);
        let start = (mix(chain ^ key) % u64::from(range)) as u32;
        (0..range)
            .map(|offset| self.first_token_id + (start + offset) % range)
            .find(|&token| !stop.is_stop(token))
            .unwrap_or(self.first_token_id)
    }

    /// Made-up log-probabilities of `token` at a place whose hash is `chain`.
    fn logprobs(&self, chain: u64, token: TokenId, num_top: u32) -> TokenLogprobs {
        let logprob = -((mix(chain ^ 0x10_9b) % 4096) as f32) / 512.0;
        TokenLogprobs {
            token,
            logprob,
            rank: 1,
            top: (0..num_top.min(self.vocab_size))
                .map(|i| ((token + i) % self.vocab_size, logprob - i as f32))
                .collect(),
        }
    }
}

const EMPTY: u64 = 0x4807_5bae;

/// One round of splitmix64 (Steele, Lea, Flood 2014): enough to tell any two sequences apart.
fn mix(value: u64) -> u64 {
    let mut z = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

fn extend(chain: u64, token: TokenId) -> u64 {
    mix(chain ^ mix(u64::from(token)))
}

/// A slot's owner and the token drawn for it last.
#[derive(Clone, Debug)]
struct Slot {
    init: SlotInit,
    last_token: TokenId,
}

/// The scripted backend.
#[derive(Debug)]
pub struct ScriptedRunner {
    options: ScriptedOptions,
    info: ExecutorInfo,
    /// For each position of each block, the hash of the sequence up to it.
    cache: Vec<u64>,
    slots: Vec<Option<Slot>>,
}

impl ScriptedRunner {
    /// A runner of this shape; `info.vocab_size` is taken from the options.
    pub fn new(options: ScriptedOptions, info: ExecutorInfo) -> Self {
        Self {
            cache: vec![0; info.num_blocks * info.block_size],
            slots: vec![None; info.num_slots],
            info: ExecutorInfo {
                vocab_size: options.vocab_size as usize,
                kv_block_bytes: Some(info.block_size * size_of::<u64>()),
                ..info
            },
            options,
        }
    }

    fn copy_blocks(&mut self, batch: &Batch) -> Vec<KvBlock> {
        let block_size = self.info.block_size;
        for load in &batch.kv_loads {
            let block = &mut self.cache[load.block as usize * block_size..][..block_size];
            for (chain, bytes) in block.iter_mut().zip(load.bytes.as_chunks().0) {
                *chain = u64::from_le_bytes(*bytes);
            }
        }
        let save = |&block: &BlockId| KvBlock {
            block,
            bytes: self.cache[block as usize * block_size..][..block_size]
                .iter()
                .flat_map(|chain| chain.to_le_bytes())
                .collect(),
        };
        batch.kv_saves.iter().map(save).collect()
    }

    fn run_row(&mut self, batch: &Batch, row: &Row) -> Result<RowOutput, ExecutorError> {
        let slot = self.slots[row.slot as usize]
            .as_mut()
            .ok_or(ExecutorError::Misuse("a row's slot was never taken"))?;
        let blocks = batch.row_blocks(row);
        let block_size = self.info.block_size;
        let place = |position: usize| {
            blocks[position / block_size] as usize * block_size + position % block_size
        };
        let first = row.num_computed_tokens as usize;
        let mut chain = match first.checked_sub(1) {
            Some(position) => self.cache[place(position)],
            None => EMPTY,
        };
        let (sampling, stop) = (&slot.init.sampling, &slot.init.stop);
        let tokens = batch.row_tokens(row);
        let mut output = RowOutput {
            slot: row.slot,
            ..RowOutput::default()
        };
        for (index, &token) in tokens.iter().enumerate() {
            let token = match token {
                TOKEN_FROM_DEVICE => slot.last_token,
                token => token,
            };
            if self.options.failing_token_id == Some(token) {
                let position = (first + index) as u32;
                output.error = Some(RowError::InvalidLogits { position });
            }
            chain = extend(chain, token);
            self.cache[place(first + index)] = chain;
            let next = tokens.get(index + 1).copied().or(row.next_prompt_token);
            if let (true, Some(next)) = (row.wants_prompt_logprobs, next) {
                let num_top = sampling.num_prompt_logprobs.unwrap_or(0);
                let logprobs = self.options.logprobs(chain, next, num_top);
                output.prompt_logprobs.push(logprobs);
            }
        }
        if row.samples && output.error.is_none() {
            let num_output = row.context_len() - slot.init.num_prompt_tokens as usize;
            let token = self.options.draw(chain, sampling, stop, num_output);
            if let Some(num_top) = sampling.num_logprobs {
                let logprobs = self.options.logprobs(chain, token, num_top);
                output.logprobs.push(logprobs);
            }
            output.token_ids.push(token);
            slot.last_token = token;
        }
        Ok(output)
    }
}

impl StepRunner for ScriptedRunner {
    fn info(&self) -> ExecutorInfo {
        self.info.clone()
    }

    fn run(&mut self, batch: &Batch) -> Result<StepOutput, ExecutorError> {
        let started = Instant::now();
        if self.options.device_error_at_step == Some(batch.step) {
            return Err(ExecutorError::Device(format!(
                "scripted error at step {}",
                batch.step
            )));
        }
        let kv_saved = self.copy_blocks(batch);
        for init in &batch.slot_inits {
            self.slots[init.slot as usize] = Some(Slot {
                init: init.clone(),
                last_token: 0,
            });
        }
        let rows: Result<Vec<_>, _> = batch.rows.iter().map(|r| self.run_row(batch, r)).collect();
        let rows = rows?;
        let pace = Duration::from_micros(self.options.step_time_us)
            + Duration::from_nanos(self.options.token_time_ns * batch.num_tokens() as u64);
        if let Some(rest) = pace.checked_sub(started.elapsed()) {
            thread::sleep(rest);
        }
        Ok(StepOutput {
            step: batch.step,
            rows,
            timings: StepTimings {
                total_ns: started.elapsed().as_nanos() as u64,
                ..StepTimings::default()
            },
            kv_saved,
        })
    }
}
