//! Models in several GGUF files, as `gguf-split` writes them: `NAME-00001-of-00003.gguf`.
//!
//! The first file has all metadata; each has its number, the number of files, and tensors of its
//! own. Each is checked by itself as a whole file would be, and then against the others.
//!
//! Invariant: a model that is joined has every file that the first one names, in order, and no
//! tensor twice.

use std::collections::BTreeSet;

use super::GgufFile;
use crate::ModelError;

/// Files of one model at most: the names' five digits would allow more, no model has them.
const MAX_NUM_SHARDS: u64 = 1024;

/// Digits of a file's number in its name.
const NUM_DIGITS: usize = 5;

/// The number of files that `name` says there are, and the names of all, `name`'s own among them;
/// `None` where it is no such name.
pub(crate) fn shard_names(name: &str) -> Option<Vec<String>> {
    let stem = name.strip_suffix(".gguf")?;
    let (stem, count) = stem.rsplit_once("-of-")?;
    let (stem, number) = stem.rsplit_once('-')?;
    let parse = |digits: &str| {
        let is_number = digits.len() == NUM_DIGITS && digits.bytes().all(|b| b.is_ascii_digit());
        is_number.then(|| digits.parse::<u64>().ok()).flatten()
    };
    let (number, count) = (parse(number)?, parse(count)?);
    let is_usable = (1..=MAX_NUM_SHARDS).contains(&count) && (1..=count).contains(&number);
    let of = |number| format!("{stem}-{number:05}-of-{count:05}.gguf");
    is_usable.then(|| (1..=count).map(of).collect())
}

impl GgufFile {
    /// How many files the model is in, as this one says; 1 where it says nothing.
    ///
    /// # Errors
    /// A number that is none.
    pub(crate) fn split_count(&self) -> Result<u64, ModelError> {
        let key = "split.count";
        let count = self.u64(key)?.unwrap_or(1).max(1);
        if count > MAX_NUM_SHARDS {
            let reason = format!("= {count}, more than {MAX_NUM_SHARDS}");
            return Err(self.field_error(key, &reason));
        }
        Ok(count)
    }

    /// This one, the first, together with all others of its model, in order.
    ///
    /// # Errors
    /// The file and field that do not fit.
    pub(crate) fn join(mut self, others: Vec<Self>) -> Result<Self, ModelError> {
        let count = self.split_count()?;
        let total = self.u64("split.tensors.count")?;
        for (number, file) in std::iter::once(&self).chain(&others).enumerate() {
            for (key, expected) in [
                ("split.no", Some(number as u64)),
                ("split.count", Some(count)),
                ("split.tensors.count", total),
            ] {
                let found = file.u64(key)?;
                if found != expected {
                    let show = |value: Option<u64>| {
                        value.map_or("missing".to_owned(), |value| value.to_string())
                    };
                    let reason = format!("is {}, and not {}", show(found), show(expected));
                    return Err(file.field_error(key, &reason));
                }
            }
        }
        let mut names: BTreeSet<String> = self.tensors().map(|t| t.name.clone()).collect();
        for file in others {
            for shard in file.shards {
                for tensor in &shard.tensors {
                    if !names.insert(tensor.name.clone()) {
                        return Err(ModelError::Gguf {
                            file: file.name,
                            reason: format!("tensor `{}` is in another file too", tensor.name),
                        });
                    }
                }
                self.shards.push(shard);
            }
        }
        if total.is_some_and(|total| total != names.len() as u64) {
            let reason = format!(
                "is {}, but the files have {}",
                total.unwrap_or(0),
                names.len()
            );
            return Err(self.field_error("split.tensors.count", &reason));
        }
        Ok(self)
    }
}
