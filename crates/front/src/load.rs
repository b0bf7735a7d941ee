//! Reading what the front needs of a model: limits, tokenizer, template, sampling defaults. No
//! weights.
//!
//! Invariant: a model that loads here can be announced as it is; whatever contradicts itself or the
//! options is an error that names it.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use hotspare_model::{GenerationConfig, LoadFormat, ModelConfig, ModelFiles, ModelSource};
use hotspare_protocol::GenerationDefaults;
use hotspare_text::TextModel;
use serde_json::{Map, Value};

use crate::{EngineLauncher, FrontError, ServedModel, gguf_text};

/// Fields of a generation config that this server uses, and that an override may set.
const OVERRIDABLE: [&str; 7] = [
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "repetition_penalty",
    "max_new_tokens",
    "eos_token_id",
];

/// Where sampling defaults come from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum GenerationConfigSource {
    /// The model's own `generation_config.json`.
    #[default]
    Model,
    /// The neutral values.
    Neutral,
    /// `generation_config.json` in this directory; its `max_new_tokens` is a limit for each
    /// request.
    Directory(PathBuf),
}

/// What to serve, and how to call it.
#[derive(Clone, Debug, Default)]
pub struct ModelOptions {
    /// A directory, a GGUF file or the name of an embedded model.
    pub model: String,
    /// How the model is called where it was fetched from elsewhere, such as a hub; `None`: as
    /// `model` says.
    pub root: Option<String>,
    /// Format of the weights, which decides what `model` may be.
    pub load_format: LoadFormat,
    /// Seed of dummy weights.
    pub dummy_seed: u64,
    /// Names for requests; empty: the model's own.
    pub served_model_names: Vec<String>,
    /// Tokens in a sequence at most; `None`: what the model was made for.
    pub max_model_len: Option<u32>,
    /// A template's text, in place of the model's own.
    pub chat_template: Option<String>,
    /// Serve token ids only.
    pub skip_tokenizer_init: bool,
    /// Where sampling defaults come from.
    pub generation_config: GenerationConfigSource,
    /// Fields that replace those of the generation config.
    pub override_generation_config: Map<String, Value>,
}

/// A model as the front knows it.
#[derive(Clone, Debug)]
pub struct ModelInfo {
    /// What `/v1/models` shows.
    pub served: ServedModel,
    /// Tokenizer and templates; `None` where only token ids are served.
    pub text: Option<Arc<TextModel>>,
    /// What requests get where they say nothing.
    pub defaults: GenerationDefaults,
    /// Hash of what must be configured equally on both nodes of a pair, this model with it; empty
    /// where nobody compares.
    pub config_hash: String,
}

/// Where a server gets a model from while it runs.
pub trait ModelLoader: Send + Sync + 'static {
    /// Reads a model's small files and says how its engines are started: the model of this name,
    /// or the one that the server began with where there is none. Blocks.
    ///
    /// # Errors
    /// A message for the operator.
    fn load(&self, model: Option<&str>)
    -> Result<(ModelInfo, Arc<dyn EngineLauncher>), FrontError>;
}

impl ModelInfo {
    /// Reads the model's small files. Blocks; takes up to a second for a large vocabulary.
    ///
    /// # Errors
    /// A message for the operator.
    pub fn load(options: &ModelOptions) -> Result<Self, FrontError> {
        let model_error = |reason: String| FrontError::Model {
            model: options.model.clone(),
            reason,
        };
        let source =
            ModelSource::resolve_as(&options.model, options.load_format, options.dummy_seed)
                .map_err(|e| model_error(e.to_string()))?;
        let files = source.open().map_err(|e| model_error(e.to_string()))?;
        let config = files.config().map_err(|e| model_error(e.to_string()))?;
        let asked = options.max_model_len.map(|len| len as usize);
        let max_model_len = config
            .resolve_max_model_len(asked)
            .map_err(|e| FrontError::Option(e.to_string()))?;
        let text = match options.skip_tokenizer_init {
            true => None,
            false => load_text(&files, &config, options)
                .map_err(model_error)?
                .map(Arc::new),
        };
        let root = options.root.clone().unwrap_or_else(|| source.name());
        let names = match options.served_model_names.is_empty() {
            true => vec![root.clone()],
            false => options.served_model_names.clone(),
        };
        let created = SystemTime::now().duration_since(UNIX_EPOCH);
        Ok(Self {
            served: ServedModel {
                names,
                root,
                created: created.map_or(0, |since| since.as_secs()),
                max_model_len: to_u32(max_model_len),
                vocab_size: to_u32(config.vocab_size),
            },
            text,
            config_hash: String::new(),
            defaults: load_defaults(&files, &config, options)?,
        })
    }
}

/// Configs bound their counts far below this type's limit.
fn to_u32(value: usize) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}

/// `None` only for dummy weights whose vocabulary is too small for text.
fn load_text(
    files: &ModelFiles,
    config: &ModelConfig,
    options: &ModelOptions,
) -> Result<Option<TextModel>, String> {
    let own_template = files.chat_template_jinja.as_deref().map(str::from_utf8);
    let own_template = own_template
        .transpose()
        .map_err(|e| format!("chat_template.jinja is not UTF-8: {e}"))?;
    let template = options.chat_template.as_deref().or(own_template);
    let tokenizer = match (files.tokenizer_json.as_deref(), files.gguf()) {
        (Some(tokenizer), _) => tokenizer,
        (None, Some(gguf)) => return gguf_text::load(gguf, template).map(Some),
        (None, None) if files.is_dummy() => return made_up_text(config.vocab_size, template),
        (None, None) => {
            return Err(
                "it has no tokenizer.json; --skip-tokenizer-init serves token ids \
                        without a tokenizer"
                    .to_owned(),
            );
        }
    };
    TextModel::load(tokenizer, files.tokenizer_config_json.as_deref(), template)
        .map(Some)
        .map_err(|e| e.to_string())
}

/// A tokenizer for random weights that have none: load generators send texts.
fn made_up_text(vocab_size: usize, template: Option<&str>) -> Result<Option<TextModel>, String> {
    const NUM_BYTES: usize = 256;
    if vocab_size < NUM_BYTES {
        tracing::info!("The model has no tokenizer, and too few tokens for bytes: ids only.");
        return Ok(None);
    }
    tracing::info!("The model has no tokenizer: each byte of a text is a token.");
    let made_up = TextModel::synthetic(vocab_size, template);
    made_up.map(Some).map_err(|e| e.to_string())
}

fn load_defaults(
    files: &ModelFiles,
    config: &ModelConfig,
    options: &ModelOptions,
) -> Result<GenerationDefaults, FrontError> {
    let own = files.generation_config();
    let own = own.map_err(|e| FrontError::Option(e.to_string()))?;
    let (base, is_limit) = match &options.generation_config {
        GenerationConfigSource::Model => (own.clone(), false),
        GenerationConfigSource::Neutral => (GenerationConfig::default(), false),
        GenerationConfigSource::Directory(directory) => {
            let path = directory.join("generation_config.json");
            let option_error = |e: String| {
                FrontError::Option(format!("--generation-config: {}: {e}", path.display()))
            };
            let json = std::fs::read(&path).map_err(|e| option_error(e.to_string()))?;
            let parsed = GenerationConfig::parse(&json).map_err(|e| option_error(e.to_string()))?;
            (parsed, true)
        }
    };
    let over = parse_override(&options.override_generation_config)?;
    let neutral = GenerationDefaults::default();
    let limit = over
        .max_new_tokens
        .or(base.max_new_tokens.filter(|_| is_limit));
    // The model's end-of-sequence ids hold whatever the sampling defaults are.
    let mut eos_token_ids = own.all_eos_token_ids(&config.eos_token_ids);
    eos_token_ids.extend(&base.eos_token_ids);
    if !over.eos_token_ids.is_empty() {
        eos_token_ids = over.eos_token_ids;
    }
    eos_token_ids.sort_unstable();
    eos_token_ids.dedup();
    let defaults = GenerationDefaults {
        temperature: over
            .temperature
            .or(base.temperature)
            .unwrap_or(neutral.temperature),
        top_p: over.top_p.or(base.top_p).unwrap_or(neutral.top_p),
        top_k: over.top_k.or(base.top_k).unwrap_or(neutral.top_k),
        min_p: over.min_p.or(base.min_p).unwrap_or(neutral.min_p),
        repetition_penalty: over
            .repetition_penalty
            .or(base.repetition_penalty)
            .unwrap_or(neutral.repetition_penalty),
        max_tokens: over.max_new_tokens.or(base.max_new_tokens),
        max_tokens_limit: limit,
        eos_token_ids,
    };
    defaults.check().map_err(FrontError::Option)?;
    Ok(defaults)
}

fn parse_override(fields: &Map<String, Value>) -> Result<GenerationConfig, FrontError> {
    let option_error = |e: String| FrontError::Option(format!("--override-generation-config: {e}"));
    if let Some(unknown) = fields
        .keys()
        .find(|key| !OVERRIDABLE.contains(&key.as_str()))
    {
        let known = OVERRIDABLE.join(", ");
        return Err(option_error(format!(
            "unknown field `{unknown}`; there are {known}"
        )));
    }
    let json = Value::Object(fields.clone()).to_string();
    GenerationConfig::parse(json.as_bytes()).map_err(|e| option_error(e.to_string()))
}

#[cfg(test)]
#[path = "load_test.rs"]
mod load_test;
