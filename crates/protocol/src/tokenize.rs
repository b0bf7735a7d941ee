//! `POST /tokenize` and `POST /detokenize`: the requests.
//!
//! Invariant: `/tokenize` has either a prompt or messages.

use crate::ApiError;
use crate::fields::Fields;
use crate::limits::RequestLimits;
use crate::template_fields::TemplateFields;
use crate::tools;

/// What is to be tokenized.
#[derive(Clone, Debug, PartialEq)]
pub enum TokenizeInput {
    /// A text as it is.
    Prompt {
        /// The text.
        text: String,
        /// Let the tokenizer add its special tokens.
        add_special_tokens: bool,
    },
    /// Messages, rendered first.
    Messages(Box<TemplateFields>),
}

/// A `/tokenize` request.
#[derive(Clone, Debug, PartialEq)]
pub struct TokenizeRequest {
    /// `None`: the served model.
    pub model: Option<String>,
    /// Text or messages.
    pub input: TokenizeInput,
    /// Also the text of each token.
    pub return_token_strs: bool,
    /// Also the text that was tokenized.
    pub return_prompt_text: bool,
    /// Fields that nobody knows, for the log.
    pub unknown_fields: Vec<String>,
}

impl TokenizeRequest {
    /// Parses and checks a body.
    ///
    /// # Errors
    /// 400, in vLLM's shapes.
    pub fn parse(body: &[u8], limits: &RequestLimits) -> Result<Self, ApiError> {
        let mut fields = Fields::parse(body)?;
        fields.ignore(&["media_io_kwargs", "mm_processor_kwargs", "tool_choice"]);
        let model = fields.string("model");
        let return_token_strs = fields.boolean("return_token_strs").unwrap_or(false);
        let return_prompt_text = fields.boolean("return_prompt_text").unwrap_or(false);
        let input = if fields.has("messages") {
            let tools = tools::take_tools(&mut fields)?;
            let template = TemplateFields::take(&mut fields, tools, limits)?;
            TokenizeInput::Messages(Box::new(template))
        } else {
            let add_special_tokens = fields.boolean("add_special_tokens").unwrap_or(true);
            if !fields.has("prompt") {
                fields.missing("prompt");
            }
            let text = fields.string("prompt").unwrap_or_default();
            TokenizeInput::Prompt {
                text,
                add_special_tokens,
            }
        };
        let unknown_fields = fields.finish()?;
        if let TokenizeInput::Messages(template) = &input {
            template.check_messages()?;
        }
        Ok(Self {
            model,
            input,
            return_token_strs,
            return_prompt_text,
            unknown_fields,
        })
    }
}

/// A `/detokenize` request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DetokenizeRequest {
    /// `None`: the served model.
    pub model: Option<String>,
    /// Inside the vocabulary.
    pub tokens: Vec<u32>,
}

impl DetokenizeRequest {
    /// Parses and checks a body.
    ///
    /// # Errors
    /// 400, in vLLM's shapes.
    pub fn parse(body: &[u8], limits: &RequestLimits) -> Result<Self, ApiError> {
        let mut fields = Fields::parse(body)?;
        let model = fields.string("model");
        let tokens = match fields.integers("tokens") {
            Some(tokens) => tokens,
            None => {
                fields.check()?;
                fields.missing("tokens");
                Vec::new()
            }
        };
        fields.finish()?;
        Ok(Self {
            model,
            tokens: limits.check_token_ids(&tokens, "tokens")?,
        })
    }
}
