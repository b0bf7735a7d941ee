//! What a model's name stands for.
//!
//! Invariant: resolving a name reads no file; opening the result does.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use crate::dummy::Dummy;
use crate::embedded::EmbeddedModel;
use crate::{ModelError, ModelFiles, Shape};

/// Which format weights are read in: `--load-format`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LoadFormat {
    /// Whichever the name stands for.
    #[default]
    Auto,
    /// Safetensors, in a directory.
    Safetensors,
    /// One GGUF file.
    Gguf,
    /// None: seeded random weights of the shape that a `config.json` describes.
    Dummy,
}

impl LoadFormat {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Auto, Self::Safetensors, Self::Gguf, Self::Dummy];

    /// As options name it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Safetensors => "safetensors",
            Self::Gguf => "gguf",
            Self::Dummy => "dummy",
        }
    }
}

impl FromStr for LoadFormat {
    type Err = ModelError;

    fn from_str(name: &str) -> Result<Self, ModelError> {
        let found = Self::ALL.into_iter().find(|format| format.name() == name);
        found.ok_or_else(|| ModelError::Option {
            option: "load_format",
            reason: format!(
                "`{name}` is not supported; there are {}",
                Self::ALL.map(Self::name).join(", ")
            ),
        })
    }
}

/// Where a model's files are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ModelSource {
    /// Part of the binary.
    Embedded(EmbeddedModel),
    /// A folder with `config.json` and safetensors weights.
    Directory(PathBuf),
    /// One GGUF file.
    Gguf(PathBuf),
    /// A config, and random weights from a seed.
    Dummy(ConfigSource, u64),
}

/// Where the config of a model without weights is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConfigSource {
    /// A well-known one, part of the binary.
    Shape(Shape),
    /// An embedded model's.
    Embedded(EmbeddedModel),
    /// A folder with `config.json`, and perhaps a tokenizer.
    Directory(PathBuf),
    /// The `config.json` itself, under any name.
    File(PathBuf),
}

impl ModelSource {
    /// What `name` stands for: an embedded model, else a directory or a `.gguf` file. (A directory
    /// that is called like an embedded model is reached as `./spark`.)
    ///
    /// # Errors
    /// [`ModelError::UnknownModel`].
    pub fn resolve(name: &str) -> Result<Self, ModelError> {
        if let Some(model) = embedded(name) {
            return Ok(Self::Embedded(model));
        }
        let path = Path::new(name);
        if path.is_dir() {
            return Ok(Self::Directory(path.to_owned()));
        }
        if has_extension(path, "gguf") && path.is_file() {
            return Ok(Self::Gguf(path.to_owned()));
        }
        let reason = if path.exists() {
            "it is a file; give a .gguf file, or the directory that holds config.json and the \
             safetensors weights"
        } else if Shape::find(name).is_some() {
            "it is a known shape, without weights; --load-format dummy fills it with random ones"
        } else {
            "it is neither an embedded model (spark, spark-mini) nor a directory nor a .gguf file, \
             nor has it the form ORG/NAME of a model on a hub"
        };
        Err(unknown(name, reason))
    }

    /// What `name` stands for where weights are read in `format`. `seed` is that of dummy weights.
    ///
    /// # Errors
    /// [`ModelError::UnknownModel`], also for weights of another format.
    pub fn resolve_as(name: &str, format: LoadFormat, seed: u64) -> Result<Self, ModelError> {
        if format == LoadFormat::Dummy {
            return Ok(Self::Dummy(ConfigSource::resolve(name)?, seed));
        }
        let source = Self::resolve(name)?;
        let found = match source {
            Self::Gguf(_) => LoadFormat::Gguf,
            _ => LoadFormat::Safetensors,
        };
        if format != LoadFormat::Auto && format != found {
            let (found, format) = (found.name(), format.name());
            let reason =
                format!("its weights are {found}, which --load-format {format} does not read");
            return Err(unknown(name, &reason));
        }
        Ok(source)
    }

    /// The name a server shows where none is given: the embedded model's, or the path as it was
    /// given.
    pub fn name(&self) -> String {
        match self {
            Self::Embedded(model) | Self::Dummy(ConfigSource::Embedded(model), _) => {
                model.name().to_owned()
            }
            Self::Dummy(ConfigSource::Shape(shape), _) => shape.name().to_owned(),
            Self::Directory(path)
            | Self::Gguf(path)
            | Self::Dummy(ConfigSource::Directory(path) | ConfigSource::File(path), _) => {
                path.display().to_string()
            }
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
            Self::Dummy(config, seed) => {
                let dummy = Dummy { seed: *seed };
                Ok(match config {
                    ConfigSource::Shape(shape) => ModelFiles::of_config(shape.config_json().into()),
                    ConfigSource::Embedded(model) => ModelFiles::open_embedded(*model),
                    ConfigSource::Directory(path) => ModelFiles::open_without_weights(path)?,
                    ConfigSource::File(path) => ModelFiles::open_config(path)?,
                }
                .with_dummy(dummy))
            }
        }
    }
}

impl ConfigSource {
    /// What `name` stands for: an embedded model, a directory with a `config.json`, such a file, or
    /// a known shape.
    fn resolve(name: &str) -> Result<Self, ModelError> {
        if let Some(model) = embedded(name) {
            return Ok(Self::Embedded(model));
        }
        let path = Path::new(name);
        if path.join("config.json").is_file() {
            return Ok(Self::Directory(path.to_owned()));
        }
        if has_extension(path, "json") && path.is_file() {
            return Ok(Self::File(path.to_owned()));
        }
        if let Some(shape) = Shape::find(name) {
            return Ok(Self::Shape(shape));
        }
        let reason = format!(
            "dummy weights need a directory with a config.json, such a file, an embedded model, or \
             one of {}",
            Shape::ALL.map(Shape::name).join(", ")
        );
        Err(unknown(name, &reason))
    }
}

fn embedded(name: &str) -> Option<EmbeddedModel> {
    EmbeddedModel::ALL.into_iter().find(|m| m.name() == name)
}

fn has_extension(path: &Path, expected: &str) -> bool {
    let extension = path.extension();
    extension.is_some_and(|extension| extension.eq_ignore_ascii_case(expected))
}

fn unknown(name: &str, reason: &str) -> ModelError {
    ModelError::UnknownModel {
        name: name.to_owned(),
        reason: reason.to_owned(),
    }
}
