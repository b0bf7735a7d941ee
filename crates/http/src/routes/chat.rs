//! `POST /v1/chat/completions`.
//!
//! Invariant: the answer's id, `created` and model are set once, before the first token.

use axum::extract::Request;
use axum::http::StatusCode;
use axum::response::Response;
use hotspare_protocol::{
    AnswerHead, ApiError, ChatAnswer, ChatChoice, ChatLogprobs, ChatRequest, Usage,
};

use super::chat_events::ChatEvents;
use crate::app::{App, Pinned};
use crate::collect::{Collected, collect};
use crate::plan::{self, ChatPlan};
use crate::tally::Tally;
use crate::text_lanes::TextUse;
use crate::texts::with_format;
use crate::{body, headers, reply, sse};

/// The route.
pub(crate) async fn create(Pinned(app): Pinned, request: Request) -> Response {
    reply::respond(app.closing.clone(), answer(app, request)).await
}

async fn answer(app: App, request: Request) -> Result<Response, ApiError> {
    let name = headers::request_name(request.headers());
    let priority = headers::priority(request.headers())?;
    let body = body::read_json(request, &app).await?;
    let len = body.bytes.len();
    let (plan, mut share) = app
        .text_work(TextUse::Generate, len, move |app| {
            Ok((plan::chat(app, &body.bytes)?, body.share))
        })
        .await?;
    let ChatPlan {
        mut request,
        prompt_text,
        mut job,
    } = plan;
    job.priority = priority.unwrap_or(job.priority);
    let name = name.or_else(|| request.output.request_id.take());
    let mut tally = Tally::new(&app, &job.prompts, job.n);
    let prompt_ids = match request.output.return_token_ids {
        true => job.prompts.first().cloned(),
        false => None,
    };
    let stream = app.front.generate(job).await;
    let stream = stream.map_err(reply::generate_error)?;
    let head = app.answer_head("chatcmpl", name);
    if request.stream.stream {
        let num_choices = tally.num_choices();
        let surroundings = sse::Surroundings::new(&app, share);
        let events = ChatEvents::new(app, &head, request, tally, prompt_ids);
        return Ok(sse::response(stream, num_choices, events, surroundings));
    }
    let max_bytes = app.config.max_whole_answer_bytes;
    let collected = collect(stream, &mut tally, &mut share, max_bytes).await?;
    let answer = Whole {
        request: &request,
        prompt_text: &prompt_text,
        prompt_ids: prompt_ids.as_deref(),
        usage: tally.usage(),
    };
    let body = answer.to_json(&app, &head, collected);
    drop(share);
    Ok(reply::json(StatusCode::OK, body))
}

/// An answer that is not streamed, but for its choices.
struct Whole<'a> {
    request: &'a ChatRequest,
    prompt_text: &'a str,
    prompt_ids: Option<&'a [u32]>,
    usage: Usage,
}

impl Whole<'_> {
    fn to_json(&self, app: &App, head: &AnswerHead, collected: Vec<Collected>) -> Vec<u8> {
        let request = self.request;
        let prompt_logprobs = request.sampling.prompt_logprobs.and_then(|_| {
            let logprobs = &collected.first()?.prompt_logprobs;
            let as_ids = request.output.return_tokens_as_token_ids;
            let text = app.view.text().map(|text| &**text);
            Some(with_format(text, as_ids, |format| format.prompt(logprobs)))
        });
        let echo = request.echo_text();
        let choices = collected
            .into_iter()
            .map(|choice| chat_choice(app, request, &echo, choice));
        let answer = ChatAnswer {
            head,
            role: request.response_role(),
            choices: choices.collect(),
            usage: self.usage,
            prompt_logprobs,
            prompt_token_ids: self.prompt_ids,
            prompt_text: request
                .output
                .return_prompt_text
                .then_some(self.prompt_text),
        };
        answer.to_json()
    }
}

fn chat_choice(app: &App, request: &ChatRequest, echo: &str, choice: Collected) -> ChatChoice {
    let finish = choice.finish();
    let output = &request.output;
    let logprobs = request.num_top_logprobs.map(|num_top| {
        let mut logprobs = ChatLogprobs::default();
        let text = app.view.text().map(|text| &**text);
        with_format(text, output.return_tokens_as_token_ids, |format| {
            logprobs.extend(&choice.logprobs, num_top, format);
        });
        logprobs
    });
    ChatChoice {
        content: match echo {
            "" => choice.text,
            echo => format!("{echo}{}", choice.text),
        },
        logprobs,
        finish_reason: finish.reason,
        stop_reason: finish.stop_reason,
        token_ids: output.return_token_ids.then_some(choice.token_ids),
    }
}
