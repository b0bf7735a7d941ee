//! Chat messages: checked, flattened to text, in the shape chat templates read.
//!
//! Parts that are not text are refused and the arguments of tool calls are parsed, as vLLM does
//! before it renders a template. Whether parts are joined is the template's business.
//!
//! Invariant: a message that was read holds a role and text content; template values hold nothing
//! else the client sent but the fields named here.

use serde_json::{Map, Value, json};

use crate::fields::Fields;
use crate::validation::{Loc, Validation, value_error};
use crate::{ApiError, pyrepr};

/// Messages a request at most.
const MAX_NUM_MESSAGES: usize = 10_000;

/// What a message says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MessageContent {
    /// One text.
    Text(String),
    /// The texts of a list of parts.
    Parts(Vec<String>),
}

impl MessageContent {
    /// One text; parts are joined with newlines.
    pub fn text(&self) -> String {
        match self {
            Self::Text(text) => text.clone(),
            Self::Parts(parts) => parts.join("\n"),
        }
    }

    fn to_template_value(&self) -> Value {
        match self {
            Self::Text(text) => Value::from(text.as_str()),
            Self::Parts(parts) => parts
                .iter()
                .map(|text| json!({"type": "text", "text": text}))
                .collect(),
        }
    }
}

/// One message.
#[derive(Clone, Debug, PartialEq)]
pub struct ChatMessage {
    /// `system`, `user`, `assistant`, `tool`, `developer`, or what the template knows.
    pub role: String,
    /// Text, or texts in parts; empty where the request had null or nothing.
    pub content: MessageContent,
    /// Further fields for the template: `name`, `tool_calls`, `tool_call_id`, `reasoning`.
    pub extra: Map<String, Value>,
}

impl ChatMessage {
    /// The message as a chat template reads it.
    pub fn to_template_value(&self) -> Value {
        let mut map = Map::new();
        map.insert("role".into(), Value::from(self.role.as_str()));
        map.insert("content".into(), self.content.to_template_value());
        for (key, value) in &self.extra {
            map.insert(key.clone(), value.clone());
        }
        Value::Object(map)
    }
}

/// Takes `messages`.
///
/// # Errors
/// 400 for parts that are not text and for tool call arguments that are not JSON; type errors are
/// collected in `fields` instead.
pub(crate) fn take_messages(fields: &mut Fields<'_>) -> Result<Vec<ChatMessage>, ApiError> {
    if !fields.has("messages") {
        fields.missing("messages");
        return Ok(Vec::new());
    }
    let loc = Loc::field("messages");
    let Ok(value) = fields.value_or_null("messages") else {
        return Ok(Vec::new());
    };
    let items = match value {
        Value::Array(items) => items,
        input => {
            let msg = "Input should be a valid list";
            fields.validation.push("list_type", &loc, msg, &input);
            return Ok(Vec::new());
        }
    };
    if items.len() > MAX_NUM_MESSAGES {
        let message = format!(
            "messages must hold at most {MAX_NUM_MESSAGES} messages, got {}.",
            items.len()
        );
        return Err(value_error("messages", message));
    }
    let mut messages = Vec::with_capacity(items.len());
    for (index, item) in items.into_iter().enumerate() {
        let loc = loc.at(index);
        if let Some(message) = read_message(item, &loc, &mut fields.validation)? {
            messages.push(message);
        }
    }
    Ok(messages)
}

fn read_message(
    item: Value,
    loc: &Loc,
    validation: &mut Validation,
) -> Result<Option<ChatMessage>, ApiError> {
    let mut map = match item {
        Value::Object(map) => map,
        other => {
            let msg = "Input should be a valid dictionary";
            validation.push("dict_type", loc, msg, &other);
            return Ok(None);
        }
    };
    let role = match map.shift_remove("role") {
        Some(Value::String(role)) => role,
        Some(other) => {
            let msg = "Input should be a valid string";
            validation.push("string_type", &loc.at("role"), msg, &other);
            return Ok(None);
        }
        None => {
            let input = Value::Object(map);
            validation.push("missing", &loc.at("role"), "Field required", &input);
            return Ok(None);
        }
    };
    let has_tool_calls = map.get("tool_calls").is_some_and(|calls| !calls.is_null());
    let content = match map.shift_remove("content") {
        None if role != "assistant" && !has_tool_calls => {
            let input = Value::Object(map);
            validation.push("missing", &loc.at("content"), "Field required", &input);
            return Ok(None);
        }
        content => read_content(content, &loc.at("content"), validation)?,
    };
    let mut extra = Map::new();
    let reasoning = [
        map.shift_remove("reasoning"),
        map.shift_remove("reasoning_content"),
    ];
    if let Some(Value::String(text)) = reasoning.into_iter().flatten().find(Value::is_string) {
        // Templates of both generations exist; each reads one of the two names.
        extra.insert("reasoning".into(), Value::from(text.as_str()));
        extra.insert("reasoning_content".into(), Value::from(text));
    }
    if let Some(calls) = map.shift_remove("tool_calls")
        && let Some(calls) = read_tool_calls(calls, &loc.at("tool_calls"), validation)?
    {
        extra.insert("tool_calls".into(), Value::Array(calls));
    }
    for name in ["tool_call_id", "name"] {
        match map.shift_remove(name) {
            None | Some(Value::Null) => {}
            Some(Value::String(text)) => {
                extra.insert(name.into(), Value::String(text));
            }
            Some(other) => {
                let msg = "Input should be a valid string";
                validation.push("string_type", &loc.at(name), msg, &other);
            }
        }
    }
    Ok(Some(ChatMessage {
        role,
        content,
        extra,
    }))
}

fn read_content(
    content: Option<Value>,
    loc: &Loc,
    validation: &mut Validation,
) -> Result<MessageContent, ApiError> {
    match content {
        None | Some(Value::Null) => Ok(MessageContent::Text(String::new())),
        Some(Value::String(text)) => Ok(MessageContent::Text(text)),
        Some(Value::Array(parts)) => {
            let mut texts = Vec::with_capacity(parts.len());
            for (index, part) in parts.into_iter().enumerate() {
                if let Some(text) = read_part(part, &loc.at(index), validation)? {
                    texts.push(text);
                }
            }
            Ok(MessageContent::Parts(texts))
        }
        Some(other) => {
            let msg = "Input should be a valid string or a list of content parts";
            validation.push("string_type", loc, msg, &other);
            Ok(MessageContent::Parts(Vec::new()))
        }
    }
}

fn read_part(
    part: Value,
    loc: &Loc,
    validation: &mut Validation,
) -> Result<Option<String>, ApiError> {
    let mut map = match part {
        Value::String(text) => return Ok(Some(text)),
        Value::Object(map) => map,
        other => {
            let msg = "Input should be a valid dictionary";
            validation.push("dict_type", loc, msg, &other);
            return Ok(None);
        }
    };
    let key = match map.get("type").map(Value::as_str) {
        None | Some(Some("text" | "input_text" | "output_text")) => "text",
        Some(Some(kind @ ("refusal" | "thinking"))) => match kind {
            "refusal" => "refusal",
            _ => "thinking",
        },
        Some(Some(kind)) => {
            let message = format!(
                "Content parts of type {} are not supported: this server takes text only.",
                pyrepr::repr_str(&pyrepr::clip(kind, 100))
            );
            return Err(value_error("messages", message));
        }
        Some(None) => {
            let msg = "Input should be a valid string";
            validation.push("string_type", &loc.at("type"), msg, &map["type"]);
            return Ok(None);
        }
    };
    match map.shift_remove(key) {
        Some(Value::String(text)) => Ok(Some(text)),
        Some(other) => {
            let msg = "Input should be a valid string";
            validation.push("string_type", &loc.at(key), msg, &other);
            Ok(None)
        }
        None => {
            let input = Value::Object(map);
            validation.push("missing", &loc.at(key), "Field required", &input);
            Ok(None)
        }
    }
}

fn read_tool_calls(
    calls: Value,
    loc: &Loc,
    validation: &mut Validation,
) -> Result<Option<Vec<Value>>, ApiError> {
    let mut calls = match calls {
        Value::Null => return Ok(None),
        Value::Array(calls) => calls,
        other => {
            let msg = "Input should be a valid list";
            validation.push("list_type", loc, msg, &other);
            return Ok(None);
        }
    };
    for (index, call) in calls.iter_mut().enumerate() {
        let loc = loc.at(index).at("function");
        let Some(function) = call.get_mut("function").and_then(Value::as_object_mut) else {
            validation.push("missing", &loc, "Field required", call);
            continue;
        };
        if !function.get("name").is_some_and(Value::is_string) {
            let loc = loc.at("name");
            let input = Value::Object(function.clone());
            validation.push("missing", &loc, "Field required", &input);
        }
        let arguments = match function.get("arguments") {
            None | Some(Value::Null) => Value::Object(Map::new()),
            Some(Value::String(text)) if text.trim().is_empty() => Value::Object(Map::new()),
            Some(Value::String(text)) => crate::json::parse_value(text).map_err(|_| {
                let message = "The arguments of a tool call in messages must be a JSON text.";
                value_error("messages", message.into())
            })?,
            Some(other) => other.clone(),
        };
        function.insert("arguments".into(), arguments);
    }
    Ok((!calls.is_empty()).then_some(calls))
}
