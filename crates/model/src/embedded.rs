//! The models that are part of the binary, so that it serves without a file, a network or an
//! argument.
//!
//! Invariant: an embedded model is read by the same code as a directory, and hashes as a directory
//! with the same files does.

/// A model inside the binary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EmbeddedModel {
    /// The default: 3 to 4 million parameters.
    Spark,
    /// The smallest: for tests, and for the last rung of the degraded ladder.
    SparkMini,
}

/// Bytes at an address that every dtype and vector load is happy with.
#[repr(C, align(64))]
struct Aligned<B: ?Sized>(B);

/// The files of an embedded model.
pub(crate) struct EmbeddedFiles {
    pub(crate) config_json: &'static [u8],
    pub(crate) generation_config_json: &'static [u8],
    pub(crate) tokenizer_json: &'static [u8],
    pub(crate) tokenizer_config_json: &'static [u8],
    pub(crate) weights: &'static [u8],
}

macro_rules! embed {
    ($directory:literal) => {{
        macro_rules! file {
            ($name:literal) => {
                include_bytes!(concat!("../../../models/", $directory, "/", $name))
            };
        }
        static WEIGHTS: &Aligned<[u8]> = &Aligned(*file!("model.safetensors"));
        EmbeddedFiles {
            config_json: file!("config.json"),
            generation_config_json: file!("generation_config.json"),
            tokenizer_json: file!("tokenizer.json"),
            tokenizer_config_json: file!("tokenizer_config.json"),
            weights: &WEIGHTS.0,
        }
    }};
}

impl EmbeddedModel {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Spark, Self::SparkMini];

    /// The name that users give.
    pub fn name(self) -> &'static str {
        match self {
            Self::Spark => "spark",
            Self::SparkMini => "spark-mini",
        }
    }

    /// Its files.
    pub(crate) fn files(self) -> EmbeddedFiles {
        match self {
            Self::Spark => embed!("spark"),
            Self::SparkMini => embed!("spark-mini"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::ops::StepLimits;
    use crate::testing::NaiveOps;
    use crate::weights::WeightDtype;
    use crate::{LoadOptions, ModelRunner, ModelSource};

    #[test]
    fn embedded_models_load_and_equal_their_directories() {
        for model in EmbeddedModel::ALL {
            let source = ModelSource::resolve(model.name()).unwrap();
            assert_eq!(source, ModelSource::Embedded(model));
            let files = source.open().unwrap();
            let config = files.config().unwrap();
            assert!(config.max_context_len() >= 2048);
            assert!(
                config.unknown_fields.is_empty(),
                "{:?}",
                config.unknown_fields
            );
            assert!(!files.generation_config().unwrap().eos_token_ids.is_empty());
            let options = LoadOptions {
                limits: StepLimits {
                    max_num_batched_tokens: 64,
                    max_num_seqs: 1,
                    max_model_len: 64,
                },
                num_blocks: 4,
                block_size: 16,
                kv_dtype: WeightDtype::F32,
                quantization: None,
            };
            ModelRunner::load(NaiveOps::new(1), &files, &options, &mut |_| {}).unwrap();
            let directory = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
                .join("../../models")
                .join(model.name());
            let directory = ModelSource::resolve(directory.to_str().unwrap()).unwrap();
            let directory_hash = directory.open().unwrap().content_hash(None, &mut |_, _| {});
            assert_eq!(files.content_hash(None, &mut |_, _| {}), directory_hash);
        }
    }

    #[test]
    fn weights_are_aligned() {
        for model in EmbeddedModel::ALL {
            assert!(model.files().weights.as_ptr().addr().is_multiple_of(64));
        }
    }
}
