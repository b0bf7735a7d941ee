//! What every route shares: the front, the settings, the bounds on requests.
//!
//! Invariant: cheap to clone; all but the model is constant for the life of the server, and the
//! model for the life of a request.

use std::convert::Infallible;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{SystemTime, UNIX_EPOCH};

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use hotspare_front::Front;
use hotspare_protocol::{AnswerHead, ApiError};
use tokio_util::sync::CancellationToken;

use crate::HttpConfig;
use crate::body_budget::BodyBudget;
use crate::text_lanes::{TextLanes, TextUse};
use crate::unknown_fields::UnknownFields;
use crate::view::View;

/// The routes' state, and for a request the model that it is checked and answered against.
#[derive(Clone)]
pub(crate) struct App {
    shared: Arc<Shared>,
    pub(crate) view: Arc<View>,
}

pub(crate) struct Shared {
    pub(crate) front: Front,
    pub(crate) config: HttpConfig,
    /// Cancelled when answers that still run have to end.
    pub(crate) closing: CancellationToken,
    pub(crate) unknown_fields: UnknownFields,
    pub(crate) bodies: BodyBudget,
    text_lanes: TextLanes,
    /// Of the model that was served when somebody looked last.
    latest: RwLock<Arc<View>>,
}

/// The routes' state with the model that is served as the request comes.
pub(crate) struct Pinned(pub(crate) App);

impl FromRequestParts<App> for Pinned {
    type Rejection = Infallible;

    async fn from_request_parts(_: &mut Parts, app: &App) -> Result<Self, Infallible> {
        Ok(Self(app.pinned()))
    }
}

impl std::ops::Deref for App {
    type Target = Shared;

    fn deref(&self) -> &Shared {
        &self.shared
    }
}

impl App {
    pub(crate) fn new(front: Front, config: HttpConfig, closing: CancellationToken) -> Self {
        let view = Arc::new(View::new(front.model(), &config));
        let shared = Shared {
            front,
            closing,
            unknown_fields: UnknownFields::new(config.max_num_logged_fields),
            bodies: BodyBudget::new(&config),
            text_lanes: TextLanes::new(&config),
            config,
            latest: RwLock::new(Arc::clone(&view)),
        };
        Self {
            shared: Arc::new(shared),
            view,
        }
    }

    /// The same with the model that is served now.
    pub(crate) fn pinned(&self) -> Self {
        let model = self.front.model();
        // A panic elsewhere leaves one view or the other.
        let latest = self.latest.read().unwrap_or_else(PoisonError::into_inner);
        let mut view = Arc::clone(&latest);
        drop(latest);
        if !Arc::ptr_eq(&view.model, &model) {
            view = Arc::new(View::new(model, &self.config));
            let mut latest = self.latest.write().unwrap_or_else(PoisonError::into_inner);
            latest.clone_from(&view);
        }
        Self {
            shared: Arc::clone(&self.shared),
            view,
        }
    }

    /// Runs `work` here where it is short, else on a thread that may block, in its turn.
    ///
    /// # Errors
    /// Those of `work`; 503 where too much waits for a turn.
    pub(crate) async fn text_work<T: Send + 'static>(
        &self,
        text_use: TextUse,
        body_len: usize,
        work: impl FnOnce(&App) -> Result<T, ApiError> + Send + 'static,
    ) -> Result<T, ApiError> {
        // A request's own template may run for long, however short it is.
        let may_run_long = self.config.trust_request_chat_template;
        if body_len <= self.config.max_inline_body_bytes && !may_run_long {
            return work(self);
        }
        let permit = self.text_lanes.enter(text_use, body_len).await?;
        let app = self.clone();
        let done = tokio::task::spawn_blocking(move || {
            let outcome = work(&app);
            // Held to the end of the work, also where the client has left.
            drop(permit);
            outcome
        })
        .await;
        done.map_err(|error| {
            tracing::error!(%error, "preparing a request failed");
            ApiError::internal("The server had an error while processing your request.")
        })?
    }

    /// What the answer to a request begins with; `kind` is `chatcmpl` or `cmpl`.
    pub(crate) fn answer_head(&self, kind: &str, name: Option<String>) -> AnswerHead {
        let name = name.unwrap_or_else(|| uuid::Uuid::new_v4().simple().to_string());
        AnswerHead {
            id: format!("{kind}-{name}"),
            created: unix_seconds(),
            model: self.view.served().name().to_owned(),
            system_fingerprint: self.view.fingerprint(&self.front).map(str::to_owned),
        }
    }
}

/// Now.
pub(crate) fn unix_seconds() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}
