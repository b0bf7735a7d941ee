//! Chat templates: a conversation to the prompt that the model was trained on.
//!
//! A template is a Jinja program that came with the model, or, where the operator trusts it, with a
//! request. It sees what transformers' `apply_chat_template` gives: `messages`, `tools` and
//! `documents` (`none` if absent), `add_generation_prompt`, the special tokens by name, and the
//! caller's own keyword arguments, which win. `strftime_now` prints the time that the caller passes
//! in.
//!
//! Two bounds make a template that loops end with an error: `max_fuel`, the number of instructions,
//! and `max_output_bytes`. They do not bound memory: a template may double a string or nest a list
//! in each turn of a loop. So a template from a request is a [`crate::RenderJob`], to be run in a
//! process whose memory the operating system bounds.
//!
//! Invariant: rendering is a function of its arguments.

use std::collections::BTreeMap;
use std::io;

use minijinja::Value as Jinja;
use minijinja::{Environment, ErrorKind};
use serde_json::{Map, Value, json};

use crate::error::TextError;
use crate::messages;
use crate::pyjson::{list_to_jinja, to_jinja};
use crate::strftime::LocalTime;
use crate::template_env::{Raised, environment};
use crate::template_size::refusal;
use crate::translate::translate;

const NAME: &str = "chat_template";

/// Bounds on one rendering.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TemplateLimits {
    /// Template instructions; a long conversation takes a few hundred per message.
    pub max_fuel: u64,
    /// Bytes of the prompt.
    pub max_output_bytes: usize,
}

impl Default for TemplateLimits {
    fn default() -> Self {
        Self {
            max_fuel: 5_000_000,
            max_output_bytes: 64 << 20,
        }
    }
}

type Context = BTreeMap<String, Jinja>;

/// What a template renders.
#[derive(Clone, Copy, Debug)]
pub struct ChatInput<'a> {
    /// The messages, as the API takes them.
    pub messages: &'a [Value],
    /// The tools, as the API takes them.
    pub tools: Option<&'a [Value]>,
    /// Documents for retrieval.
    pub documents: Option<&'a [Value]>,
    /// End with the start of an assistant's message.
    pub add_generation_prompt: bool,
    /// End inside the last message, so that the model goes on with it.
    pub continue_final_message: bool,
    /// `chat_template_kwargs`: further variables.
    pub kwargs: Option<&'a Map<String, Value>>,
    /// The time that `strftime_now` prints.
    pub now: LocalTime,
}

impl<'a> ChatInput<'a> {
    /// A conversation that the assistant is to answer, without tools.
    pub fn new(messages: &'a [Value], now: LocalTime) -> Self {
        Self {
            messages,
            tools: None,
            documents: None,
            add_generation_prompt: true,
            continue_final_message: false,
            kwargs: None,
            now,
        }
    }
}

/// A compiled chat template.
#[derive(Debug)]
pub struct ChatTemplate {
    env: Environment<'static>,
    limits: TemplateLimits,
    accepts_parts: bool,
}

impl ChatTemplate {
    /// Compiles a template with the default limits.
    pub fn compile(source: &str) -> Result<Self, TextError> {
        Self::with_limits(source, TemplateLimits::default())
    }

    /// Compiles a template.
    pub fn with_limits(source: &str, limits: TemplateLimits) -> Result<Self, TextError> {
        if let Some(why) = refusal(source) {
            return Err(TextError::TemplateSyntax(why));
        }
        let mut env = environment(limits.max_fuel);
        env.add_template_owned(NAME, translate(source))
            .map_err(|error| TextError::TemplateSyntax(describe(&error)))?;
        let mut template = Self {
            env,
            limits,
            accepts_parts: false,
        };
        template.accepts_parts = template.probe_parts();
        Ok(template)
    }

    /// Whether the template reads message content given as a list of parts by itself.
    ///
    /// Where it does not, text parts are joined by newlines before it runs.
    pub fn accepts_parts(&self) -> bool {
        self.accepts_parts
    }

    /// Renders a conversation; `named_tokens` are `bos_token`, `eos_token` and so on.
    pub fn render<'t>(
        &self,
        input: &ChatInput<'_>,
        named_tokens: impl IntoIterator<Item = (&'t str, &'t str)>,
        extra_special_tokens: &[String],
    ) -> Result<String, TextError> {
        let messages = messages::prepare(input.messages, self.accepts_parts);
        let last = match input.continue_final_message {
            true => Some(FinalMessage::of(&messages)?),
            false => None,
        };
        let mut context = Context::new();
        for (name, token) in named_tokens {
            context.insert(name.to_owned(), token.into());
        }
        if !extra_special_tokens.is_empty() {
            let tokens = Jinja::from(extra_special_tokens.to_vec());
            context.insert("additional_special_tokens".to_owned(), tokens);
        }
        self.fill(&mut context, input, &messages);
        let text = self.run(context)?;
        match last {
            Some(last) => last.cut(text),
            None => Ok(text),
        }
    }

    fn fill(&self, context: &mut Context, input: &ChatInput<'_>, messages: &[Value]) {
        let now = input.now;
        let strftime_now = Jinja::from_function(move |format: &str| now.strftime(format));
        let variables = [
            ("messages", list_to_jinja(messages)),
            ("tools", input.tools.map_or(Jinja::from(()), list_to_jinja)),
            (
                "documents",
                input.documents.map_or(Jinja::from(()), list_to_jinja),
            ),
            ("add_generation_prompt", input.add_generation_prompt.into()),
            ("strftime_now", strftime_now),
        ];
        context.extend(variables.map(|(name, value)| (name.to_owned(), value)));
        for (name, value) in input.kwargs.into_iter().flatten() {
            context.insert(name.clone(), to_jinja(value));
        }
    }

    fn run(&self, context: Context) -> Result<String, TextError> {
        let template = self
            .env
            .get_template(NAME)
            .map_err(|error| self.failed(&error))?;
        let mut writer = BoundedWriter {
            bytes: Vec::new(),
            max_bytes: self.limits.max_output_bytes,
            is_full: false,
        };
        match template.render_captured_to(Jinja::from(context), &mut writer) {
            Ok(_) => Ok(String::from_utf8_lossy(&writer.bytes).into_owned()),
            Err(_) if writer.is_full => Err(TextError::TemplateLimit(format!(
                "{} bytes of output",
                self.limits.max_output_bytes
            ))),
            Err(error) => Err(self.failed(&error)),
        }
    }

    fn failed(&self, error: &minijinja::Error) -> TextError {
        let mut cause: Option<&dyn std::error::Error> = Some(error);
        while let Some(current) = cause {
            if let Some(raised) = current.downcast_ref::<Raised>() {
                return TextError::TemplateRaised(raised.0.clone());
            }
            if let Some(inner) = current.downcast_ref::<minijinja::Error>()
                && inner.kind() == ErrorKind::OutOfFuel
            {
                let limit = format!("{} instructions", self.limits.max_fuel);
                return TextError::TemplateLimit(limit);
            }
            cause = current.source();
        }
        TextError::TemplateFailed(describe(error))
    }

    /// Renders a message in parts: a template that reads parts prints the text and not the
    /// structure.
    fn probe_parts(&self) -> bool {
        const TEXT: &str = "hotspare-probe";
        let messages = [json!({"role": "user", "content": [{"type": "text", "text": TEXT}]})];
        let mut context = Context::new();
        for name in ["bos_token", "eos_token"] {
            context.insert(name.to_owned(), "".into());
        }
        self.fill(
            &mut context,
            &ChatInput::new(&messages, LocalTime::default()),
            &messages,
        );
        self.run(context).is_ok_and(|text| {
            text.contains(TEXT) && !text.contains("'type'") && !text.contains("\"type\"")
        })
    }
}

/// The end of the conversation, for `continue_final_message`.
struct FinalMessage {
    text: String,
}

impl FinalMessage {
    fn of(messages: &[Value]) -> Result<Self, TextError> {
        messages::final_text(messages)
            .map(|text| Self { text })
            .ok_or_else(|| {
                TextError::CannotContinue(
                    "continue_final_message needs a last message whose content is text.".into(),
                )
            })
    }

    /// Cuts the prompt behind the message. Templates may trim its white space, at either end.
    fn cut(&self, mut prompt: String) -> Result<String, TextError> {
        let trimmed = self.text.trim();
        let start = prompt.rfind(trimmed).ok_or_else(|| {
            TextError::CannotContinue(
                "continue_final_message is set, but the chat template does not print the last \
                 message as it is."
                    .into(),
            )
        })?;
        let whole = self.text.trim_start();
        let len = if prompt[start..].starts_with(whole) {
            whole.len()
        } else {
            trimmed.len()
        };
        prompt.truncate(start + len);
        Ok(prompt)
    }
}

struct BoundedWriter {
    bytes: Vec<u8>,
    max_bytes: usize,
    is_full: bool,
}

impl io::Write for BoundedWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.len() > self.max_bytes - self.bytes.len() {
            self.is_full = true;
            return Err(io::Error::other("the output is too long"));
        }
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The message and line of a template error, without the source around it.
fn describe(error: &minijinja::Error) -> String {
    let mut text = match error.detail() {
        Some(detail) => format!("{}: {detail}", error.kind()),
        None => error.kind().to_string(),
    };
    if let Some(line) = error.line() {
        text.push_str(&format!(" (line {line})"));
    }
    text
}

#[cfg(test)]
#[path = "template_test.rs"]
mod template_test;
