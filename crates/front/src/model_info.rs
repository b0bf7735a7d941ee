//! What the server serves, known before any engine runs: names, limits, vocabulary size.
//!
//! Invariant: constant for the life of the process; an engine that contradicts it is not used.

/// The served model as `/v1/models` shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServedModel {
    /// Names that requests may use; the first one is reported. Never empty.
    pub names: Vec<String>,
    /// Where it comes from: a directory, or the name of an embedded model.
    pub root: String,
    /// Start of this server, Unix seconds.
    pub created: u64,
    /// Tokens in a sequence at most, prompt and output together.
    pub max_model_len: u32,
    /// Number of token ids; every id in a request must be below it.
    pub vocab_size: u32,
}

impl ServedModel {
    /// The name that answers carry.
    pub fn name(&self) -> &str {
        self.names.first().map_or("", String::as_str)
    }

    /// Whether a request may call the model so.
    pub fn is_called(&self, name: &str) -> bool {
        self.names.iter().any(|known| known == name)
    }
}
