//! Strings and token ids: tokenizer, chat templates, incremental detokenizer, stop strings.
//!
//! The engine and everything below it know token ids only; this crate is where they become text and
//! back. After loading it is pure: time is an argument, and nothing here blocks, reads or draws
//! numbers.
//!
//! Invariant: the text of a sequence is a function of its token ids alone, so a stream can be cut
//! anywhere and rebuilt from the prompt and the delivered ids.
#![forbid(unsafe_code)]

mod config;
mod decoder;
mod detokenizer;
mod error;
mod gguf;
mod messages;
mod methods;
mod model;
mod pieces;
mod pyjson;
mod pyrepr;
mod render_job;
mod stop;
mod strftime;
mod synthetic;
mod template;
mod template_env;
mod template_size;
mod translate;
mod utf8;

pub use detokenizer::Detokenizer;
pub use error::TextError;
pub use gguf::GgufTokenizer;
pub use model::TextModel;
pub use pieces::Keep;
pub use render_job::RenderJob;
pub use stop::{StopBuffer, StopEmission};
pub use strftime::LocalTime;
pub use template::{ChatInput, ChatTemplate, TemplateLimits};
