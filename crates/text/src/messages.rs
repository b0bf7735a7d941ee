//! A conversation as chat templates expect it, from a conversation as the API takes it.
//!
//! Templates were written against transformers: content is a string, and the arguments of a tool
//! call are an object. The API allows content in parts and has arguments as JSON in a string.
//!
//! Invariant: a message that needs no change is passed on as it came.

use serde_json::{Map, Value};

/// Prepares messages for a template; `accepts_parts` says whether it reads lists of content parts.
pub(crate) fn prepare(messages: &[Value], accepts_parts: bool) -> Vec<Value> {
    messages
        .iter()
        .map(|message| prepare_one(message, accepts_parts))
        .collect()
}

fn prepare_one(message: &Value, accepts_parts: bool) -> Value {
    let mut message = message.clone();
    if !accepts_parts && let Some(text) = joined_text(&message["content"]) {
        message["content"] = Value::String(text);
    }
    if let Some(Value::Array(calls)) = message.get_mut("tool_calls") {
        for call in calls {
            parse_arguments(call);
        }
    }
    message
}

/// The text of a list of parts, joined by newlines as vLLM does; `None` if there is anything but
/// text.
fn joined_text(content: &Value) -> Option<String> {
    let parts = content.as_array()?;
    let texts: Option<Vec<&str>> = parts
        .iter()
        .map(|part| match part {
            Value::String(text) => Some(text.as_str()),
            _ => part.get("text")?.as_str(),
        })
        .collect();
    Some(texts?.join("\n"))
}

fn parse_arguments(call: &mut Value) {
    let Some(arguments) = call.pointer_mut("/function/arguments") else {
        return;
    };
    if let Value::String(text) = arguments {
        if text.trim().is_empty() {
            *arguments = Value::Object(Map::new());
        } else if let Ok(parsed) = serde_json::from_str::<Map<String, Value>>(text) {
            *arguments = Value::Object(parsed);
        }
        // Anything else is what the model wrote: it stays text.
    }
}

/// The text of the last message, for `continue_final_message`.
pub(crate) fn final_text(messages: &[Value]) -> Option<String> {
    let content = &messages.last()?["content"];
    match content {
        Value::String(text) => Some(text.clone()),
        Value::Array(parts) => parts
            .iter()
            .rev()
            .find_map(|part| part.get("text")?.as_str())
            .map(str::to_owned),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn joins_text_parts_unless_the_template_reads_them() {
        let messages = [json!({"role": "user", "content": [
            {"type": "text", "text": "a"}, {"type": "text", "text": "b"}]})];
        assert_eq!(prepare(&messages, false)[0]["content"], "a\nb");
        assert_eq!(prepare(&messages, true)[0], messages[0]);
        let image = [json!({"content": [{"type": "image_url"}]})];
        assert_eq!(prepare(&image, false), image);
    }

    #[test]
    fn parses_the_arguments_of_tool_calls() {
        let with = |arguments: Value| {
            [json!({"role": "assistant", "content": null,
                "tool_calls": [{"function": {"name": "f", "arguments": arguments}}]})]
        };
        for (from, to) in [
            (json!("{\"b\": 1, \"a\": 2}"), json!({"b": 1, "a": 2})),
            (json!(""), json!({})),
            (json!("not json"), json!("not json")),
            (json!({"a": 1}), json!({"a": 1})),
        ] {
            let message = &prepare(&with(from), false)[0];
            assert_eq!(message["tool_calls"][0]["function"]["arguments"], to);
            assert_eq!(message["content"], Value::Null);
        }
    }
}
