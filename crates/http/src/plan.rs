//! From a request's bytes to token ids: parse, check, render, tokenize.
//!
//! Everything here is plain computation, so that it can run on a thread that may block.
//!
//! Invariant: a prompt that cannot fit is refused by its length in characters, before it costs a
//! tokenizer run.

use std::sync::Arc;

use hotspare_front::GenerationJob;
use hotspare_protocol::{
    ApiError, ChatRequest, CompletionRequest, Prompt, TemplateFields, check_model,
};
use hotspare_text::{ChatInput, ChatTemplate, LocalTime, TemplateLimits, TextError, TextModel};

use crate::app::{App, unix_seconds};
use crate::job::{self, NumLogprobs};

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
    let request = ChatRequest::parse(body, &app.limits)?;
    check_model(request.model.as_deref(), &app.front.served_model().names)?;
    app.unknown_fields.log(&request.unknown_fields);
    let text = require_text(app)?;
    let prompt_text = render(app, text, &request.template)?;
    // What the tokenizer may drop is not too long.
    let will_truncate = request.sampling.truncate_prompt_tokens.is_some();
    let mut ids = encode(
        app,
        text,
        &prompt_text,
        request.template.add_special_tokens,
        will_truncate,
    )?;
    request.sampling.truncate_prompt(&mut ids, &app.limits);
    let logprobs = NumLogprobs {
        output: request.num_top_logprobs,
        prompt: request.sampling.num_prompt_logprobs(&app.limits),
    };
    let default_max_tokens = app.front.defaults().max_tokens;
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
    let request = CompletionRequest::parse(body, &app.limits)?;
    check_model(request.model.as_deref(), &app.front.served_model().names)?;
    app.unknown_fields.log(&request.unknown_fields);
    let sampling = &request.sampling;
    let will_truncate = sampling.truncate_prompt_tokens.is_some();
    let mut prompts = Vec::with_capacity(request.prompts.len());
    for prompt in &request.prompts {
        let mut ids = match prompt {
            Prompt::Ids(ids) => ids.clone(),
            Prompt::Text(prompt) => {
                let text = require_text(app)?;
                let special = request.add_special_tokens;
                encode(app, text, prompt, special, will_truncate)?
            }
        };
        sampling.truncate_prompt(&mut ids, &app.limits);
        prompts.push(ids);
    }
    let logprobs = NumLogprobs {
        output: request.num_logprobs,
        prompt: request.num_prompt_logprobs(&app.limits),
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
    let own = fields
        .template()
        .map(|source| ChatTemplate::with_limits(source, limits))
        .transpose()
        .map_err(|error| text_error(&error))?;
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
    text.render_chat(&input, own.as_ref())
        .map_err(|error| text_error(&error))
}

/// Tokenizes a prompt.
///
/// # Errors
/// 400 where it cannot fit.
pub(crate) fn encode(
    app: &App,
    text: &TextModel,
    prompt: &str,
    add_special_tokens: bool,
    will_truncate: bool,
) -> Result<Vec<u32>, ApiError> {
    if !will_truncate {
        let num_chars = prompt.chars().count();
        app.limits
            .check_prompt_chars(num_chars, text.max_chars_per_token())?;
    }
    text.encode(prompt, add_special_tokens)
        .map_err(|error| text_error(&error))
}

/// The tokenizer.
///
/// # Errors
/// 400 where the server has none.
pub(crate) fn require_text(app: &App) -> Result<&Arc<TextModel>, ApiError> {
    app.front.text().ok_or_else(|| {
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
