//! Changing the model while requests run.
//!
//! Invariant: a reload that fails changes nothing; one that succeeds switches new requests at once
//! and leaves those that began to the engine on which they began.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::sync::oneshot;

use crate::metrics::Metrics;
use crate::model::Model;
use crate::supervisor::Reload;
use crate::{Front, FrontError};

impl Front {
    /// Serves another model, or the same one loaded afresh where `model` is `None`. Returns its
    /// name once it serves; requests that began on the old one finish there.
    ///
    /// # Errors
    /// Nothing has changed then: the old model is served.
    pub async fn reload(&self, model: Option<String>) -> Result<String, FrontError> {
        let shared = &self.shared;
        let Some(loader) = shared.loader.get().cloned() else {
            return Err(FrontError::Option("this server has one model".to_owned()));
        };
        if self.is_draining() {
            return Err(FrontError::Stopping);
        }
        let loaded = tokio::task::spawn_blocking(move || loader.load(model.as_deref())).await;
        let (info, launcher) =
            loaded.map_err(|panic| FrontError::Supervisor(panic.to_string()))??;
        let served = &info.served;
        let name = served.name().to_owned();
        let current = self.model();
        let is_like =
            current.served.name() == name && current.served.max_model_len == served.max_model_len;
        let metrics = match is_like {
            true => Arc::clone(&current.metrics),
            false => Arc::new(Metrics::new(
                &name,
                served.max_model_len,
                Arc::clone(&shared.slot),
                shared.journal.clone(),
            )),
        };
        let generation = shared.num_models.fetch_add(1, Ordering::Relaxed);
        let (done, is_done) = oneshot::channel();
        let reload = Reload {
            model: Arc::new(Model::new(info, generation, metrics)),
            launcher,
            done,
        };
        let sent = shared.reloads.send(reload).await;
        sent.map_err(|_| FrontError::Stopping)?;
        is_done.await.unwrap_or(Err(FrontError::Stopping))?;
        Ok(name)
    }
}
