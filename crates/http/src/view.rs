//! What requests are checked and answered against: one model, for the whole of a request.
//!
//! Invariant: constant. A reload makes another one; requests that hold this one keep it.

use std::sync::{Arc, OnceLock};

use hotspare_front::{Front, Model, ServedModel};
use hotspare_protocol::{GenerationDefaults, RequestLimits};
use hotspare_text::TextModel;

use crate::HttpConfig;

/// Characters of a model hash that the fingerprint shows.
const NUM_HASH_CHARS: usize = 8;

/// See the module.
pub(crate) struct View {
    pub(crate) model: Arc<Model>,
    pub(crate) limits: RequestLimits,
    fingerprint: OnceLock<String>,
}

impl View {
    pub(crate) fn new(model: Arc<Model>, config: &HttpConfig) -> Self {
        let served = &model.served;
        let limits = RequestLimits {
            max_logprobs: config.max_logprobs,
            max_num_choices: config.max_num_choices,
            trust_request_chat_template: config.trust_request_chat_template,
            has_tokenizer: model.text.is_some(),
            ..RequestLimits::new(served.max_model_len, served.vocab_size)
        };
        Self {
            limits,
            model,
            fingerprint: OnceLock::new(),
        }
    }

    pub(crate) fn served(&self) -> &ServedModel {
        &self.model.served
    }

    pub(crate) fn text(&self) -> Option<&Arc<TextModel>> {
        self.model.text.as_ref()
    }

    pub(crate) fn defaults(&self) -> &GenerationDefaults {
        &self.model.defaults
    }

    /// Names this build and the model that answers; `None` until an engine has said which.
    pub(crate) fn fingerprint(&self, front: &Front) -> Option<&str> {
        if let Some(known) = self.fingerprint.get() {
            return Some(known);
        }
        let hash = front.model_hash(&self.model)?;
        let hash: String = hash.chars().take(NUM_HASH_CHARS).collect();
        let text = format!("hotspare-{}-{hash}", env!("CARGO_PKG_VERSION"));
        Some(self.fingerprint.get_or_init(|| text))
    }
}
