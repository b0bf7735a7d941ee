//! `POST /tokenize` and `POST /detokenize`.
//!
//! Invariant: what `/tokenize` shows for messages is exactly what a chat completion would run on.

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use hotspare_protocol::{
    ApiError, DetokenizeAnswer, DetokenizeRequest, TokenizeAnswer, TokenizeInput, TokenizeRequest,
    check_model,
};
use hotspare_text::Keep;

use crate::app::App;
use crate::plan::PromptBound;
use crate::text_lanes::TextUse;
use crate::{body, plan, reply};

/// `/tokenize`.
pub(crate) async fn tokenize(State(app): State<App>, request: Request) -> Response {
    reply::respond(app.closing.clone(), text_route(app, request, tokens)).await
}

/// `/detokenize`.
pub(crate) async fn detokenize(State(app): State<App>, request: Request) -> Response {
    reply::respond(app.closing.clone(), text_route(app, request, text)).await
}

type Work = fn(&App, &[u8]) -> Result<Vec<u8>, ApiError>;

async fn text_route(app: App, request: Request, work: Work) -> Result<Response, ApiError> {
    let body = body::read_json(request, &app.config).await?;
    let len = body.len();
    let json = app
        .text_work(TextUse::Tokenize, len, move |app| work(app, &body))
        .await?;
    Ok(reply::json(StatusCode::OK, json))
}

fn tokens(app: &App, body: &[u8]) -> Result<Vec<u8>, ApiError> {
    let request = TokenizeRequest::parse(body, &app.limits)?;
    app.unknown_fields.log(&request.unknown_fields);
    check_model(request.model.as_deref(), &app.front.served_model().names)?;
    let model = plan::require_text(app)?;
    let (prompt, add_special_tokens) = match request.input {
        TokenizeInput::Prompt {
            text,
            add_special_tokens,
        } => (text, add_special_tokens),
        TokenizeInput::Messages(fields) => {
            let prompt = plan::render(app, model, &fields)?;
            (prompt, fields.add_special_tokens)
        }
    };
    // Counting the tokens of a text that is too long for the model is what this is for.
    let bound = PromptBound::Pieces(Keep::All);
    let tokens = plan::encode(app, model, &prompt, add_special_tokens, bound)?;
    let token_strs = request.return_token_strs.then(|| {
        tokens
            .iter()
            .map(|&id| model.id_to_token(id).unwrap_or_default())
            .collect()
    });
    let answer = TokenizeAnswer {
        count: tokens.len(),
        max_model_len: app.limits.max_model_len,
        tokens,
        token_strs,
        prompt_text: request.return_prompt_text.then_some(prompt),
    };
    Ok(answer.to_json())
}

fn text(app: &App, body: &[u8]) -> Result<Vec<u8>, ApiError> {
    let request = DetokenizeRequest::parse(body, &app.limits)?;
    check_model(request.model.as_deref(), &app.front.served_model().names)?;
    let model = plan::require_text(app)?;
    let prompt = model.decode(&request.tokens, false);
    Ok(DetokenizeAnswer { prompt }.to_json())
}
