//! What `echo` and the ids of prompts put into completions, streamed or not.
//!
//! Invariant: log-probabilities of an echoed answer have an entry for each token of prompt and
//! output, and only the very first is null.

use hotspare_batch::TokenLogprobs;
use hotspare_protocol::{CompletionLogprobs, CompletionRequest, Prompt};

use crate::app::App;
use crate::texts::with_format;

/// The request's prompts, as the answer shows them.
pub(super) struct Prompts {
    pub(super) request: CompletionRequest,
    /// Empty unless the answer shows them.
    ids: Vec<Vec<u32>>,
    n: usize,
}

impl Prompts {
    /// Keeps what the answer needs; `ids` are the prompts after truncation.
    pub(super) fn new(request: CompletionRequest, ids: &[Vec<u32>]) -> Self {
        let shown = request.echo || request.output.return_token_ids;
        Self {
            ids: if shown { ids.to_vec() } else { Vec::new() },
            n: request.sampling.n.max(1) as usize,
            request,
        }
    }

    /// The ids of the prompt of choice `index`.
    pub(super) fn ids(&self, index: usize) -> &[u32] {
        self.ids.get(index / self.n).map_or(&[], Vec::as_slice)
    }

    /// The text of the prompt of choice `index`.
    pub(super) fn text(&self, app: &App, index: usize) -> String {
        match self.request.prompts.get(index / self.n) {
            Some(Prompt::Text(text)) => text.clone(),
            Some(Prompt::Ids(_)) => app.view.text().map_or(String::new(), |text| {
                text.decode(self.ids(index), self.request.sampling.skip_special_tokens)
            }),
            None => String::new(),
        }
    }

    /// Log-probabilities of a part of choice `index`: of its prompt where that is echoed with this
    /// part, and of output tokens. `None` where not asked for.
    pub(super) fn logprobs(
        &self,
        app: &App,
        index: usize,
        prompt: Option<&[TokenLogprobs]>,
        output: &[TokenLogprobs],
        offset: &mut u64,
    ) -> Option<CompletionLogprobs> {
        let num_top = self.request.num_logprobs?;
        let mut logprobs = CompletionLogprobs::default();
        let as_ids = self.request.output.return_tokens_as_token_ids;
        let text = app.view.text().map(|text| &**text);
        with_format(text, as_ids, |format| {
            if let Some(prompt) = prompt {
                if let Some(&first) = self.ids(index).first() {
                    logprobs.push_first(first, offset, format);
                }
                logprobs.extend(prompt, num_top, offset, format);
            }
            if !self.request.echo_only {
                logprobs.extend(output, num_top, offset, format);
            }
        });
        Some(logprobs)
    }
}
