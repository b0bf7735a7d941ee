//! `POST /v1/completions`.
//!
//! Invariant: choice `i` of the answer belongs to prompt `i / n`, streamed or not.

use axum::extract::Request;
use axum::http::StatusCode;
use axum::response::Response;
use hotspare_front::GenerationStream;
use hotspare_protocol::{AnswerHead, ApiError, CompletionAnswer, CompletionChoice, FinishReason};

use super::completion_echo::Prompts;
use super::completion_events::CompletionEvents;
use crate::app::{App, Pinned};
use crate::body_budget::BodyShare;
use crate::collect::{Collected, collect};
use crate::tally::Tally;
use crate::text_lanes::TextUse;
use crate::texts::with_format;
use crate::{body, headers, plan, reply, sse};

/// The route.
pub(crate) async fn create(Pinned(app): Pinned, request: Request) -> Response {
    reply::respond(app.closing.clone(), answer(app, request)).await
}

async fn answer(app: App, request: Request) -> Result<Response, ApiError> {
    let name = headers::request_name(request.headers());
    let priority = headers::priority(request.headers())?;
    let body = body::read_json(request, &app).await?;
    let len = body.bytes.len();
    let (mut plan, mut share) = app
        .text_work(TextUse::Generate, len, move |app| {
            Ok((plan::completion(app, &body.bytes)?, body.share))
        })
        .await?;
    plan.job.priority = priority.unwrap_or(plan.job.priority);
    let name = name.or_else(|| plan.request.output.request_id.take());
    let tally = Tally::new(&app, &plan.job.prompts, plan.job.n);
    let prompts = Prompts::new(plan.request, &plan.job.prompts);
    let stream = app.front.generate(plan.job).await;
    let stream = stream.map_err(reply::generate_error)?;
    let head = app.answer_head("cmpl", name);
    if prompts.request.stream.stream {
        let num_choices = tally.num_choices();
        let surroundings = sse::Surroundings::new(&app, share);
        let events = CompletionEvents::new(app, &head, prompts, tally);
        return Ok(sse::response(stream, num_choices, events, surroundings));
    }
    let body = whole(&app, &head, &prompts, stream, tally, &mut share).await?;
    drop(share);
    Ok(reply::json(StatusCode::OK, body))
}

async fn whole(
    app: &App,
    head: &AnswerHead,
    prompts: &Prompts,
    stream: GenerationStream,
    mut tally: Tally,
    share: &mut BodyShare,
) -> Result<Vec<u8>, ApiError> {
    let max_bytes = app.config.max_whole_answer_bytes;
    let collected = collect(stream, &mut tally, share, max_bytes).await?;
    if prompts.request.echo_only {
        tally.drop_output();
    }
    let choices = collected
        .into_iter()
        .enumerate()
        .map(|(index, choice)| completion_choice(app, prompts, index, choice));
    let answer = CompletionAnswer {
        head,
        choices: choices.collect(),
        usage: tally.usage(),
    };
    Ok(answer.to_json())
}

fn completion_choice(
    app: &App,
    prompts: &Prompts,
    index: usize,
    mut choice: Collected,
) -> CompletionChoice {
    let request = &prompts.request;
    let mut finish = choice.finish();
    if request.echo_only {
        choice.text.clear();
        choice.token_ids.clear();
        (finish.reason, finish.stop_reason) = (FinishReason::Length, None);
    }
    let echoed = Some(&*choice.prompt_logprobs).filter(|_| request.echo);
    let logprobs = prompts.logprobs(app, index, echoed, &choice.logprobs, &mut 0);
    let prompt_logprobs = request.sampling.prompt_logprobs.map(|_| {
        let as_ids = request.output.return_tokens_as_token_ids;
        let text = app.view.text().map(|text| &**text);
        with_format(text, as_ids, |format| {
            format.prompt(&choice.prompt_logprobs)
        })
    });
    let output = &request.output;
    let shows_prompt = request.echo || output.return_prompt_text;
    let prompt_text = match shows_prompt {
        true => prompts.text(app, index),
        false => String::new(),
    };
    CompletionChoice {
        index,
        text: match request.echo {
            true => format!("{prompt_text}{}", choice.text),
            false => choice.text,
        },
        logprobs,
        finish_reason: finish.reason,
        stop_reason: finish.stop_reason,
        token_ids: output.return_token_ids.then_some(choice.token_ids),
        prompt_logprobs,
        prompt_token_ids: output.return_token_ids.then(|| prompts.ids(index).to_vec()),
        prompt_text: output.return_prompt_text.then_some(prompt_text),
    }
}
