//! `GET /v1/models` and `GET /v1/models/{id}`.
//!
//! Invariant: every name in the list is one that requests may use.

use axum::extract::Path;
use axum::extract::rejection::PathRejection;
use axum::http::{StatusCode, Uri};
use axum::response::Response;
use hotspare_front::ServedModel;
use hotspare_protocol::{ApiError, ModelCard, model_json, models_json};

use crate::app::{App, Pinned};
use crate::reply;

fn card<'a>(served: &'a ServedModel, name: &'a str, hash: &'a str) -> ModelCard<'a> {
    ModelCard {
        id: name,
        root: &served.root,
        created: served.created,
        max_model_len: served.max_model_len,
        model_hash: Some(hash).filter(|hash| !hash.is_empty()),
    }
}

/// Of the model that the main engine runs; empty until it has said.
fn model_hash(app: &App) -> String {
    let engines = app.front.status().engines;
    let main = engines.into_iter().find(|engine| engine.name == "main");
    main.map(|engine| engine.model_hash).unwrap_or_default()
}

/// All names.
pub(crate) async fn list(Pinned(app): Pinned) -> Response {
    let served = app.view.served();
    let hash = model_hash(&app);
    let cards = served.names.iter().map(|name| card(served, name, &hash));
    reply::json(StatusCode::OK, models_json(&cards.collect::<Vec<_>>()))
}

/// One name; it may hold slashes.
pub(crate) async fn get(
    Pinned(app): Pinned,
    uri: Uri,
    name: Result<Path<String>, PathRejection>,
) -> Response {
    let served = app.view.served();
    // A path that is no text names no model either.
    let name = name.map_or_else(|_| uri.path().to_owned(), |Path(name)| name);
    if !served.is_called(&name) {
        return reply::error(&ApiError::model_not_found(&name, &served.names));
    }
    let hash = model_hash(&app);
    reply::json(StatusCode::OK, model_json(&card(served, &name, &hash)))
}
