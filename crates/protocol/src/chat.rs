//! `POST /v1/chat/completions`: the request.
//!
//! Invariant: a parsed request is complete and in range but for what depends on the length of its
//! prompt.

use serde_json::Value;

use crate::fields::Fields;
use crate::limits::RequestLimits;
use crate::sampling::{SamplingFields, check_num_logprobs, resolve_num_logprobs};
use crate::template_fields::TemplateFields;
use crate::validation::parameter_error;
use crate::{ApiError, OutputFields, StreamOptions, tools, unsupported};

/// A chat completion request.
#[derive(Clone, Debug, PartialEq)]
pub struct ChatRequest {
    /// `None`: the served model.
    pub model: Option<String>,
    /// What becomes the prompt.
    pub template: TemplateFields,
    /// How tokens are drawn. `max_completion_tokens` is in `max_tokens`, where given.
    pub sampling: SamplingFields,
    /// Report the log-probability of each token, and of this many alternatives.
    pub num_top_logprobs: Option<u32>,
    /// How the answer is sent.
    pub stream: StreamOptions,
    /// Put the last message before the answer, where it has the answer's role.
    pub echo: bool,
    /// What else the answer shows.
    pub output: OutputFields,
    /// Fields that nobody knows, for the log.
    pub unknown_fields: Vec<String>,
}

impl ChatRequest {
    /// Parses and checks a body.
    ///
    /// # Errors
    /// 400 or 501, in vLLM's shapes.
    pub fn parse(body: &[u8], limits: &RequestLimits) -> Result<Self, ApiError> {
        let mut fields = Fields::parse(body)?;
        unsupported::take(&mut fields)?;
        let model = fields.string("model");
        let stream = StreamOptions::take(&mut fields)?;
        let tools = tools::take_tool_choice(&mut fields)?;
        let mut template = TemplateFields::take(&mut fields, tools, limits)?;
        let efforts = ["none", "minimal", "low", "medium", "high", "xhigh", "max"];
        if let Some(effort) = fields.one_of("reasoning_effort", &efforts) {
            template
                .chat_template_kwargs
                .entry("reasoning_effort")
                .or_insert_with(|| Value::from(effort));
        }
        let mut sampling = SamplingFields::take(&mut fields);
        if let Some(max) = fields.integer("max_completion_tokens") {
            sampling.max_tokens = Some(max);
        }
        let logprobs = fields.boolean("logprobs").unwrap_or(false);
        let top_logprobs = fields.integer("top_logprobs");
        let echo = fields.boolean("echo").unwrap_or(false);
        let output = OutputFields::take(&mut fields);
        let unknown_fields = fields.finish()?;

        template.check_messages()?;
        check_top_logprobs(logprobs, top_logprobs)?;
        check_num_logprobs("top_logprobs", top_logprobs, limits)?;
        output.check(&sampling, stream, limits)?;
        sampling.check(limits)?;
        limits.check_num_choices(1, sampling.n)?;
        Ok(Self {
            model,
            template,
            sampling,
            num_top_logprobs: logprobs
                .then(|| resolve_num_logprobs(top_logprobs.unwrap_or(0), limits)),
            stream,
            echo,
            output,
            unknown_fields,
        })
    }

    /// The role of the answer.
    pub fn response_role(&self) -> &str {
        match self.template.messages.last() {
            Some(last) if !self.template.add_generation_prompt => &last.role,
            _ => "assistant",
        }
    }

    /// The text that `echo` puts before each answer.
    pub fn echo_text(&self) -> String {
        match self.template.messages.last() {
            Some(last) if self.echo && last.role == self.response_role() => last.content.text(),
            _ => String::new(),
        }
    }
}

fn check_top_logprobs(logprobs: bool, top_logprobs: Option<i64>) -> Result<(), ApiError> {
    let Some(num) = top_logprobs else {
        return Ok(());
    };
    if num < -1 {
        let message = "`top_logprobs` must be a positive value or -1.";
        return Err(parameter_error(
            "top_logprobs",
            message,
            Some(&num.to_string()),
        ));
    }
    if num != 0 && !logprobs {
        let message = "when using `top_logprobs`, `logprobs` must be set to true.";
        return Err(parameter_error("top_logprobs", message, None));
    }
    Ok(())
}
