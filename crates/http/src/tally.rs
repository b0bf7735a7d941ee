//! Token counts of a running answer.
//!
//! Invariant: a prompt counts once, whatever `n` is; tokens count when they were drawn, shown or
//! not.

use hotspare_front::ChoiceDelta;
use hotspare_protocol::Usage;

use crate::app::App;

/// Counts of one request.
#[derive(Clone, Debug)]
pub(crate) struct Tally {
    n: usize,
    num_prompt_tokens: Vec<u64>,
    num_cached_tokens: Vec<u64>,
    num_output_tokens: Vec<u64>,
    with_details: bool,
}

impl Tally {
    /// For prompts of these lengths, with `n` choices each.
    pub(crate) fn new(app: &App, prompts: &[Vec<u32>], n: u32) -> Self {
        let n = n as usize;
        Self {
            n: n.max(1),
            num_prompt_tokens: prompts.iter().map(|prompt| prompt.len() as u64).collect(),
            num_cached_tokens: vec![0; prompts.len()],
            num_output_tokens: vec![0; prompts.len() * n],
            with_details: app.config.enable_prompt_tokens_details,
        }
    }

    /// Number of choices.
    pub(crate) fn num_choices(&self) -> usize {
        self.num_output_tokens.len()
    }

    /// Counts a delta.
    pub(crate) fn count(&mut self, delta: &ChoiceDelta) {
        let index = delta.index as usize;
        if let Some(num) = self.num_output_tokens.get_mut(index) {
            *num += delta.token_ids.len() as u64;
        }
        if let Some(cached) = delta.num_cached_tokens
            && let Some(num) = self.num_cached_tokens.get_mut(index / self.n)
        {
            // Choices of one prompt share its blocks; the first one that ran filled the cache.
            *num = (*num).max(cached.into());
        }
    }

    /// Forgets the output: it was drawn for the engine's sake, not for the client's.
    pub(crate) fn drop_output(&mut self) {
        self.num_output_tokens.fill(0);
    }

    /// Counts of the whole answer.
    pub(crate) fn usage(&self) -> Usage {
        let prompt = self.num_prompt_tokens.iter().sum();
        let usage = Usage::new(prompt, self.num_output_tokens.iter().sum());
        self.detailed(usage, self.num_cached_tokens.iter().sum())
    }

    /// Counts of one choice so far.
    pub(crate) fn choice_usage(&self, index: u32) -> Usage {
        let index = index as usize;
        let of = |counts: &[u64], at: usize| counts.get(at).copied().unwrap_or(0);
        let prompt = of(&self.num_prompt_tokens, index / self.n);
        let usage = Usage::new(prompt, of(&self.num_output_tokens, index));
        self.detailed(usage, of(&self.num_cached_tokens, index / self.n))
    }

    fn detailed(&self, usage: Usage, num_cached: u64) -> Usage {
        match self.with_details {
            true => usage.with_cached_tokens(num_cached),
            false => usage,
        }
    }
}
