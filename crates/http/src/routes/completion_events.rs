//! The events of a streamed text completion.
//!
//! Invariant: one event for each token that shows something, whatever arrived together; an echoed
//! prompt comes with a choice's first.

use hotspare_front::ChoiceDelta;
use hotspare_protocol::{AnswerHead, CompletionChunks, CompletionDelta, StreamOptions};

use super::completion_echo::Prompts;
use crate::app::App;
use crate::sse::Events;
use crate::tally::Tally;

pub(super) struct CompletionEvents {
    app: App,
    chunks: CompletionChunks,
    tally: Tally,
    prompts: Prompts,
    stream: StreamOptions,
    choices: Vec<ChoiceState>,
}

#[derive(Clone, Default)]
struct ChoiceState {
    has_begun: bool,
    text_offset: u64,
}

impl CompletionEvents {
    pub(super) fn new(app: App, head: &AnswerHead, prompts: Prompts, tally: Tally) -> Self {
        let force_usage = app.config.enable_force_include_usage;
        let stream = prompts.request.stream;
        Self {
            chunks: CompletionChunks::new(head),
            stream: StreamOptions {
                include_usage: stream.include_usage | force_usage,
                continuous_usage_stats: stream.continuous_usage_stats | force_usage,
                ..stream
            },
            choices: vec![ChoiceState::default(); tally.num_choices()],
            tally,
            prompts,
            app,
        }
    }
}

impl Events for CompletionEvents {
    fn on_delta(&mut self, mut delta: ChoiceDelta, out: &mut Vec<u8>) {
        self.tally.count(&delta);
        let request = &self.prompts.request;
        if request.echo_only {
            self.tally.drop_output();
            delta.text.clear();
            delta.token_ids.clear();
        }
        let index = delta.index as usize;
        let Some(choice) = self.choices.get_mut(index) else {
            return;
        };
        let is_first = !std::mem::replace(&mut choice.has_begun, true);
        let echoes = is_first && request.echo;
        if echoes {
            let prompt = self.prompts.text(&self.app, index);
            delta.text.insert_str(0, &prompt);
        }
        let prompt_logprobs = Some(&*delta.prompt_logprobs).filter(|_| echoes);
        let logprobs = self
            .prompts
            .logprobs(
                &self.app,
                index,
                prompt_logprobs,
                &delta.logprobs,
                &mut choice.text_offset,
            )
            .filter(|logprobs| !logprobs.is_empty());
        let return_ids = request.output.return_token_ids;
        let ids = Some(&*delta.token_ids).filter(|ids| return_ids && !ids.is_empty());
        let prompt_ids = (is_first && return_ids).then(|| self.prompts.ids(index));
        let shows_something =
            !delta.text.is_empty() || logprobs.is_some() || ids.is_some() || prompt_ids.is_some();
        if !shows_something && delta.finish.is_none() {
            return;
        }
        let chunk = CompletionDelta {
            text: &delta.text,
            logprobs: logprobs.as_ref(),
            token_ids: ids,
            prompt_token_ids: prompt_ids,
            finish: delta
                .finish
                .map(|finish| (finish.reason, finish.stop_reason)),
        };
        let continuous = self.stream.continuous_usage_stats;
        let usage = continuous.then(|| self.tally.choice_usage(delta.index));
        self.chunks
            .write_delta(delta.index, &chunk, usage.as_ref(), out);
    }

    fn on_end(&mut self, out: &mut Vec<u8>) {
        if self.stream.include_usage {
            self.chunks.write_usage(&self.tally.usage(), out);
        }
    }
}
