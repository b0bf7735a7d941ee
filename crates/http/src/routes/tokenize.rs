//! `POST /tokenize` and `POST /detokenize`.
//!
//! Answers are written while they are sent: one may be ten times as long as its request.
//!
//! Invariant: what `/tokenize` shows for messages is exactly what a chat completion would run on.

use std::sync::Arc;

use axum::extract::Request;
use axum::response::Response;
use hotspare_protocol::{
    ApiError, DetokenizePieces, DetokenizeRequest, TokenizeAnswer, TokenizeInput, TokenizePieces,
    TokenizeRequest, check_model,
};
use hotspare_text::{Detokenizer, Keep};

use crate::app::{App, Pinned};
use crate::body::{self, RequestBody};
use crate::pieces::{self, PIECE_BYTES};
use crate::plan::{self, PromptBound};
use crate::reply;
use crate::text_lanes::TextUse;

/// `/tokenize`.
pub(crate) async fn tokenize(Pinned(app): Pinned, request: Request) -> Response {
    reply::respond(app.closing.clone(), text_route(app, request, tokens)).await
}

/// `/detokenize`.
pub(crate) async fn detokenize(Pinned(app): Pinned, request: Request) -> Response {
    reply::respond(app.closing.clone(), text_route(app, request, text)).await
}

type Work = fn(&App, RequestBody) -> Result<Response, ApiError>;

async fn text_route(app: App, request: Request, work: Work) -> Result<Response, ApiError> {
    let body = body::read_json(request, &app).await?;
    let len = body.bytes.len();
    app.text_work(TextUse::Tokenize, len, move |app| work(app, body))
        .await
}

fn tokens(app: &App, body: RequestBody) -> Result<Response, ApiError> {
    let request = TokenizeRequest::parse(&body.bytes, &app.view.limits)?;
    app.unknown_fields.log(&request.unknown_fields);
    check_model(request.model.as_deref(), &app.view.served().names)?;
    let model = Arc::clone(plan::require_text(app)?);
    let (prompt, add_special_tokens) = match request.input {
        TokenizeInput::Prompt {
            text,
            add_special_tokens,
        } => (text, add_special_tokens),
        TokenizeInput::Messages(fields) => {
            let prompt = plan::render(app, &model, &fields)?;
            (prompt, fields.add_special_tokens)
        }
    };
    // Counting the tokens of a text that is too long for the model is what this is for.
    let bound = PromptBound::Pieces(Keep::All);
    let tokens = plan::encode(app, &model, &prompt, add_special_tokens, bound)?;
    let mut answer = TokenizePieces::new(TokenizeAnswer {
        max_model_len: app.view.limits.max_model_len,
        tokens,
        with_token_strs: request.return_token_strs,
        prompt_text: request.return_prompt_text.then_some(prompt),
    });
    let share = body.share;
    Ok(pieces::response(move |out| {
        // The ids are in memory until the last piece is out.
        let _held = &share;
        let spell = |id| model.id_to_token(id).unwrap_or_default();
        answer.write(PIECE_BYTES, spell, out)
    }))
}

fn text(app: &App, body: RequestBody) -> Result<Response, ApiError> {
    let request = DetokenizeRequest::parse(&body.bytes, &app.view.limits)?;
    check_model(request.model.as_deref(), &app.view.served().names)?;
    let model = plan::require_text(app)?;
    let mut detokenizer = Detokenizer::new(model, &[], false);
    let mut tokens = request.tokens.into_iter();
    let share = body.share;
    let mut is_first = true;
    Ok(pieces::response(move |out| {
        let _held = &share;
        if std::mem::take(&mut is_first) {
            DetokenizePieces.begin(out);
        }
        let mut part = String::new();
        for token in tokens.by_ref() {
            detokenizer.push_into(token, &mut part);
            if part.len() >= PIECE_BYTES {
                DetokenizePieces.text(&part, out);
                return true;
            }
        }
        part += &detokenizer.finish();
        DetokenizePieces.text(&part, out);
        DetokenizePieces.end(out);
        false
    }))
}
