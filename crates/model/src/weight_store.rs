//! All tensors of a model by name, over one file or many shards, checked on the way out.
//!
//! Invariant: a view handed out has the shape that was asked for and a dtype that kernels read.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::Arc;

use crate::ModelError;
use crate::config::ModelConfig;
use crate::dummy::{Dummy, DummyTensor};
use crate::gguf::{FileName, GgufFile};
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
    fn owner(&self) -> Arc<dyn WeightBytes> {
        match self {
            Self::Owner(owner) => Arc::clone(owner),
            Self::Dummy(tensor) => tensor.make(),
        }
    }
}

/// Where a tensor is.
struct Stored {
    origin: Origin,
    entry: TensorEntry,
    used: Cell<bool>,
}

/// The tensors of a model. Families ask by transformers' names; a GGUF file has names of its own,
/// which errors then use.
pub struct WeightStore {
    tensors: BTreeMap<String, Stored>,
    /// The place in the files of what a family calls so.
    file_name: fn(&str) -> FileName,
}

impl WeightStore {
    /// Reads the headers of `files` (name for messages, bytes).
    ///
    /// # Errors
    /// A damaged header, or a tensor that two files hold.
    pub fn new(files: Vec<(String, Arc<dyn WeightBytes>)>) -> Result<Self, ModelError> {
        let mut tensors = BTreeMap::new();
        for (file, owner) in files {
            let damaged = |reason| ModelError::Safetensors {
                file: file.clone(),
                reason,
            };
            for entry in parse_header(owner.bytes()).map_err(damaged)? {
                let name = entry.name.clone();
                let stored = Stored {
                    origin: Origin::Owner(Arc::clone(&owner)),
                    entry,
                    used: Cell::new(false),
                };
                if tensors.insert(name.clone(), stored).is_some() {
                    return Err(damaged(format!("tensor `{name}` is in another file too")));
                }
            }
        }
        Ok(Self {
            tensors,
            file_name: FileName::whole,
        })
    }

    /// The tensors of a GGUF file.
    pub(crate) fn from_gguf(file: &GgufFile) -> Self {
        let stored = |entry: &TensorEntry| {
            let stored = Stored {
                origin: Origin::Owner(Arc::clone(file.owner())),
                entry: entry.clone(),
                used: Cell::new(false),
            };
            (entry.name.clone(), stored)
        };
        Self {
            tensors: file.tensors().iter().map(stored).collect(),
            file_name: file.naming(),
        }
    }

    /// The tensors that `config` implies, random.
    pub(crate) fn from_dummy(dummy: Dummy, config: &ModelConfig) -> Self {
        let stored = |spec: TensorSpec| {
            let tensor = dummy.tensor(config, &spec);
            let stored = Stored {
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
            file_name: FileName::whole,
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
        self.tensors.contains_key(&(self.file_name)(name).name)
    }

    /// Number of tensors.
    pub fn num_tensors(&self) -> usize {
        self.tensors.len()
    }

    /// Bytes of all tensors.
    pub fn num_bytes(&self) -> usize {
        self.tensors.values().map(|t| t.entry.range.len()).sum()
    }

    /// A view of tensor `name`, which must have `shape`.
    ///
    /// # Errors
    /// Missing, of another shape, or of a dtype without a kernel.
    pub fn view(&self, name: &str, shape: &[usize]) -> Result<WeightView, ModelError> {
        let FileName { name, index } = (self.file_name)(name);
        let name = &name;
        let missing = || ModelError::MissingTensor {
            name: name.to_owned(),
        };
        let stored = self.tensors.get(name).ok_or_else(missing)?;
        let entry = &stored.entry;
        let found = match (index, &entry.shape[..]) {
            (None, whole) => Some(whole),
            (Some(index), [num_parts, part @ ..]) if index < *num_parts => Some(part),
            (Some(_), _) => None,
        };
        if found != Some(shape) {
            return Err(ModelError::TensorShape {
                name: name.to_owned(),
                expected: shape.to_vec(),
                found: entry.shape.clone(),
            });
        }
        let bad_dtype = || ModelError::TensorDtype {
            name: name.to_owned(),
            dtype: entry.dtype.clone(),
        };
        let dtype = WeightDtype::from_name(&entry.dtype).ok_or_else(bad_dtype)?;
        stored.used.set(true);
        let owner = stored.origin.owner();
        let mut range = entry.range.clone();
        if let Some(index) = index {
            // The parts lie one after the other, all of one length.
            let len = range.len() / entry.shape[0];
            range = range.start + index * len..range.start + (index + 1) * len;
        }
        WeightView::new(owner, range, dtype, shape.to_vec()).ok_or_else(bad_dtype)
    }

    /// Names of the tensors that no `view` has asked for.
    pub fn unused(&self) -> Vec<&str> {
        let unused = self.tensors.iter().filter(|(_, stored)| !stored.used.get());
        unused.map(|(name, _)| name.as_str()).collect()
    }
}
