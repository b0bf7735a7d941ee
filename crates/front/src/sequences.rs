//! From a job to its sequences: one `Generate` for each prompt and choice, complete in itself.
//!
//! Invariant: what a sequence draws depends on the job alone: on its seed, and on the place of the
//! choice.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use hotspare_batch::{Generate, RequestId, SamplingParams, TokenId};
use hotspare_journal::{ChoiceStart, JobParams, RequestRecord};
use hotspare_text::{Detokenizer, StopBuffer};

use crate::choice::{Choice, ChoiceText};
use crate::model::Model;
use crate::stream::Start;
use crate::{Front, GenerateError, GenerationJob, ServedModel};

/// The stop strings of a job, built once: its choices share the memory.
struct Stops {
    strings: Arc<[String]>,
    /// Fresh; each choice has a clone.
    buffer: StopBuffer,
}

impl Front {
    /// How many sequences a job asks for.
    fn num_sequences(&self, job: &GenerationJob) -> Result<usize, GenerateError> {
        let max_num = self.shared.config.max_num_sequences_per_job;
        match job.prompts.len().saturating_mul(job.n as usize) {
            0 => {
                let message = "a request needs at least one prompt and one choice";
                Err(GenerateError::Impossible(message.to_owned()))
            }
            num if num > max_num => Err(GenerateError::Impossible(format!(
                "the request asks for {num} sequences (prompts times n), more than the {max_num} \
                 that this server takes in one request"
            ))),
            num => Ok(num),
        }
    }

    /// The sequences of a job, `n` for each prompt, and the record by which they are continued.
    pub(crate) fn sequences(
        &self,
        job: &GenerationJob,
        model: &Model,
    ) -> Result<(Vec<Start>, RequestRecord), GenerateError> {
        let num_sequences = self.num_sequences(job)?;
        let stops = Stops {
            strings: job.stop_strings.clone().into(),
            buffer: StopBuffer::new(&job.stop_strings, job.include_stop_str_in_output),
        };
        let block_hash_keys = job.cache_salt.as_deref().map_or(Vec::new(), salt_keys);
        let seed = job.seed.unwrap_or_else(|| self.shared.seeds.next());
        let mut starts = Vec::with_capacity(num_sequences);
        let mut choices = Vec::with_capacity(num_sequences);
        for prompt in &job.prompts {
            let max_tokens = max_tokens(&model.served, prompt, job.stop.max_tokens)?;
            let shared_prompt: Arc<[TokenId]> = prompt.as_slice().into();
            for i in 0..job.n {
                let index = starts.len() as u32;
                let mut sampling = job.sampling.clone();
                sampling.seed = seed;
                // With a seed of the client's, a prompt gives the same text in any list of
                // prompts; with one of ours, equal prompts of a list differ.
                sampling.choice = if job.seed.is_some() { i } else { index };
                let mut stop = job.stop.clone();
                stop.max_tokens = max_tokens;
                let request_id = self.shared.num_request_ids.fetch_add(1, Ordering::Relaxed);
                choices.push(ChoiceStart {
                    request_id: RequestId(request_id),
                    prompt: Arc::clone(&shared_prompt),
                    choice: sampling.choice,
                    max_tokens,
                });
                starts.push(Start {
                    choice: choice(model, index, prompt, job, &stops),
                    request: Generate {
                        request_id: RequestId(request_id),
                        attempt: 0,
                        ids: prompt.clone(),
                        num_delivered: 0,
                        sampling,
                        stop,
                        priority: job.priority,
                        deadline_ms: job.deadline_ms,
                        block_hash_keys: block_hash_keys.clone(),
                        prefill_only: max_tokens == 0,
                    },
                });
            }
        }
        let params = JobParams {
            sampling: SamplingParams {
                seed,
                ..job.sampling.clone()
            },
            stop: job.stop.clone(),
            priority: job.priority,
            deadline_ms: job.deadline_ms,
            block_hash_keys,
        };
        Ok((starts, self.shared.journal.begin(params, choices)))
    }
}

/// What is left of the context after `prompt`, up to `wanted`.
fn max_tokens(served: &ServedModel, prompt: &[TokenId], wanted: u32) -> Result<u32, GenerateError> {
    let ServedModel {
        max_model_len,
        vocab_size,
        ..
    } = *served;
    let num_left = u32::try_from(prompt.len())
        .ok()
        .filter(|len| *len > 0)
        .and_then(|len| max_model_len.checked_sub(len));
    let Some(num_left) = num_left.filter(|left| *left > 0 || wanted == 0) else {
        return Err(GenerateError::Impossible(format!(
            "a prompt of {} tokens does not fit a context of {max_model_len}",
            prompt.len()
        )));
    };
    if let Some(id) = prompt.iter().find(|id| **id >= vocab_size) {
        return Err(GenerateError::Impossible(format!(
            "token id {id} is not in the vocabulary of {vocab_size}"
        )));
    }
    Ok(wanted.min(num_left))
}

fn choice(
    model: &Model,
    index: u32,
    prompt: &[TokenId],
    job: &GenerationJob,
    stops: &Stops,
) -> Choice {
    let text = model.text.as_ref().filter(|_| job.detokenize);
    let text = text.map(|text| ChoiceText {
        detokenizer: Detokenizer::new(text, prompt, job.skip_special_tokens),
        stop_buffer: stops.buffer.clone(),
        stop_strings: Arc::clone(&stops.strings),
    });
    let include_stop = job.include_stop_str_in_output;
    Choice::new(index, text, include_stop, job.stop.min_tokens)
}

/// Two keys from a salt, so that requests of different salts never share a block.
fn salt_keys(salt: &str) -> Vec<u64> {
    let hash = blake3::derive_key("hotspare prefix cache salt v1", salt.as_bytes());
    let (first, rest) = hash.split_first_chunk().expect("the hash has 32 bytes");
    let (second, _) = rest.split_first_chunk().expect("the hash has 32 bytes");
    vec![u64::from_le_bytes(*first), u64::from_le_bytes(*second)]
}
