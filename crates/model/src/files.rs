//! A model's files, as bytes: config, tokenizer, chat template, weights.
//!
//! Small files are read into memory, weights are mapped. Nothing is interpreted but the list of
//! shards.
//!
//! Invariant: every file is bounded in size, and shards lie in the model's own directory.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use serde_json::Value;

use crate::dummy::{DUMMY_VERSION, Dummy};
use crate::embedded::EmbeddedModel;
use crate::gguf::{GgufFile, shard_names};
use crate::hash::{FileBytes, hash_files};
use crate::mmap::MappedFile;
use crate::weights::WeightBytes;
use crate::{ContentHash, GenerationConfig, HashCache, ModelConfig, ModelError, WeightStore};

/// Bound on a JSON file that grows with the vocabulary or the number of tensors; large ones reach
/// tens of megabytes.
const MAX_LARGE_JSON_BYTES: u64 = 256 << 20;
/// Bound on what is beside a vocabulary: lists of added tokens take a megabyte or two.
const MAX_TOKENIZER_CONFIG_BYTES: u64 = 16 << 20;
/// Bound on a config and a template, which have some kilobytes.
const MAX_CONFIG_BYTES: u64 = 1 << 20;
/// Weights in one file.
const SINGLE_FILE: &str = "model.safetensors";
/// List of shards, where the weights are in several files.
const SHARD_INDEX: &str = "model.safetensors.index.json";

/// A GGUF file's name in the content hash, whatever it is called on disk.
const GGUF_FILE: &str = "model.gguf";

/// By tensor: the name of its file.
type ShardList = BTreeMap<String, String>;
/// A file's name, for messages and the hash, and its bytes.
type WeightFile = (String, Arc<dyn WeightBytes>);

/// The bytes of a model's files.
#[derive(Clone)]
pub struct ModelFiles {
    /// `config.json`, or what a GGUF file's metadata amounts to.
    pub config_json: Cow<'static, [u8]>,
    /// `generation_config.json`.
    pub generation_config_json: Option<Cow<'static, [u8]>>,
    /// `tokenizer.json`. A model without one is served token ids in, token ids out.
    pub tokenizer_json: Option<Cow<'static, [u8]>>,
    /// `tokenizer_config.json`.
    pub tokenizer_config_json: Option<Cow<'static, [u8]>>,
    /// `chat_template.jinja`; older models have it inside `tokenizer_config.json`.
    pub chat_template_jinja: Option<Cow<'static, [u8]>>,
    /// Safetensors files, sorted by name, or the GGUF file.
    weights: Vec<WeightFile>,
    /// Which shard each tensor is in, where there is a list of them.
    shards: Option<Arc<ShardList>>,
    /// The GGUF file's header, where that is what the model is.
    gguf: Option<Arc<GgufFile>>,
    /// Random weights in place of files.
    dummy: Option<Dummy>,
}

impl ModelFiles {
    /// Opens the model in directory `path`.
    pub(crate) fn open_directory(path: &Path) -> Result<Self, ModelError> {
        // First, so that a directory without a config is said to be one.
        let without_weights = Self::open_without_weights(path)?;
        let (weights, shards) = open_weights(path)?;
        Ok(Self {
            weights,
            shards: shards.map(Arc::new),
            ..without_weights
        })
    }

    /// Opens what is in directory `path` beside the weights.
    pub(crate) fn open_without_weights(path: &Path) -> Result<Self, ModelError> {
        let config = Self::open_config(&path.join("config.json"))?;
        Ok(Self {
            generation_config_json: read_small(path, "generation_config.json")?,
            tokenizer_json: read_small(path, "tokenizer.json")?,
            tokenizer_config_json: read_small(path, "tokenizer_config.json")?,
            chat_template_jinja: read_small(path, "chat_template.jinja")?,
            ..config
        })
    }

    /// Opens the `config.json` that lies at `path`, and nothing else.
    pub(crate) fn open_config(path: &Path) -> Result<Self, ModelError> {
        let (directory, name) = (path.parent(), path.file_name());
        let name = name.and_then(|name| name.to_str()).unwrap_or_default();
        let json = read_small(directory.unwrap_or(Path::new("")), name)?;
        let json = json.ok_or_else(|| ModelError::Io {
            path: path.to_owned(),
            reason: std::io::ErrorKind::NotFound.into(),
        })?;
        Ok(Self::of_config(json))
    }

    /// A config without anything else.
    pub(crate) fn of_config(config_json: Cow<'static, [u8]>) -> Self {
        Self {
            config_json,
            generation_config_json: None,
            tokenizer_json: None,
            tokenizer_config_json: None,
            chat_template_jinja: None,
            weights: Vec::new(),
            shards: None,
            gguf: None,
            dummy: None,
        }
    }

    /// The same with random weights in place of its own.
    pub(crate) fn with_dummy(self, dummy: Dummy) -> Self {
        Self {
            weights: Vec::new(),
            shards: None,
            dummy: Some(dummy),
            ..self
        }
    }

    /// Whether the weights are random.
    pub fn is_dummy(&self) -> bool {
        self.dummy.is_some()
    }

    /// Opens the GGUF file `path`, and where it is the first of several, all of them. A tokenizer,
    /// template or generation config that lies beside it is taken; `config.json` is not, for the
    /// file says itself what its weights mean.
    pub(crate) fn open_gguf(path: &Path) -> Result<Self, ModelError> {
        let (gguf, weights) = open_gguf_files(path)?;
        let beside = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        Ok(Self {
            config_json: Cow::Owned(gguf.config_json()?),
            generation_config_json: read_small(beside, "generation_config.json")?,
            tokenizer_json: read_small(beside, "tokenizer.json")?,
            tokenizer_config_json: read_small(beside, "tokenizer_config.json")?,
            chat_template_jinja: read_small(beside, "chat_template.jinja")?,
            weights,
            shards: None,
            gguf: Some(Arc::new(gguf)),
            dummy: None,
        })
    }

    /// The GGUF file's metadata, where the model is one.
    pub fn gguf(&self) -> Option<&GgufFile> {
        self.gguf.as_deref()
    }

    /// Opens a model of the binary.
    pub(crate) fn open_embedded(model: EmbeddedModel) -> Self {
        let files = model.files();
        Self {
            config_json: Cow::Borrowed(files.config_json),
            generation_config_json: Some(Cow::Borrowed(files.generation_config_json)),
            tokenizer_json: Some(Cow::Borrowed(files.tokenizer_json)),
            tokenizer_config_json: Some(Cow::Borrowed(files.tokenizer_config_json)),
            chat_template_jinja: None,
            weights: vec![(SINGLE_FILE.to_owned(), Arc::new(files.weights))],
            shards: None,
            gguf: None,
            dummy: None,
        }
    }

    /// Parses `config.json`, or reads the GGUF file's metadata.
    ///
    /// # Errors
    /// A field that is missing, wrong, or not supported.
    pub fn config(&self) -> Result<ModelConfig, ModelError> {
        match &self.gguf {
            Some(gguf) => gguf.config(),
            None => ModelConfig::parse(&self.config_json),
        }
    }

    /// Parses `generation_config.json`; without one, every default is unset.
    ///
    /// # Errors
    /// A field of the wrong type or out of range.
    pub fn generation_config(&self) -> Result<GenerationConfig, ModelError> {
        match &self.generation_config_json {
            Some(json) => GenerationConfig::parse(json),
            None => Ok(GenerationConfig::default()),
        }
    }

    /// The tensors.
    ///
    /// # Errors
    /// A damaged weight file, or one without a tensor that the list of shards says it has.
    pub fn weights(&self) -> Result<WeightStore, ModelError> {
        match (&self.gguf, self.dummy) {
            (Some(gguf), _) => return Ok(WeightStore::from_gguf(gguf)),
            (None, Some(dummy)) => return Ok(WeightStore::from_dummy(dummy, &self.config()?)),
            (None, None) => {}
        }
        let store = WeightStore::new(self.weights.clone())?;
        if let Some(shards) = &self.shards {
            store.check_shards(shards)?;
        }
        Ok(store)
    }

    /// Bytes of all weight files.
    pub fn num_weight_bytes(&self) -> u64 {
        let lengths = self
            .weights
            .iter()
            .map(|(_, file)| file.bytes().len() as u64);
        lengths.sum()
    }

    /// Hashes every file (`progress`: bytes done, bytes in all). Reads all weights that `cache`
    /// does not know once. Of dummy weights the config and the seed count.
    pub fn content_hash(
        &self,
        cache: Option<&HashCache>,
        progress: &mut dyn FnMut(u64, u64),
    ) -> ContentHash {
        // What stands for a GGUF file's config.json is made from the file, which is hashed whole.
        let mut files: Vec<FileBytes<'_>> = match self.gguf {
            Some(_) => Vec::new(),
            None => vec![FileBytes::new("config.json", &self.config_json)],
        };
        let optional = [
            ("generation_config.json", &self.generation_config_json),
            ("tokenizer.json", &self.tokenizer_json),
            ("tokenizer_config.json", &self.tokenizer_config_json),
            ("chat_template.jinja", &self.chat_template_jinja),
        ];
        for (name, bytes) in &optional {
            files.extend(bytes.as_deref().map(|bytes| FileBytes::new(name, bytes)));
        }
        files.extend(self.weights.iter().map(|(name, file)| FileBytes {
            name,
            bytes: file.bytes(),
            identity: file.identity(),
        }));
        let dummy = self.dummy.map(|dummy| dummy.seed.to_le_bytes());
        files.extend(dummy.iter().map(|seed| FileBytes::new(DUMMY_VERSION, seed)));
        hash_files(&files, cache, progress)
    }
}

/// Bytes of a small file of that name, at most.
fn max_bytes(name: &str) -> u64 {
    match name {
        "tokenizer.json" | SHARD_INDEX => MAX_LARGE_JSON_BYTES,
        "tokenizer_config.json" => MAX_TOKENIZER_CONFIG_BYTES,
        _ => MAX_CONFIG_BYTES,
    }
}

/// Reads `directory/name` if it is there.
fn read_small(directory: &Path, name: &str) -> Result<Option<Cow<'static, [u8]>>, ModelError> {
    let path = directory.join(name);
    let io_error = |reason| ModelError::Io {
        path: path.clone(),
        reason,
    };
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(io_error(e)),
    };
    let limit_bytes = max_bytes(name);
    let mut bytes = Vec::new();
    let mut bounded = file.take(limit_bytes + 1);
    bounded.read_to_end(&mut bytes).map_err(io_error)?;
    if bytes.len() as u64 > limit_bytes {
        return Err(ModelError::TooLarge {
            path: path.clone(),
            num_bytes: bytes.len() as u64,
            limit_bytes,
        });
    }
    Ok(Some(Cow::Owned(bytes)))
}

/// Maps the GGUF file `path`, and the others of its model where there are any.
fn open_gguf_files(path: &Path) -> Result<(GgufFile, Vec<WeightFile>), ModelError> {
    let open = |path: &Path| {
        let owner: Arc<dyn WeightBytes> = Arc::new(MappedFile::open(path)?);
        let file = GgufFile::parse(&path.display().to_string(), Arc::clone(&owner))?;
        Ok::<_, ModelError>((file, owner))
    };
    let (first, owner) = open(path)?;
    let count = first.split_count()?;
    if count == 1 {
        return Ok((first, vec![(GGUF_FILE.to_owned(), owner)]));
    }
    let name = path.file_name().and_then(|name| name.to_str());
    let names = name.and_then(shard_names).unwrap_or_default();
    if names.len() as u64 != count {
        let reason = format!(
            "says that the model is in {count} files, but is not named as one of them \
             (NAME-00001-of-{count:05}.gguf)"
        );
        return Err(first.field_error("split.count", &reason));
    }
    if name != Some(&names[0]) {
        let number = first.u64("split.no")?.unwrap_or(0) + 1;
        let reason = format!(
            "says that this is file {number} of {count}: name {}",
            names[0]
        );
        return Err(first.field_error("split.no", &reason));
    }
    let mut weights = vec![(format!("model-00001-of-{count:05}.gguf"), owner)];
    let mut others = Vec::new();
    for (index, name) in names.iter().enumerate().skip(1) {
        let beside = path.with_file_name(name);
        if !beside.exists() {
            let reason = format!("says that the model is in {count} files, and {name} is missing");
            return Err(first.field_error("split.count", &reason));
        }
        let (file, owner) = open(&beside)?;
        others.push(file);
        weights.push((format!("model-{:05}-of-{count:05}.gguf", index + 1), owner));
    }
    Ok((first.join(others)?, weights))
}

/// Maps the weight files of `directory`: the single file, or all shards of the index, which comes
/// with them. Other files of the directory are not looked at.
fn open_weights(directory: &Path) -> Result<(Vec<WeightFile>, Option<ShardList>), ModelError> {
    let shards = if directory.join(SINGLE_FILE).exists() {
        None
    } else if let Some(index) = read_small(directory, SHARD_INDEX)? {
        Some(shard_list(&index)?)
    } else {
        return Err(ModelError::UnknownModel {
            name: directory.display().to_string(),
            reason: format!("the directory has neither {SINGLE_FILE} nor {SHARD_INDEX}"),
        });
    };
    let names = match &shards {
        Some(shards) => shards.values().cloned().collect(),
        None => BTreeSet::from([SINGLE_FILE.to_owned()]),
    };
    let open = |name: String| {
        let file: Arc<dyn WeightBytes> = Arc::new(MappedFile::open(&directory.join(&name))?);
        Ok((name, file))
    };
    let files = names
        .into_iter()
        .map(open)
        .collect::<Result<_, ModelError>>()?;
    Ok((files, shards))
}

/// What a shard index says.
fn shard_list(index: &[u8]) -> Result<ShardList, ModelError> {
    let json_error = |reason: String| ModelError::Json {
        file: SHARD_INDEX.to_owned(),
        reason,
    };
    let index: Value = serde_json::from_slice(index).map_err(|e| json_error(e.to_string()))?;
    let map = index.get("weight_map").and_then(Value::as_object);
    let map = map.ok_or_else(|| json_error("`weight_map` is not an object".to_owned()))?;
    let mut shards = ShardList::new();
    for (tensor, shard) in map {
        let name = shard.as_str().unwrap_or_default();
        let is_plain = !name.is_empty() && !name.contains(['/', '\\', '\0']) && name != "..";
        if !is_plain {
            let reason = format!("tensor `{tensor}` is in {shard}, which is no file name");
            return Err(json_error(reason));
        }
        shards.insert(tensor.clone(), name.to_owned());
    }
    if shards.is_empty() {
        return Err(json_error("`weight_map` is empty".to_owned()));
    }
    Ok(shards)
}
