//! What can go wrong with text, and whose fault it is.
//!
//! Loading errors name the file and the field. Template errors belong to one request: the template
//! refused the conversation, or could not render it within its limits.
//!
//! Invariant: messages hold no path of the server and are safe to send to a client.

use serde::{Deserialize, Serialize};

/// An error of this crate.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum TextError {
    /// `tokenizer.json` cannot be used.
    #[error("tokenizer.json: {0}")]
    Tokenizer(String),
    /// `tokenizer_config.json` cannot be used.
    #[error("tokenizer_config.json: {0}")]
    TokenizerConfig(String),
    /// The tokenizer in a GGUF file cannot be used.
    #[error("the GGUF file's tokenizer: {0}")]
    Gguf(String),
    /// The text cannot be split into tokens.
    #[error("the text cannot be tokenized: {0}")]
    Encode(String),
    /// A stretch of the text that cannot surely be cut is longer than may be tokenized at once.
    #[error(
        "the text has a stretch of {num_bytes} bytes that can only be tokenized at once, more \
         than the {max_bytes} bytes that this server takes: break it up with spaces or line \
         breaks between words"
    )]
    TextTooLong {
        /// Its length.
        num_bytes: usize,
        /// The bound.
        max_bytes: usize,
    },
    /// The model has no chat template, or none of that name.
    #[error("{0}")]
    NoChatTemplate(String),
    /// The chat template does not parse.
    #[error("the chat template is not valid: {0}")]
    TemplateSyntax(String),
    /// The chat template called `raise_exception` with this message.
    #[error("{0}")]
    TemplateRaised(String),
    /// The chat template failed on this conversation.
    #[error("the chat template failed: {0}")]
    TemplateFailed(String),
    /// The chat template ran for too long or wrote too much.
    #[error("the chat template exceeded its limit of {0}")]
    TemplateLimit(String),
    /// `continue_final_message` cannot be honoured for this conversation.
    #[error("{0}")]
    CannotContinue(String),
}

impl TextError {
    /// Whether a request caused it (HTTP 400), as opposed to the model's files.
    pub fn is_request_error(&self) -> bool {
        !matches!(
            self,
            Self::Tokenizer(_) | Self::TokenizerConfig(_) | Self::Gguf(_)
        )
    }
}
