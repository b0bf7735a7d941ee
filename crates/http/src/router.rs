//! Which path leads where.
//!
//! Invariant: every answer, those to unknown paths and to browsers' preflights included, passes
//! through `headers::name`.

use axum::Router;
use axum::http::{HeaderName, HeaderValue};
use axum::middleware::from_fn_with_state;
use axum::routing::{get, post};
use hotspare_front::Front;
use tokio_util::sync::CancellationToken;
use tower_http::cors::{AllowHeaders, AllowMethods, AllowOrigin, CorsLayer};

use crate::app::App;
use crate::routes::{chat, completions, ha, health, models, reload, status, tokenize};
use crate::{HttpConfig, headers, reply};

/// All paths that stand for one resource.
pub(crate) const PATHS: [&str; 18] = [
    "/v1/chat/completions",
    "/v1/completions",
    "/v1/models",
    "/tokenize",
    "/detokenize",
    "/health",
    "/live",
    "/ready",
    "/ping",
    "/version",
    "/metrics",
    "/load",
    "/ha/status",
    "/ha/reload",
    "/ha/primary",
    "/ha/standby",
    "/ha/why-not",
    "/ha/history",
];

/// The routes over a front. Answers that run when `closing` is cancelled end with an error.
pub(crate) fn router(front: Front, config: HttpConfig, closing: CancellationToken) -> Router {
    let cors = cors(&config.allowed_origins);
    let app = App::new(front, config, closing);
    let router = Router::new()
        .route("/v1/chat/completions", post(chat::create))
        .route("/v1/completions", post(completions::create))
        .route("/v1/models", get(models::list))
        .route("/v1/models/{*name}", get(models::get))
        .route("/tokenize", post(tokenize::tokenize))
        .route("/detokenize", post(tokenize::detokenize))
        .route("/health", get(health::health))
        .route("/live", get(health::live))
        .route("/ready", get(health::ready))
        .route("/ping", get(health::health).post(health::health))
        .route("/version", get(status::version))
        .route("/metrics", get(status::metrics))
        .route("/load", get(status::load))
        .route("/ha/status", get(status::ha))
        .route("/ha/reload", post(reload::create))
        .route("/ha/primary", get(ha::primary))
        .route("/ha/standby", get(ha::standby))
        .route("/ha/why-not", get(ha::why_not))
        .route("/ha/history", get(ha::history))
        .route("/ha/{command}", post(ha::command))
        .fallback(reply::not_found)
        .method_not_allowed_fallback(reply::method_not_allowed)
        .layer(from_fn_with_state(app.clone(), headers::guard))
        .with_state(app.clone());
    let router = match cors {
        Some(cors) => router.layer(cors),
        None => router,
    };
    router.layer(from_fn_with_state(app, headers::name))
}

/// Lets pages of these origins call; names that are no origin let nobody in.
fn cors(origins: &[String]) -> Option<CorsLayer> {
    if origins.is_empty() {
        return None;
    }
    let origin = match origins.iter().any(|origin| origin == "*") {
        true => AllowOrigin::any(),
        false => AllowOrigin::list(
            origins
                .iter()
                .filter_map(|origin| HeaderValue::from_str(origin).ok()),
        ),
    };
    let exposed = [
        "x-request-id",
        "x-hotspare-node",
        "x-hotspare-epoch",
        "x-hotspare-degraded",
    ];
    Some(
        CorsLayer::new()
            .allow_origin(origin)
            .allow_methods(AllowMethods::mirror_request())
            .allow_headers(AllowHeaders::mirror_request())
            .expose_headers(exposed.map(HeaderName::from_static)),
    )
}
