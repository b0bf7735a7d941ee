//! Log-probabilities against the CPU sampler's.
//!
//! Invariant: tokens and ranks are equal; log-probabilities differ by the device's logarithm alone.

use hotspare_sampler::token_logprobs;

use super::support::{Random, Tolerance, compare, poisoned, upload, wrong};
use crate::kernels::{Logprobs, LogprobsEntry, NO_TOKEN};
use crate::{LaunchError, Launcher};

/// Tokens of the prompt, and tokens that were drawn; rows with ties, and unusable ones.
pub(crate) fn logprobs(launcher: &mut dyn Launcher, seed: u64) -> Result<(), LaunchError> {
    let mut random = Random::new("logprobs", seed);
    let mut cases = vec![(1, 3), (300, 3), (2050, 3)];
    if seed == 0 {
        // Models' own.
        cases.extend([(151_936, 1), (262_144, 1)]);
    }
    for (vocab_size, num_rows) in cases {
        let spread = random.choose(&[1.0, 12.0]);
        let mut logits: Vec<f32> = (0..num_rows * vocab_size)
            .map(|_| (random.float() * spread * 8.0).round() / 8.0)
            .collect();
        let at = random.below(vocab_size);
        logits[at] = random.choose(&[f32::NAN, f32::NEG_INFINITY, 0.0]);
        let drawn: Vec<u32> = (0..num_rows)
            .map(|_| random.below(vocab_size) as u32)
            .collect();
        let mut top_start = 0;
        let entries: Vec<LogprobsEntry> = (0..2 * num_rows)
            .map(|i| {
                let entry = LogprobsEntry {
                    row: (i % num_rows) as u32,
                    token: match i < num_rows {
                        true => LogprobsEntry::DRAWN,
                        false => random.below(vocab_size) as u32,
                    },
                    drawn: (i % num_rows) as u32,
                    num_top: random.below(7) as u32,
                    top_start,
                };
                top_start += entry.num_top;
                entry
            })
            .collect();
        let args = Logprobs {
            logits: upload(launcher, &logits)?,
            entries: upload(launcher, &entries)?,
            tokens: upload(launcher, &drawn)?,
            own_logprobs: poisoned(launcher, 4 * entries.len())?,
            ranks: poisoned(launcher, 4 * entries.len())?,
            top_tokens: poisoned(launcher, 4 * top_start as usize)?,
            top_logprobs: poisoned(launcher, 4 * top_start as usize)?,
            vocab_size: vocab_size as u32,
            stride: vocab_size as u32,
        };
        args.launch(launcher, entries.len())?;
        check_entries(launcher, &args, &entries, &logits, &drawn)?;
    }
    Ok(())
}

fn check_entries(
    launcher: &mut dyn Launcher,
    args: &Logprobs,
    entries: &[LogprobsEntry],
    logits: &[f32],
    drawn: &[u32],
) -> Result<(), LaunchError> {
    let num_top: usize = entries.iter().map(|entry| entry.num_top as usize).sum();
    let (mut own, mut ranks) = (vec![0f32; entries.len()], vec![0u32; entries.len()]);
    let (mut top_tokens, mut top_logprobs) = (vec![0u32; num_top], vec![0f32; num_top]);
    launcher.read(args.own_logprobs, bytemuck::cast_slice_mut(&mut own))?;
    launcher.read(args.ranks, bytemuck::cast_slice_mut(&mut ranks))?;
    launcher.read(args.top_tokens, bytemuck::cast_slice_mut(&mut top_tokens))?;
    launcher.read(
        args.top_logprobs,
        bytemuck::cast_slice_mut(&mut top_logprobs),
    )?;
    let vocab_size = args.vocab_size as usize;
    for (i, entry) in entries.iter().enumerate() {
        let row = &logits[entry.row as usize * vocab_size..][..vocab_size];
        let token = match entry.token {
            LogprobsEntry::DRAWN => drawn[entry.drawn as usize],
            token => token,
        };
        let what = format!("logprobs of {vocab_size}, {entry:?}");
        let top = entry.top_start as usize..(entry.top_start + entry.num_top) as usize;
        let Ok(expected) = token_logprobs(row, token, 1, entry.num_top, &mut Vec::new()) else {
            let is_marked = ranks[i] == 0 && top_tokens[top].iter().all(|&t| t == NO_TOKEN);
            if !is_marked {
                return Err(wrong(format!(
                    "{what}: unusable logits have rank {}",
                    ranks[i]
                )));
            }
            continue;
        };
        let mut tokens: Vec<u32> = expected.top.iter().map(|(token, _)| *token).collect();
        let mut values: Vec<f32> = expected.top.iter().map(|(_, logprob)| *logprob).collect();
        tokens.resize(top.len(), NO_TOKEN);
        values.resize(top.len(), f32::NEG_INFINITY);
        if ranks[i] != expected.rank || top_tokens[top.clone()] != tokens {
            return Err(wrong(format!(
                "{what}: rank {}, {:?}, not {expected:?}",
                ranks[i], top_tokens
            )));
        }
        let tolerance = Tolerance {
            absolute: 1e-6,
            relative: 1e-6,
        };
        compare(&what, &own[i..=i], &[expected.logprob], tolerance)?;
        compare(&what, &top_logprobs[top], &values, tolerance)?;
    }
    Ok(())
}
