//! What every route shares: the front, the settings, the bounds on requests.
//!
//! Invariant: cheap to clone, constant for the life of the server.

use std::sync::{Arc, OnceLock};
use std::time::{SystemTime, UNIX_EPOCH};

use hotspare_front::Front;
use hotspare_protocol::{AnswerHead, ApiError, RequestLimits};
use tokio_util::sync::CancellationToken;

use crate::HttpConfig;
use crate::body_budget::BodyBudget;
use crate::text_lanes::{TextLanes, TextUse};
use crate::unknown_fields::UnknownFields;

/// Characters of a model hash that the fingerprint shows.
const NUM_HASH_CHARS: usize = 8;

/// The routes' state.
#[derive(Clone)]
pub(crate) struct App(Arc<Shared>);

pub(crate) struct Shared {
    pub(crate) front: Front,
    pub(crate) config: HttpConfig,
    pub(crate) limits: RequestLimits,
    /// Cancelled when answers that still run have to end.
    pub(crate) closing: CancellationToken,
    pub(crate) unknown_fields: UnknownFields,
    pub(crate) bodies: BodyBudget,
    text_lanes: TextLanes,
    fingerprint: OnceLock<String>,
}

impl std::ops::Deref for App {
    type Target = Shared;

    fn deref(&self) -> &Shared {
        &self.0
    }
}

impl App {
    pub(crate) fn new(front: Front, config: HttpConfig, closing: CancellationToken) -> Self {
        let served = front.served_model();
        let limits = RequestLimits {
            max_logprobs: config.max_logprobs,
            max_num_choices: config.max_num_choices,
            trust_request_chat_template: config.trust_request_chat_template,
            has_tokenizer: front.text().is_some(),
            ..RequestLimits::new(served.max_model_len, served.vocab_size)
        };
        Self(Arc::new(Shared {
            front,
            limits,
            closing,
            unknown_fields: UnknownFields::new(config.max_num_logged_fields),
            bodies: BodyBudget::new(&config),
            text_lanes: TextLanes::new(&config),
            config,
            fingerprint: OnceLock::new(),
        }))
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
            model: self.front.served_model().name().to_owned(),
            system_fingerprint: self.fingerprint().map(str::to_owned),
        }
    }

    /// Names this build and the model that runs; `None` until an engine has said which.
    fn fingerprint(&self) -> Option<&str> {
        if let Some(known) = self.fingerprint.get() {
            return Some(known);
        }
        let status = self.front.status();
        let hash = &status.engines.first()?.model_hash;
        if hash.is_empty() {
            return None;
        }
        let hash: String = hash.chars().take(NUM_HASH_CHARS).collect();
        let text = format!("hotspare-{}-{hash}", env!("CARGO_PKG_VERSION"));
        Some(self.fingerprint.get_or_init(|| text))
    }
}

/// Now.
pub(crate) fn unix_seconds() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}
