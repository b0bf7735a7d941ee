//! GGUF files: metadata and quantized tensors in one file, as llama.cpp writes them.
//!
//! Versions 2 and 3, little-endian. The header is parsed here and not by a library, so that every
//! refusal names the field or tensor at fault, and no header, however damaged, can overflow, panic
//! or make this allocate more than a small multiple of what the file really holds. Arrays
//! (vocabularies) stay in the file until they are asked for.
//!
//! Invariant: the tensors of a file that is accepted lie inside it and are exactly as long as their
//! shape and type say.

mod architecture;
mod check;
mod config;
mod names;
mod reader;
mod rope;
mod split;
mod tensors;
mod value;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

pub(crate) use architecture::GgufArchitecture;
pub(crate) use names::FileName;
#[cfg(test)]
pub(crate) use names::tensor_name;
pub(crate) use split::shard_names;
pub use value::{GgufArray, GgufValue};

use crate::ModelError;
use crate::safetensors::TensorEntry;
use crate::weights::WeightBytes;
use reader::Reader;

/// First bytes of every file.
const MAGIC: &[u8; 4] = b"GGUF";
/// Metadata fields at most; real files have a few dozen.
const MAX_FIELDS: u64 = 1 << 16;
/// Tensors at most; the largest real models have some thousands.
const MAX_TENSORS: u64 = 1 << 18;
/// Bytes of metadata at most: real vocabularies and templates take some tens of millions. Bounds
/// the time and memory of reading it.
const MAX_METADATA_BYTES: usize = 1 << 28;
/// Where tensor data starts, unless the file says otherwise: a multiple of this.
const DEFAULT_ALIGNMENT: u64 = 32;

/// A file, and the tensors in it in its header's order.
pub(crate) struct GgufShard {
    pub(crate) owner: Arc<dyn WeightBytes>,
    pub(crate) tensors: Vec<TensorEntry>,
}

/// The header of a GGUF file, and the file; of a model in several, all of them.
pub struct GgufFile {
    name: String,
    metadata: BTreeMap<String, GgufValue>,
    /// The first one has the metadata.
    shards: Vec<GgufShard>,
}

impl GgufFile {
    /// Parses the header of `owner`; `name` is for messages.
    ///
    /// # Errors
    /// [`ModelError::Gguf`], naming what is wrong.
    pub fn parse(name: &str, owner: Arc<dyn WeightBytes>) -> Result<Self, ModelError> {
        let damaged = |reason| ModelError::Gguf {
            file: name.to_owned(),
            reason: format!("is not a usable GGUF file: {reason}"),
        };
        let (metadata, tensors) = parse_header(owner.bytes()).map_err(damaged)?;
        Ok(Self {
            name: name.to_owned(),
            metadata,
            shards: vec![GgufShard { owner, tensors }],
        })
    }

    /// The value of metadata field `key`.
    pub fn get(&self, key: &str) -> Option<&GgufValue> {
        self.metadata.get(key)
    }

    /// Field `key` as a string.
    ///
    /// # Errors
    /// It is something else.
    pub fn string(&self, key: &str) -> Result<Option<&str>, ModelError> {
        match self.get(key) {
            None => Ok(None),
            Some(GgufValue::String(value)) => Ok(Some(value)),
            Some(other) => Err(self.field_error(key, &format!("is {other}, not a string"))),
        }
    }

    /// Field `key` as true or false.
    ///
    /// # Errors
    /// It is something else.
    pub fn bool(&self, key: &str) -> Result<Option<bool>, ModelError> {
        match self.get(key) {
            None => Ok(None),
            Some(GgufValue::Bool(value)) => Ok(Some(*value)),
            Some(other) => Err(self.field_error(key, &format!("is {other}, not true or false"))),
        }
    }

    /// Field `key` as a whole number that is not negative.
    ///
    /// # Errors
    /// It is something else.
    pub fn u64(&self, key: &str) -> Result<Option<u64>, ModelError> {
        match self.get(key) {
            None => Ok(None),
            Some(GgufValue::Unsigned(value)) => Ok(Some(*value)),
            Some(GgufValue::Signed(value)) if *value >= 0 => Ok(Some(value.unsigned_abs())),
            Some(other) => Err(self.field_error(key, &format!("is {other}, not a whole number"))),
        }
    }

    /// Field `key` as a finite number.
    ///
    /// # Errors
    /// It is something else.
    pub fn f64(&self, key: &str) -> Result<Option<f64>, ModelError> {
        let number = match self.get(key) {
            None => return Ok(None),
            Some(GgufValue::Unsigned(value)) => Some(*value as f64),
            Some(GgufValue::Signed(value)) => Some(*value as f64),
            Some(GgufValue::Float(value)) => Some(*value),
            Some(_) => None,
        };
        match number.filter(|number| number.is_finite()) {
            Some(number) => Ok(Some(number)),
            None => Err(self.field_error(key, "is not a finite number")),
        }
    }

    /// Field `key` as a list of strings, borrowed from the file.
    ///
    /// # Errors
    /// It is something else, or a string is not UTF-8.
    pub fn strings(&self, key: &str) -> Result<Option<Vec<&str>>, ModelError> {
        let Some(array) = self.array(key)? else {
            return Ok(None);
        };
        let strings = array.strings(self.bytes());
        strings
            .map(Some)
            .map_err(|reason| self.field_error(key, &reason))
    }

    /// Field `key` as a list of numbers.
    ///
    /// # Errors
    /// It is something else.
    pub fn numbers(&self, key: &str) -> Result<Option<Vec<f64>>, ModelError> {
        let Some(array) = self.array(key)? else {
            return Ok(None);
        };
        let numbers = array.numbers(self.bytes());
        numbers
            .map(Some)
            .map_err(|reason| self.field_error(key, &reason))
    }

    /// Field `key` as a list of truth values.
    ///
    /// # Errors
    /// It is something else.
    pub(crate) fn bools(&self, key: &str) -> Result<Option<Vec<bool>>, ModelError> {
        let Some(array) = self.array(key)? else {
            return Ok(None);
        };
        let bools = array.bools(self.bytes());
        bools
            .map(Some)
            .map_err(|reason| self.field_error(key, &reason))
    }

    /// All metadata fields, by key.
    pub(crate) fn fields(&self) -> impl Iterator<Item = (&str, &GgufValue)> {
        let fields = self.metadata.iter();
        fields.map(|(key, value)| (key.as_str(), value))
    }

    /// How this file's architecture names tensors.
    pub(crate) fn naming(&self) -> fn(&str) -> FileName {
        match GgufArchitecture::parse(self) {
            Ok(architecture) if architecture.is_gemma() => names::gemma_tensor_name,
            _ => names::tensor_name,
        }
    }

    fn array(&self, key: &str) -> Result<Option<&GgufArray>, ModelError> {
        match self.get(key) {
            None => Ok(None),
            Some(GgufValue::Array(array)) => Ok(Some(array)),
            Some(other) => Err(self.field_error(key, &format!("is {other}, not a list"))),
        }
    }

    /// An error about metadata field `key`.
    pub(crate) fn field_error(&self, key: &str, reason: &str) -> ModelError {
        ModelError::Gguf {
            file: self.name.clone(),
            reason: format!("`{key}` {reason}"),
        }
    }

    /// The bytes of the file that has the metadata.
    fn bytes(&self) -> &[u8] {
        self.shards.first().map_or(&[], |shard| shard.owner.bytes())
    }

    /// The files.
    pub(crate) fn shards(&self) -> &[GgufShard] {
        &self.shards
    }

    /// The tensors of all files, in their headers' order.
    pub(crate) fn tensors(&self) -> impl Iterator<Item = &TensorEntry> {
        self.shards.iter().flat_map(|shard| &shard.tensors)
    }

    /// The tensor of that name in the files.
    pub(crate) fn tensor(&self, name: &str) -> Option<&TensorEntry> {
        self.tensors().find(|tensor| tensor.name == name)
    }

    /// The bytes of the tensor of that name.
    pub(crate) fn tensor_bytes(&self, name: &str) -> Option<&[u8]> {
        self.shards.iter().find_map(|shard| {
            let tensor = shard.tensors.iter().find(|tensor| tensor.name == name)?;
            shard.owner.bytes().get(tensor.range.clone())
        })
    }
}

impl fmt::Debug for GgufFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GgufFile")
            .field("name", &self.name)
            .field("num_fields", &self.metadata.len())
            .field("num_tensors", &self.tensors().count())
            .finish_non_exhaustive()
    }
}

type Header = (BTreeMap<String, GgufValue>, Vec<TensorEntry>);

/// Metadata and tensors of `file`.
fn parse_header(file: &[u8]) -> Result<Header, String> {
    let mut reader = Reader::new(file);
    if reader.bytes(4, "the magic number")? != MAGIC {
        return Err("it does not start with the bytes `GGUF`".to_owned());
    }
    let version = reader.u32("the version")?;
    match version {
        2 | 3 => {}
        _ if matches!(version.swap_bytes(), 1..=3) => {
            return Err("it is big-endian, which is not supported".to_owned());
        }
        _ => return Err(format!("its version is {version}; supported are 2 and 3")),
    }
    let num_tensors = reader.u64("the number of tensors")?;
    if num_tensors > MAX_TENSORS {
        return Err(format!(
            "it claims {num_tensors} tensors, more than {MAX_TENSORS}"
        ));
    }
    let num_fields = reader.u64("the number of metadata fields")?;
    if num_fields > MAX_FIELDS {
        return Err(format!(
            "it claims {num_fields} metadata fields, more than {MAX_FIELDS}"
        ));
    }
    let mut metadata = BTreeMap::new();
    for index in 0..num_fields {
        let key = reader.name(&format!("the key of metadata field {index}"))?;
        let value = value::read(&mut reader, &key)?;
        if metadata.contains_key(&key) {
            return Err(format!("metadata field `{key}` is there twice"));
        }
        if reader.position() > MAX_METADATA_BYTES {
            return Err(format!(
                "its metadata is longer than {MAX_METADATA_BYTES} bytes at field `{key}`"
            ));
        }
        metadata.insert(key, value);
    }
    let tensors = tensors::read(&mut reader, num_tensors, alignment(&metadata)?, file.len())?;
    Ok((metadata, tensors))
}

/// `general.alignment`.
fn alignment(metadata: &BTreeMap<String, GgufValue>) -> Result<u64, String> {
    match metadata.get("general.alignment") {
        None => Ok(DEFAULT_ALIGNMENT),
        Some(GgufValue::Unsigned(value)) if value.is_power_of_two() && *value <= 1 << 20 => {
            Ok(*value)
        }
        Some(other) => Err(format!(
            "`general.alignment` is {other}, not a power of two up to 2^20"
        )),
    }
}
