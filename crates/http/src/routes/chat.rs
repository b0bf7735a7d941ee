//! `POST /v1/chat/completions`.
//!
//! Invariant: the answer's id, `created` and model are set once, before the first token.

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use hotspare_front::GenerationStream;
use hotspare_protocol::{ApiError, ChatAnswer, ChatChoice, ChatLogprobs};

use super::chat_events::ChatEvents;
use crate::app::App;
use crate::collect::{Collected, collect};
use crate::plan::{self, ChatPlan};
use crate::tally::Tally;
use crate::texts::with_format;
use crate::{body, headers, reply, sse};

/// The route.
pub(crate) async fn create(State(app): State<App>, request: Request) -> Response {
    reply::respond(answer(app, request).await)
}

async fn answer(app: App, request: Request) -> Result<Response, ApiError> {
    let name = headers::request_name(request.headers());
    let body = body::read_json(request, &app.config).await?;
    let len = body.len();
    let mut plan = app
        .text_work(len, move |app| plan::chat(app, &body))
        .await?;
    let name = name.or_else(|| plan.request.output.request_id.take());
    let tally = Tally::new(&app, &plan.job.prompts, plan.job.n);
    let prompt_ids = match plan.request.output.return_token_ids {
        true => plan.job.prompts.first().cloned(),
        false => None,
    };
    let job = plan.job.clone();
    let stream = app.front.generate(job).await;
    let stream = stream.map_err(reply::generate_error)?;
    let head = app.answer_head("chatcmpl", name);
    if plan.request.stream.stream {
        let num_choices = tally.num_choices();
        let keep_alive = app.config.sse_keep_alive_interval();
        let events = ChatEvents::new(app, &head, plan.request, tally, prompt_ids);
        return Ok(sse::response(stream, num_choices, events, keep_alive));
    }
    let body = whole(&app, &head, &plan, stream, tally, prompt_ids).await?;
    Ok(reply::json(StatusCode::OK, body))
}

async fn whole(
    app: &App,
    head: &hotspare_protocol::AnswerHead,
    plan: &ChatPlan,
    stream: GenerationStream,
    mut tally: Tally,
    prompt_ids: Option<Vec<u32>>,
) -> Result<Vec<u8>, ApiError> {
    let collected = collect(stream, &mut tally).await?;
    let request = &plan.request;
    let prompt_logprobs = request.sampling.prompt_logprobs.and_then(|_| {
        let logprobs = &collected.first()?.prompt_logprobs;
        let as_ids = request.output.return_tokens_as_token_ids;
        let text = app.front.text().map(|text| &**text);
        Some(with_format(text, as_ids, |format| format.prompt(logprobs)))
    });
    let echo = request.echo_text();
    let choices = collected
        .into_iter()
        .map(|choice| chat_choice(app, plan, &echo, choice));
    let answer = ChatAnswer {
        head,
        role: request.response_role(),
        choices: choices.collect(),
        usage: tally.usage(),
        prompt_logprobs,
        prompt_token_ids: prompt_ids.as_deref(),
        prompt_text: request
            .output
            .return_prompt_text
            .then_some(plan.prompt_text.as_str()),
    };
    Ok(answer.to_json())
}

fn chat_choice(app: &App, plan: &ChatPlan, echo: &str, choice: Collected) -> ChatChoice {
    let finish = choice.finish();
    let output = &plan.request.output;
    let logprobs = plan.request.num_top_logprobs.map(|num_top| {
        let mut logprobs = ChatLogprobs::default();
        let text = app.front.text().map(|text| &**text);
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
