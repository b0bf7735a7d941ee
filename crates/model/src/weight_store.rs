//! All tensors of a model by name, over one file or many shards, checked on the way out.
//!
//! Invariant: a view handed out has the shape that was asked for and a dtype that kernels read.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::Arc;

use crate::ModelError;
use crate::config::ModelConfig;
use crate::dummy::{Dummy, DummyTensor};
use crate::gguf::{FileName, GgufFile, GgufShard};
use crate::safetensors::{TensorEntry, parse_header};
use crate::tensor_list::TensorSpec;
use crate::weights::{WeightBytes, WeightDtype, WeightView};

/// Where a tensor's bytes come from.
enum Origin {
    /// A file.
    Owner(Arc<dyn WeightBytes>),
    /// They are made when asked for.
    Dummy(DummyTensor),
}

impl Origin {
    /// `None` where there is no memory for it.
    fn owner(&self) -> Option<Arc<dyn WeightBytes>> {
        match self {
            Self::Owner(owner) => Some(Arc::clone(owner)),
            Self::Dummy(tensor) => tensor.make(),
        }
    }
}

/// Where a tensor is.
struct Stored {
    /// The file's name.
    file: Arc<str>,
    origin: Origin,
    entry: TensorEntry,
    used: Cell<bool>,
}

/// How the files call what families call by transformers' names for a text model.
#[derive(Clone, Copy)]
enum Naming {
    /// The same.
    Plain,
    /// A text model inside another: what `model.` names is under this prefix.
    Inside(&'static str),
    /// As llama.cpp does.
    Gguf(fn(&str) -> FileName),
}

/// Prefixes of a text model inside another, in files of transformers 4 and as transformers 5 names
/// it in memory.
const INNER_PREFIXES: [&str; 2] = ["language_model.model.", "model.language_model."];
/// Output matrix of a text model inside another.
const INNER_OUTPUT: &str = "language_model.lm_head.weight";

impl Naming {
    /// The naming of files with these tensors.
    fn of(tensors: &BTreeMap<String, Stored>) -> Self {
        let is_inside =
            |prefix: &&str| tensors.contains_key(&format!("{prefix}embed_tokens.weight"));
        match INNER_PREFIXES.into_iter().find(is_inside) {
            Some(prefix) => Self::Inside(prefix),
            None => Self::Plain,
        }
    }
}

/// The tensors of a model. Families ask by transformers' names; other names that files have are
/// what errors use. Of a text model inside another, the other's tensors are no part.
pub struct WeightStore {
    tensors: BTreeMap<String, Stored>,
    naming: Naming,
}

impl WeightStore {
    /// Reads the headers of `files` (name for messages, bytes).
    ///
    /// # Errors
    /// A damaged header, or a tensor that two files hold.
    pub fn new(files: Vec<(String, Arc<dyn WeightBytes>)>) -> Result<Self, ModelError> {
        let mut tensors = BTreeMap::new();
        for (file, owner) in files {
            let file: Arc<str> = file.into();
            let damaged = |reason| ModelError::Safetensors {
                file: file.to_string(),
                reason,
            };
            for entry in parse_header(owner.bytes()).map_err(damaged)? {
                let name = entry.name.clone();
                let stored = Stored {
                    file: Arc::clone(&file),
                    origin: Origin::Owner(Arc::clone(&owner)),
                    entry,
                    used: Cell::new(false),
                };
                if tensors.insert(name.clone(), stored).is_some() {
                    return Err(damaged(format!("tensor `{name}` is in another file too")));
                }
            }
        }
        let naming = Naming::of(&tensors);
        if let Naming::Inside(prefix) = naming {
            tensors.retain(|name, _| {
                name.starts_with(prefix) || name == INNER_OUTPUT || name == "lm_head.weight"
            });
        }
        Ok(Self { tensors, naming })
    }

    /// Checks the tensors against a list of (tensor, shard).
    ///
    /// # Errors
    /// A tensor that is not in the shard that the list names.
    pub(crate) fn check_shards(&self, list: &BTreeMap<String, String>) -> Result<(), ModelError> {
        for (name, shard) in list {
            let is_dropped = match self.naming {
                Naming::Inside(prefix) => !name.starts_with(prefix),
                Naming::Plain | Naming::Gguf(_) => false,
            };
            let stored = self.tensors.get(name);
            if stored.is_none_or(|stored| *stored.file != **shard) && !is_dropped {
                let reason = match stored {
                    Some(stored) => format!("is in {}, not there", stored.file),
                    None => "is not in it".to_owned(),
                };
                return Err(ModelError::Safetensors {
                    file: shard.clone(),
                    reason: format!("tensor `{name}`, which the index puts there, {reason}"),
                });
            }
        }
        Ok(())
    }

    /// The place in the files of what a family calls `name`.
    fn file_name(&self, name: &str) -> FileName {
        match self.naming {
            Naming::Plain => FileName::whole(name),
            Naming::Gguf(file_name) => {
                let stacked = file_name(name);
                let separate = stacked.separate_expert();
                let is_there = |name: &FileName| self.tensors.contains_key(&name.name);
                separate.filter(is_there).unwrap_or(stacked)
            }
            Naming::Inside(prefix) => match name.strip_prefix("model.") {
                Some(rest) => FileName::whole(&format!("{prefix}{rest}")),
                None if self.tensors.contains_key(name) => FileName::whole(name),
                None => FileName::whole(&format!("language_model.{name}")),
            },
        }
    }

    /// The tensors of a GGUF model.
    pub(crate) fn from_gguf(file: &GgufFile) -> Self {
        let name: Arc<str> = "model.gguf".into();
        let stored = |(shard, entry): (&GgufShard, &TensorEntry)| {
            let stored = Stored {
                file: Arc::clone(&name),
                origin: Origin::Owner(Arc::clone(&shard.owner)),
                entry: entry.clone(),
                used: Cell::new(false),
            };
            (entry.name.clone(), stored)
        };
        let shards = file.shards().iter();
        let tensors = shards.flat_map(|shard| shard.tensors.iter().map(move |t| (shard, t)));
        Self {
            tensors: tensors.map(stored).collect(),
            naming: Naming::Gguf(file.naming()),
        }
    }

    /// The tensors that `config` implies, random.
    pub(crate) fn from_dummy(dummy: Dummy, config: &ModelConfig) -> Self {
        let file: Arc<str> = "random weights".into();
        let stored = |spec: TensorSpec| {
            let tensor = dummy.tensor(config, &spec);
            let stored = Stored {
                file: Arc::clone(&file),
                entry: TensorEntry {
                    name: spec.name.clone(),
                    dtype: Dummy::dtype(config).name().to_owned(),
                    range: 0..tensor.num_bytes(),
                    shape: spec.shape,
                },
                origin: Origin::Dummy(tensor),
                used: Cell::new(false),
            };
            (spec.name, stored)
        };
        Self {
            tensors: config.tensors().into_iter().map(stored).collect(),
            naming: Naming::Plain,
        }
    }

    /// Each tensor's dtype as the file names it, and its number of elements.
    pub fn summary(&self) -> impl Iterator<Item = (&str, u64)> {
        self.tensors.values().map(|stored| {
            let entry = &stored.entry;
            let num_elements = entry.shape.iter().map(|&d| d as u64).product();
            (entry.dtype.as_str(), num_elements)
        })
    }

    /// Whether there is a tensor `name`.
    pub fn contains(&self, name: &str) -> bool {
        self.tensors.contains_key(&self.file_name(name).name)
    }

    /// Number of tensors.
    pub fn num_tensors(&self) -> usize {
        self.tensors.len()
    }

    /// Bytes of all tensors.
    pub fn num_bytes(&self) -> usize {
        self.tensors.values().map(|t| t.entry.range.len()).sum()
    }

    /// Checks that there is a tensor `name` of `shape`, without a look at its bytes.
    ///
    /// # Errors
    /// Missing, or of another shape.
    pub(crate) fn check(&self, name: &str, shape: &[usize]) -> Result<(), ModelError> {
        self.find(name, shape).map(drop)
    }

    /// Where tensor `name` is, which must have `shape`: a tensor of the files, or that part of it.
    fn find(&self, name: &str, shape: &[usize]) -> Result<(&Stored, Option<usize>), ModelError> {
        let FileName { name, index } = self.file_name(name);
        let Some(stored) = self.tensors.get(&name) else {
            return Err(ModelError::MissingTensor { name });
        };
        let found = match (index, &stored.entry.shape[..]) {
            (None, whole) => Some(whole),
            (Some(index), [num_parts, part @ ..]) if index < *num_parts => Some(part),
            (Some(_), _) => None,
        };
        if found != Some(shape) {
            return Err(ModelError::TensorShape {
                name,
                expected: shape.to_vec(),
                found: stored.entry.shape.clone(),
            });
        }
        Ok((stored, index))
    }

    /// A view of tensor `name`, which must have `shape`.
    ///
    /// # Errors
    /// Missing, of another shape, or of a dtype without a kernel.
    pub fn view(&self, name: &str, shape: &[usize]) -> Result<WeightView, ModelError> {
        let (stored, index) = self.find(name, shape)?;
        let entry = &stored.entry;
        let name = &entry.name;
        let bad_dtype = || ModelError::TensorDtype {
            name: name.to_owned(),
            dtype: entry.dtype.clone(),
        };
        let dtype = WeightDtype::from_name(&entry.dtype).ok_or_else(bad_dtype)?;
        stored.used.set(true);
        let no_memory = || ModelError::NoMemory {
            name: name.to_owned(),
            num_bytes: entry.range.len(),
        };
        let owner = stored.origin.owner().ok_or_else(no_memory)?;
        let mut range = entry.range.clone();
        if let Some(index) = index {
            // The parts lie one after the other, all of one length.
            let len = range.len() / entry.shape[0];
            range = range.start + index * len..range.start + (index + 1) * len;
        }
        WeightView::new(owner, range, dtype, shape.to_vec()).ok_or_else(bad_dtype)
    }

    /// A tensor of one of the first `num_layers` layers that no `view` has asked for: a bias, norm
    /// or scale that would change the layer's arithmetic. Tables that old checkpoints hold beside
    /// the weights are none.
    pub fn unexpected(&self, num_layers: usize) -> Option<&str> {
        let prefix = match self.naming {
            Naming::Plain => "model.",
            Naming::Inside(prefix) => prefix,
            // Their names are checked with their metadata.
            Naming::Gguf(_) => return None,
        };
        let is_of_layer = |name: &&str| {
            let rest = name.strip_prefix(prefix);
            let rest = rest.and_then(|rest| rest.strip_prefix("layers."));
            let index = rest.and_then(|rest| rest.split('.').next()?.parse::<usize>().ok());
            index.is_some_and(|index| index < num_layers) && !name.ends_with(".rotary_emb.inv_freq")
        };
        self.unused().into_iter().find(is_of_layer)
    }

    /// Names of the tensors that no `view` has asked for.
    pub fn unused(&self) -> Vec<&str> {
        let unused = self.tensors.iter().filter(|(_, stored)| !stored.used.get());
        unused.map(|(name, _)| name.as_str()).collect()
    }
}
