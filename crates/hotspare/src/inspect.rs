//! `hotspare inspect`: what a model is, before it is served.
//!
//! Invariant: nothing is downloaded; and whether a backend can run the model is found out by
//! loading it there with the smallest buffers.

use std::process::ExitCode;

use hotspare_front::{ModelInfo, ModelOptions};
use hotspare_model::weights::WeightDtype;
use hotspare_model::{
    HashCache, LoadFormat, ModelConfig, ModelFiles, ModelSource, Shape, kv_bytes_per_block,
};

use crate::cli::{InspectArgs, LogFormat};
use crate::hub::{HubOptions, Request, model_ref};
use crate::inspect_report::{Memory, Report, TextReport, WeightsReport};
use crate::{fail, hub_progress, logging, print_result};

/// Contexts of the table, as far as the model has them; its own bound is added.
const CONTEXTS: [usize; 4] = [2_048, 8_192, 32_768, 131_072];
/// Numbers of sequences of the table.
const NUM_SEQS: [usize; 4] = [1, 4, 16, 64];
/// Tokens in a KV block, as by default.
const BLOCK_SIZE: usize = 16;
/// Less is hashed before anyone could look at a bar.
const MIN_BYTES_OF_BAR: u64 = 1 << 30;

/// Prints the report, and ends.
pub(crate) fn run(args: InspectArgs) -> ExitCode {
    // Errors are told below; what else is worth a line is a warning.
    if let Err(message) = logging::init("warn", LogFormat::Human, None) {
        return fail(&message);
    }
    match inspect(&args) {
        Ok(report) => {
            let text = match args.json {
                true => report.to_json(),
                false => report.to_string(),
            };
            print_result(text.trim_end())
        }
        Err(message) => {
            tracing::error!("{message}");
            ExitCode::FAILURE
        }
    }
}

/// A model, found and named.
struct Found {
    /// What to open.
    path: String,
    format: LoadFormat,
    /// Where the hub's cache has it.
    commit: Option<String>,
}

fn inspect(args: &InspectArgs) -> Result<Report, String> {
    let found = find(args)?;
    let named = |error: String| format!("{}: {error}", args.model);
    let source = ModelSource::resolve_as(&found.path, found.format, 0);
    let source = source.map_err(|e| e.to_string())?;
    let files = source.open().map_err(|e| named(e.to_string()))?;
    let config = files.config().map_err(|e| named(e.to_string()))?;
    let weights = match files.is_dummy() {
        true => None,
        false => Some(weights(&files).map_err(named)?),
    };
    let hash = match args.no_hash || files.is_dummy() {
        true => None,
        false => Some(hash(&files, args)),
    };
    let num_parameters = match &weights {
        Some(weights) => weights.num_elements(),
        None => config.num_parameters(),
    };
    Ok(Report {
        model: args.model.clone(),
        path: source.name(),
        commit: found.commit.clone(),
        num_parameters,
        memory: memory(&config, weights.as_ref(), num_parameters),
        weights,
        text: text(&found, &files),
        cpu: match files.is_dummy() {
            true => Ok(()),
            false => hotspare_engine::check_on_cpu(&files).map_err(|e| e.to_string()),
        },
        content_hash: hash,
        config,
    })
}

/// Where the model is: here, in the hub's cache, or a config without weights.
fn find(args: &InspectArgs) -> Result<Found, String> {
    let name = &args.model;
    let found = |path: String, format, commit| Found {
        path,
        format,
        commit,
    };
    if is_config_only(name) {
        return Ok(found(name.clone(), LoadFormat::Dummy, None));
    }
    let Some(model) = model_ref(name, LoadFormat::Auto) else {
        return Ok(found(name.clone(), LoadFormat::Auto, None));
    };
    let (revision, directory) = (args.revision.clone(), args.download_dir.clone());
    let mut request = Request::new(model, revision, directory, &HubOptions::default())?;
    request.config.is_offline = true;
    let cached = hotspare_hub::fetch(&request.config, &request.wanted, &mut |_| {});
    let cached = cached.map_err(|_| {
        format!("{name} is not here, nor in the hub's cache: `hotspare pull {name}` fetches it")
    })?;
    let path = cached.path.display().to_string();
    Ok(found(path, LoadFormat::Auto, Some(cached.commit)))
}

/// Whether `name` is a known shape, a `config.json`, or a directory with nothing else to load.
fn is_config_only(name: &str) -> bool {
    let path = std::path::Path::new(name);
    if path.is_dir() {
        let has = |file: &str| path.join(file).exists();
        let has_weights = has("model.safetensors") || has("model.safetensors.index.json");
        return has("config.json") && !has_weights;
    }
    let is_json = path
        .extension()
        .is_some_and(|extension| extension == "json");
    match path.exists() {
        true => is_json,
        false => Shape::find(name).is_some(),
    }
}

fn weights(files: &ModelFiles) -> Result<WeightsReport, String> {
    let store = files.weights().map_err(|e| e.to_string())?;
    let mut by_dtype: Vec<(String, u64)> = Vec::new();
    for (dtype, num_elements) in store.summary() {
        match by_dtype.iter_mut().find(|(known, _)| known == dtype) {
            Some((_, sum)) => *sum += num_elements,
            None => by_dtype.push((dtype.to_owned(), num_elements)),
        }
    }
    by_dtype.sort_by_key(|(_, num_elements)| std::cmp::Reverse(*num_elements));
    Ok(WeightsReport {
        num_tensors: store.num_tensors(),
        num_bytes: store.num_bytes() as u64,
        by_dtype,
    })
}

fn hash(files: &ModelFiles, args: &InspectArgs) -> String {
    let cache_dir = args.cache_dir.clone().or_else(HashCache::default_dir);
    let cache = cache_dir.as_deref().map(HashCache::new);
    let bar = logging::can_show_bars(LogFormat::Human).then(|| hub_progress::new_bar(0));
    let hash = files.content_hash(cache.as_ref(), &mut |done, total| {
        if let Some(bar) = bar.as_ref().filter(|_| total >= MIN_BYTES_OF_BAR) {
            bar.set_message("hashing");
            bar.set_length(total);
            bar.set_position(done);
        }
    });
    if let Some(bar) = bar {
        bar.finish_and_clear();
    }
    hash.to_string()
}

/// The tokenizer and template, as the server would load them.
fn text(found: &Found, files: &ModelFiles) -> Result<Option<TextReport>, String> {
    if files.is_dummy() && files.tokenizer_json.is_none() {
        return Ok(None);
    }
    let options = ModelOptions {
        model: found.path.clone(),
        load_format: found.format,
        ..ModelOptions::default()
    };
    let info = ModelInfo::load(&options).map_err(|e| e.to_string())?;
    let defaults = &info.defaults;
    Ok(info.text.map(|text| TextReport {
        num_tokens: text.vocab_size(),
        has_chat_template: text.chat_template(false).is_some(),
        temperature: defaults.temperature,
        top_p: defaults.top_p,
        top_k: defaults.top_k,
        eos_token_ids: defaults.eos_token_ids.clone(),
    }))
}

/// What the model takes at several contexts and numbers of sequences.
fn memory(
    config: &ModelConfig,
    weights: Option<&WeightsReport>,
    num_parameters: u64,
) -> Vec<Memory> {
    let is_half = matches!(config.dtype.as_deref(), Some("bfloat16" | "float16"));
    let dtype = match is_half {
        true => WeightDtype::F16,
        false => WeightDtype::F32,
    };
    let element_bytes = if is_half { 2 } else { 4 };
    let num_weight_bytes = weights.map_or(num_parameters * element_bytes, |w| w.num_bytes);
    let block_bytes = kv_bytes_per_block(config, BLOCK_SIZE, dtype) as u64;
    let max = config.max_context_len();
    let mut contexts: Vec<usize> = CONTEXTS.into_iter().filter(|&len| len < max).collect();
    contexts.push(max);
    let row = |context_len: usize| Memory {
        context_len,
        num_bytes: NUM_SEQS
            .map(|num_seqs| {
                let num_blocks = (context_len.div_ceil(BLOCK_SIZE) * num_seqs) as u64;
                let kv_bytes = num_blocks.saturating_mul(block_bytes);
                (num_seqs, kv_bytes.saturating_add(num_weight_bytes))
            })
            .to_vec(),
    };
    contexts.into_iter().map(row).collect()
}
