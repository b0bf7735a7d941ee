//! What a model's name stands for.
//!
//! Invariant: resolving a name reads no file; opening the result does.

use std::path::{Path, PathBuf};

use crate::embedded::EmbeddedModel;
use crate::{ModelError, ModelFiles};

/// Where a model's files are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ModelSource {
    /// Part of the binary.
    Embedded(EmbeddedModel),
    /// A folder with `config.json` and safetensors weights.
    Directory(PathBuf),
    /// One GGUF file.
    Gguf(PathBuf),
}

impl ModelSource {
    /// What `name` stands for: an embedded model, else a directory or a `.gguf` file. (A directory
    /// that is called like an embedded model is reached as `./spark`.)
    ///
    /// # Errors
    /// [`ModelError::UnknownModel`].
    pub fn resolve(name: &str) -> Result<Self, ModelError> {
        if let Some(model) = EmbeddedModel::ALL.into_iter().find(|m| m.name() == name) {
            return Ok(Self::Embedded(model));
        }
        let path = Path::new(name);
        if path.is_dir() {
            return Ok(Self::Directory(path.to_owned()));
        }
        let is_gguf = path
            .extension()
            .is_some_and(|extension| extension.eq_ignore_ascii_case("gguf"));
        if is_gguf && path.is_file() {
            return Ok(Self::Gguf(path.to_owned()));
        }
        let reason = if path.exists() {
            "it is a file; give a .gguf file, or the directory that holds config.json and the \
             safetensors weights"
        } else {
            "it is neither an embedded model (spark, spark-mini) nor a directory nor a .gguf file"
        };
        Err(ModelError::UnknownModel {
            name: name.to_owned(),
            reason: reason.to_owned(),
        })
    }

    /// The name a server shows where none is given: the embedded model's, or the path as it was
    /// given.
    pub fn name(&self) -> String {
        match self {
            Self::Embedded(model) => model.name().to_owned(),
            Self::Directory(path) | Self::Gguf(path) => path.display().to_string(),
        }
    }

    /// Reads the small files and maps the weights.
    ///
    /// # Errors
    /// A file that is missing, unreadable or absurdly large.
    pub fn open(&self) -> Result<ModelFiles, ModelError> {
        match self {
            Self::Embedded(model) => Ok(ModelFiles::open_embedded(*model)),
            Self::Directory(path) => ModelFiles::open_directory(path),
            Self::Gguf(path) => ModelFiles::open_gguf(path),
        }
    }
}
