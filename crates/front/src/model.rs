//! The model that requests are made for: names and limits, tokenizer and templates, defaults.
//!
//! A reload puts another one in its place. A request keeps the one that it began with, so that
//! what it was tokenized with, what it is answered with and what it is called are one model.
//!
//! Invariant: a model is constant; the one in the cell is the one whose engine serves.

use std::sync::{Arc, OnceLock, PoisonError, RwLock};

use hotspare_protocol::GenerationDefaults;
use hotspare_text::TextModel;

use crate::metrics::Metrics;
use crate::{ModelInfo, ServedModel};

/// A model as it is served; see the module.
pub struct Model {
    /// What `/v1/models` shows.
    pub served: Arc<ServedModel>,
    /// Tokenizer and templates; `None` where only token ids are served.
    pub text: Option<Arc<TextModel>>,
    /// What requests get where they say nothing.
    pub defaults: GenerationDefaults,
    /// Of the configuration that it was loaded with.
    pub(crate) config_hash: String,
    /// Models that were served before this one.
    pub(crate) generation: u64,
    pub(crate) metrics: Arc<Metrics>,
    /// What the first engine that served it said that it is.
    pub(crate) model_hash: Arc<OnceLock<String>>,
}

impl std::fmt::Debug for Model {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Model")
            .field("served", &self.served)
            .field("generation", &self.generation)
            .finish_non_exhaustive()
    }
}

impl Model {
    pub(crate) fn new(info: ModelInfo, generation: u64, metrics: Arc<Metrics>) -> Self {
        Self {
            served: Arc::new(info.served),
            text: info.text,
            defaults: info.defaults,
            config_hash: info.config_hash,
            generation,
            metrics,
            model_hash: Arc::default(),
        }
    }
}

/// The model of new requests.
pub(crate) struct ModelCell(RwLock<Arc<Model>>);

impl ModelCell {
    pub(crate) fn new(model: Arc<Model>) -> Self {
        Self(RwLock::new(model))
    }

    pub(crate) fn current(&self) -> Arc<Model> {
        // A panic elsewhere leaves one model or the other.
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn set(&self, model: Arc<Model>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = model;
    }
}
