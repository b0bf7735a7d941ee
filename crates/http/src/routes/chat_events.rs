//! The events of a streamed chat completion.
//!
//! Invariant: one event for each token that shows something, whatever arrived together.

use hotspare_front::ChoiceDelta;
use hotspare_protocol::{
    AnswerHead, ChatChunks, ChatDelta, ChatLogprobs, ChatRequest, StreamOptions, Usage,
};

use crate::app::App;
use crate::sse::Events;
use crate::tally::Tally;
use crate::texts::with_format;

pub(super) struct ChatEvents {
    app: App,
    chunks: ChatChunks,
    tally: Tally,
    stream: StreamOptions,
    role: String,
    echo: String,
    prompt_ids: Option<Vec<u32>>,
    num_top_logprobs: Option<u32>,
    return_token_ids: bool,
    as_token_ids: bool,
    has_begun: bool,
}

impl ChatEvents {
    pub(super) fn new(
        app: App,
        head: &AnswerHead,
        request: ChatRequest,
        tally: Tally,
        prompt_ids: Option<Vec<u32>>,
    ) -> Self {
        let force_usage = app.config.enable_force_include_usage;
        Self {
            chunks: ChatChunks::new(head),
            tally,
            stream: StreamOptions {
                include_usage: request.stream.include_usage | force_usage,
                continuous_usage_stats: request.stream.continuous_usage_stats | force_usage,
                ..request.stream
            },
            role: request.response_role().to_owned(),
            echo: request.echo_text(),
            prompt_ids,
            num_top_logprobs: request.num_top_logprobs,
            return_token_ids: request.output.return_token_ids,
            as_token_ids: request.output.return_tokens_as_token_ids,
            has_begun: false,
            app,
        }
    }

    fn running_usage(&self, index: u32) -> Option<Usage> {
        let continuous = self.stream.continuous_usage_stats;
        continuous.then(|| self.tally.choice_usage(index))
    }

    /// The first chunk of every choice, and the echoed message.
    fn begin(&mut self, out: &mut Vec<u8>) {
        self.has_begun = true;
        let prompt_ids = self.prompt_ids.take();
        for index in 0..self.tally.num_choices() as u32 {
            // The prompt's ids come once, with the first chunk of all.
            let ids = prompt_ids.as_deref().filter(|_| index == 0);
            let usage = self.running_usage(index);
            self.chunks
                .write_role(index, &self.role, ids, usage.as_ref(), out);
        }
        if self.echo.is_empty() {
            return;
        }
        for index in 0..self.tally.num_choices() as u32 {
            let delta = ChatDelta {
                text: &self.echo,
                ..ChatDelta::default()
            };
            let usage = self.running_usage(index);
            self.chunks.write_delta(index, &delta, usage.as_ref(), out);
        }
    }
}

impl Events for ChatEvents {
    fn on_delta(&mut self, delta: ChoiceDelta, out: &mut Vec<u8>) {
        if !self.has_begun {
            self.begin(out);
        }
        self.tally.count(&delta);
        let mut logprobs = ChatLogprobs::default();
        if let Some(num_top) = self.num_top_logprobs {
            let text = self.app.view.text().map(|text| &**text);
            with_format(text, self.as_token_ids, |format| {
                logprobs.extend(&delta.logprobs, num_top, format);
            });
        }
        let ids = Some(&*delta.token_ids).filter(|ids| self.return_token_ids && !ids.is_empty());
        let shows_something = !delta.text.is_empty() || !logprobs.is_empty() || ids.is_some();
        if !shows_something && delta.finish.is_none() {
            return;
        }
        let chunk = ChatDelta {
            text: &delta.text,
            logprobs: Some(&logprobs).filter(|logprobs| !logprobs.is_empty()),
            token_ids: ids,
            finish: delta
                .finish
                .map(|finish| (finish.reason, finish.stop_reason)),
        };
        let usage = self.running_usage(delta.index);
        self.chunks
            .write_delta(delta.index, &chunk, usage.as_ref(), out);
    }

    fn on_end(&mut self, out: &mut Vec<u8>) {
        if self.stream.include_usage {
            self.chunks.write_usage(&self.tally.usage(), out);
        }
    }
}
