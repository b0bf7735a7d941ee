//! Fields that would change the answer and that this server cannot honour yet: 501, never silence.
//!
//! Invariant: every field of vLLM's that changes an answer is either parsed elsewhere or named
//! here.

use serde_json::Value;

use crate::fields::Fields;
use crate::validation::{Loc, value_error};
use crate::{ApiError, pyrepr};

/// Fields that are refused unless absent, null, false, zero, or empty.
const REFUSED: &[(&str, &str)] = &[
    ("structured_outputs", "Structured output"),
    ("use_beam_search", "Beam search"),
    ("bad_words", "bad_words"),
    ("logprob_token_ids", "logprob_token_ids"),
    ("watermarking", "Watermarking"),
    ("thinking_token_budget", "A thinking token budget"),
    ("repetition_detection", "Repetition detection"),
    ("prompt_embeds", "prompt_embeds"),
    ("kv_transfer_params", "KV transfer"),
    ("ec_transfer_params", "Encoder cache transfer"),
    ("return_token_offsets", "return_token_offsets"),
    ("return_weight_versions", "return_weight_versions"),
    ("routed_experts_prompt_start", "Routed experts output"),
    ("mm_payload", "A multimodal payload"),
    ("return_mm_kwargs", "return_mm_kwargs"),
];

/// Fields without effect on the answers of this server, as on vLLM's without the option they
/// belong to.
const WITHOUT_EFFECT: &[&str] = &[
    "user",
    "session_id",
    "length_penalty",
    "spaces_between_special_tokens",
    "media_io_kwargs",
    "mm_processor_kwargs",
    "vllm_xargs",
    "parallel_tool_calls",
    "include_reasoning",
];

/// Takes all such fields.
///
/// # Errors
/// 501 naming the first one that is set; 400 for a `response_format` that is not one.
pub(crate) fn take(fields: &mut Fields<'_>) -> Result<(), ApiError> {
    fields.ignore(WITHOUT_EFFECT);
    for (name, feature) in REFUSED {
        if let Some(value) = fields.value(name)
            && is_set(&value)
        {
            return Err(ApiError::not_implemented(feature, name));
        }
    }
    if let Some(interval) = fields.integer("stream_interval")
        && interval > 1
    {
        let feature = "A stream interval above 1";
        return Err(ApiError::not_implemented(feature, "stream_interval"));
    }
    take_response_format(fields)
}

fn is_set(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => false,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::Array(items) => !items.is_empty(),
        Value::Object(map) => !map.is_empty(),
        Value::Bool(true) | Value::String(_) => true,
    }
}

fn take_response_format(fields: &mut Fields<'_>) -> Result<(), ApiError> {
    let Some(format) = fields.object("response_format") else {
        return Ok(());
    };
    let loc = Loc::field("response_format").at("type");
    match format.get("type") {
        Some(Value::String(kind)) => match kind.as_str() {
            "text" => Ok(()),
            "json_schema" if format.get("json_schema").is_none_or(Value::is_null) => {
                let message = "When response_format type is 'json_schema', the 'json_schema' field \
                               must be provided.";
                Err(value_error("response_format", message.into()))
            }
            "json_object" | "json_schema" | "structural_tag" => {
                let feature = format!("response_format {}", pyrepr::repr_str(kind));
                Err(ApiError::not_implemented(&feature, "response_format"))
            }
            _ => {
                let msg = "Input should be 'text', 'json_object', 'json_schema' or \
                           'structural_tag'";
                let input = Value::from(kind.as_str());
                fields.validation.push("literal_error", &loc, msg, &input);
                Ok(())
            }
        },
        other => {
            let (kind, msg) = match other {
                None => ("missing", "Field required"),
                Some(_) => ("string_type", "Input should be a valid string"),
            };
            let input = other.cloned().unwrap_or(Value::Object(format.clone()));
            fields.validation.push(kind, &loc, msg, &input);
            Ok(())
        }
    }
}
