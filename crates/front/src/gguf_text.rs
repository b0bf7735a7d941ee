//! The tokenizer of a model that is one GGUF file.
//!
//! Invariant: a field that is missing where it is needed is an error that names it.

use hotspare_model::{GgufFile, ModelError};
use hotspare_text::{GgufTokenizer, TextModel};

/// Loads it; `chat_template` replaces the file's own.
pub(crate) fn load(file: &GgufFile, chat_template: Option<&str>) -> Result<TextModel, String> {
    let fields = tokenizer(file).map_err(|e| e.to_string())?;
    let hint = "--skip-tokenizer-init serves token ids without a tokenizer";
    let fields = fields.ok_or_else(|| format!("it has no tokenizer; {hint}"))?;
    TextModel::from_gguf(&fields, chat_template)
        .map_err(|e| format!("{e} (a tokenizer.json beside the file is taken instead; {hint})"))
}

/// The tokenizer's fields, where there are any.
fn tokenizer(file: &GgufFile) -> Result<Option<GgufTokenizer<'_>>, ModelError> {
    let key = |name: &str| format!("tokenizer.ggml.{name}");
    let strings = |name: &str| file.strings(&key(name)).map(Option::unwrap_or_default);
    let numbers = |name: &str| file.numbers(&key(name)).map(Option::unwrap_or_default);
    let id = |name: &str| {
        let id = file.u64(&key(name))?;
        Ok::<_, ModelError>(id.and_then(|id| usize::try_from(id).ok()))
    };
    let Some(model) = file.string(&key("model"))? else {
        return Ok(None);
    };
    let token_types = numbers("token_type")?;
    Ok(Some(GgufTokenizer {
        model,
        pre: file.string(&key("pre"))?,
        tokens: strings("tokens")?,
        scores: numbers("scores")?,
        token_types: token_types.into_iter().map(|kind| kind as i64).collect(),
        merges: strings("merges")?,
        bos: id("bos_token_id")?,
        eos: id("eos_token_id")?,
        unknown: id("unknown_token_id")?,
        add_bos: file.bool(&key("add_bos_token"))?,
        add_eos: file.bool(&key("add_eos_token"))?,
        add_space_prefix: file.bool(&key("add_space_prefix"))?,
        chat_template: file.string("tokenizer.chat_template")?,
        named_chat_templates: named_chat_templates(file)?,
    }))
}

/// The templates beside the default one.
fn named_chat_templates(file: &GgufFile) -> Result<Vec<(&str, &str)>, ModelError> {
    let names = file.strings("tokenizer.chat_templates")?;
    let mut templates = Vec::new();
    for name in names.unwrap_or_default() {
        let template = file.string(&format!("tokenizer.chat_template.{name}"))?;
        templates.extend(template.map(|template| (name, template)));
    }
    Ok(templates)
}
