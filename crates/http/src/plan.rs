//! From a request's bytes to token ids: parse, check, render, tokenize.
//!
//! Everything here is plain computation, so that it can run on a thread that may block.
//!
//! Invariant: a prompt that cannot fit is refused by its length in characters, before it costs a
//! tokenizer run; of one that is truncated only what is kept is tokenized; and no run takes more
//! than `max_unsplit_text_bytes` at once.

use std::sync::Arc;

use hotspare_front::GenerationJob;
use hotspare_protocol::{
    ApiError, ChatRequest, CompletionRequest, Prompt, SamplingFields, TemplateFields,
    TruncationSide, check_model,
};
use hotspare_text::{ChatInput, Keep, LocalTime, TemplateLimits, TextError, TextModel};

use crate::app::{App, unix_seconds};
use crate::job::{self, NumLogprobs};
use crate::own_template;

/// A chat request and the job it asks for.
pub(crate) struct ChatPlan {
    pub(crate) request: ChatRequest,
    pub(crate) prompt_text: String,
    pub(crate) job: GenerationJob,
}

/// A completion request and the job it asks for.
pub(crate) struct CompletionPlan {
    pub(crate) request: CompletionRequest,
    pub(crate) job: GenerationJob,
}

/// Plans a chat completion.
///
/// # Errors
/// An answer to the client.
pub(crate) fn chat(app: &App, body: &[u8]) -> Result<ChatPlan, ApiError> {
    let request = ChatRequest::parse(body, &app.view.limits)?;
    check_model(request.model.as_deref(), &app.view.served().names)?;
    app.unknown_fields.log(&request.unknown_fields);
    check_stop_strings(app, &request.sampling)?;
    let text = require_text(app)?;
    let prompt_text = render(app, text, &request.template)?;
    let mut ids = encode(
        app,
        text,
        &prompt_text,
        request.template.add_special_tokens,
        PromptBound::of(&request.sampling, app),
    )?;
    request.sampling.truncate_prompt(&mut ids, &app.view.limits);
    let logprobs = NumLogprobs {
        output: request.num_top_logprobs,
        prompt: request.sampling.num_prompt_logprobs(&app.view.limits),
    };
    let default_max_tokens = app.view.defaults().max_tokens;
    let job = job::make(
        app,
        &request.sampling,
        vec![ids],
        logprobs,
        default_max_tokens,
    )?;
    Ok(ChatPlan {
        request,
        prompt_text,
        job,
    })
}

/// Plans a completion.
///
/// # Errors
/// An answer to the client.
pub(crate) fn completion(app: &App, body: &[u8]) -> Result<CompletionPlan, ApiError> {
    let request = CompletionRequest::parse(body, &app.view.limits)?;
    check_model(request.model.as_deref(), &app.view.served().names)?;
    app.unknown_fields.log(&request.unknown_fields);
    let sampling = &request.sampling;
    check_stop_strings(app, sampling)?;
    let bound = PromptBound::of(sampling, app);
    let mut prompts = Vec::with_capacity(request.prompts.len());
    for prompt in &request.prompts {
        let mut ids = match prompt {
            Prompt::Ids(ids) => ids.clone(),
            Prompt::Text(prompt) => {
                let text = require_text(app)?;
                let special = request.add_special_tokens;
                encode(app, text, prompt, special, bound)?
            }
        };
        sampling.truncate_prompt(&mut ids, &app.view.limits);
        prompts.push(ids);
    }
    let logprobs = NumLogprobs {
        output: request.num_logprobs,
        prompt: request.num_prompt_logprobs(&app.view.limits),
    };
    let job = job::make(app, sampling, prompts, logprobs, None)?;
    Ok(CompletionPlan { request, job })
}

/// Renders messages to the text of a prompt.
///
/// # Errors
/// 400 with the template's own message where it refuses the conversation.
pub(crate) fn render(
    app: &App,
    text: &TextModel,
    fields: &TemplateFields,
) -> Result<String, ApiError> {
    let limits = TemplateLimits {
        max_fuel: app.config.max_request_template_fuel,
        max_output_bytes: app.config.max_request_template_output_bytes,
    };
    let messages = fields.template_messages();
    let input = ChatInput {
        messages: &messages,
        tools: fields.tools.as_deref(),
        documents: fields.documents.as_deref(),
        add_generation_prompt: fields.add_generation_prompt,
        continue_final_message: fields.continue_final_message,
        kwargs: Some(&fields.chat_template_kwargs),
        now: LocalTime {
            unix_secs: i64::try_from(unix_seconds()).unwrap_or(i64::MAX),
            utc_offset_secs: 0,
        },
    };
    let rendered = match fields.template() {
        Some(source) => {
            let job = text.render_job(source, limits, &input);
            own_template::render(&job, &app.config)?
        }
        None => text.render_chat(&input, None),
    };
    rendered.map_err(|error| text_error(&error))
}

/// How much of a prompt is wanted.
#[derive(Clone, Copy, Debug)]
pub(crate) enum PromptBound {
    /// All of it, and it has to fit the context.
    Fit,
    /// These ids of it, however long it is.
    Pieces(Keep),
}

impl PromptBound {
    fn of(sampling: &SamplingFields, app: &App) -> Self {
        let Some(num_kept) = sampling.truncate_prompt_tokens else {
            return Self::Fit;
        };
        // -1 is what the context has room for. More than is kept is cut off later.
        let max_model_len = app.view.limits.max_model_len as usize;
        let num_kept = usize::try_from(num_kept).unwrap_or(max_model_len);
        Self::Pieces(match sampling.truncation_side {
            TruncationSide::Left => Keep::Last(num_kept),
            TruncationSide::Right => Keep::First(num_kept),
        })
    }
}

fn check_stop_strings(app: &App, sampling: &SamplingFields) -> Result<(), ApiError> {
    let max = app.config.max_stop_string_bytes;
    match sampling.stop.iter().map(String::len).max() {
        Some(len) if len > max => {
            let message = format!("each stop string must have at most {max} bytes, got {len}.");
            Err(ApiError::bad_request(message).with_param("stop"))
        }
        _ => Ok(()),
    }
}

/// Tokenizes a prompt.
///
/// # Errors
/// 400 where it cannot fit, or cannot be tokenized in pieces that are short enough.
pub(crate) fn encode(
    app: &App,
    text: &TextModel,
    prompt: &str,
    add_special_tokens: bool,
    bound: PromptBound,
) -> Result<Vec<u32>, ApiError> {
    let keep = match bound {
        PromptBound::Pieces(keep) => keep,
        PromptBound::Fit => {
            let num_chars = prompt.chars().count();
            let max_chars_per_token = text.max_chars_per_token();
            app.view
                .limits
                .check_prompt_chars(num_chars, max_chars_per_token)?;
            Keep::All
        }
    };
    let max_unsplit_bytes = app.config.max_unsplit_text_bytes;
    text.encode_bounded(prompt, add_special_tokens, keep, max_unsplit_bytes)
        .map_err(|error| text_error(&error))
}

/// The tokenizer.
///
/// # Errors
/// 400 where the server has none.
pub(crate) fn require_text(app: &App) -> Result<&Arc<TextModel>, ApiError> {
    app.view.text().ok_or_else(|| {
        ApiError::bad_request(
            "This server runs without a tokenizer (--skip-tokenizer-init): it takes token ids on \
             /v1/completions only.",
        )
    })
}

fn text_error(error: &TextError) -> ApiError {
    if error.is_request_error() {
        return ApiError::bad_request(error.to_string());
    }
    tracing::error!(%error, "the model's text files failed on a request");
    ApiError::internal("The server had an error while processing your request.")
}
