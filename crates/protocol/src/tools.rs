//! `tools` and `tool_choice`: what may be rendered into a prompt, and what needs a parser.
//!
//! Tools are rendered into the template; calls in the answer are not parsed yet. So `none` is
//! served, `auto` is refused as vLLM refuses it without a parser, and forced calls are a 501.
//!
//! Invariant: a request that expects parsed tool calls never gets an answer without them.

use serde_json::Value;

use crate::ApiError;
use crate::fields::Fields;
use crate::validation::{Loc, value_error};

/// Takes `tools` alone, as `/tokenize` has them.
///
/// # Errors
/// 400 for an empty list.
pub(crate) fn take_tools(fields: &mut Fields<'_>) -> Result<Option<Vec<Value>>, ApiError> {
    let Some(tools) = fields.array("tools") else {
        return Ok(None);
    };
    if tools.is_empty() {
        let message = "`tools` must not be an empty array. Either provide at least one tool or \
                       omit the field entirely.";
        return Err(value_error("tools", message.into()));
    }
    for (index, tool) in tools.iter().enumerate() {
        let loc = Loc::field("tools").at(index);
        let name = tool.get("function").and_then(|f| f.get("name"));
        if tool.get("type").is_some_and(|kind| kind != "function") {
            let msg = "Input should be 'function'";
            let input = &tool["type"];
            let loc = loc.at("type");
            fields.validation.push("literal_error", &loc, msg, input);
        } else if !name.is_some_and(Value::is_string) {
            let loc = loc.at("function").at("name");
            let msg = "Field required";
            fields.validation.push("missing", &loc, msg, tool);
        }
    }
    Ok(Some(tools))
}

/// Takes `tools` and `tool_choice`.
///
/// # Errors
/// 400 as vLLM where they do not fit each other; 501 for a forced call.
pub(crate) fn take_tool_choice(fields: &mut Fields<'_>) -> Result<Option<Vec<Value>>, ApiError> {
    let has_choice = fields.has("tool_choice");
    let tools = take_tools(fields)?;
    let choice = match (fields.value("tool_choice"), &tools) {
        (None, Some(_)) if !has_choice => Value::from("auto"),
        (None, _) => return Ok(tools),
        (Some(choice), _) => choice,
    };
    if choice == "none" {
        return Ok(tools);
    }
    let Some(tools) = &tools else {
        let message = match choice == "required" {
            true => "Tool choice 'required' must be specified with 'tools' parameter.",
            false => "When using `tool_choice`, `tools` must be set.",
        };
        return Err(value_error("tool_choice", message.into()));
    };
    match &choice {
        Value::String(kind) if kind == "auto" => {
            let message = "\"auto\" tool choice requires --enable-auto-tool-choice and \
                           --tool-call-parser to be set";
            Err(value_error("tool_choice", message.into()))
        }
        Value::String(kind) if kind == "required" => {
            let feature = "tool_choice 'required'";
            Err(ApiError::not_implemented(feature, "tool_choice"))
        }
        Value::Object(map) => {
            let name = map.get("function").and_then(|f| f.get("name"));
            let Some(Value::String(name)) = name else {
                let message = "Expected field `function` in `tool_choice`. Correct usage: \
                               `{\"type\": \"function\", \"function\": {\"name\": \
                               \"my_function\"}}`";
                return Err(value_error("tool_choice", message.into()));
            };
            if !tools.iter().any(|tool| tool["function"]["name"] == *name) {
                let message = "The tool specified in `tool_choice` does not match any of the \
                               specified `tools`";
                return Err(value_error("tool_choice", message.into()));
            }
            let feature = "A forced tool call";
            Err(ApiError::not_implemented(feature, "tool_choice"))
        }
        other => {
            let message = format!(
                "Invalid value for `tool_choice`: {}! Only named tools, \"none\", \"auto\" or \
                 \"required\" are supported.",
                crate::pyrepr::repr(other)
            );
            Err(value_error("tool_choice", message))
        }
    }
}
