//! Real tokenizers of the test data, loaded once per suite.
//!
//! Invariant: absent data is said loudly by `shared_asset`, and is a failure in CI.

use hotspare_testkit::shared_asset;
use hotspare_text::TextModel;

/// A real tokenizer and the same file in the library that defines what it means.
pub(crate) struct Real {
    pub(crate) name: &'static str,
    pub(crate) model: TextModel,
    pub(crate) oracle: tokenizers::Tokenizer,
}

/// The tokenizers of the test data; none where it is absent.
pub(crate) fn real_tokenizers(suite: &str) -> Vec<Real> {
    [
        "stories260k",
        "tokenizers/minimind",
        "tokenizers/phi-3-mini",
        "tokenizers/qwen2.5",
    ]
    .into_iter()
    .filter_map(|name| {
        let folder = shared_asset(suite, name)?;
        let json = std::fs::read(folder.join("tokenizer.json")).expect("tokenizer.json");
        let config = std::fs::read(folder.join("tokenizer_config.json")).ok();
        Some(Real {
            name,
            model: TextModel::load(&json, config.as_deref(), None).expect(name),
            oracle: tokenizers::Tokenizer::from_bytes(&json).expect(name),
        })
    })
    .collect()
}
