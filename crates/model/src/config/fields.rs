//! Typed access to the fields of a JSON object, with errors that name the field.
//!
//! Invariant: null is absent; a number out of its range is an error, never clamped.

use std::ops::RangeInclusive;

use hotspare_batch::TokenId;
use serde_json::{Map, Value};

use crate::ModelError;

/// Parses `json` as an object.
pub(crate) fn parse_object(
    file: &'static str,
    json: &[u8],
) -> Result<Map<String, Value>, ModelError> {
    let json_error = |reason| ModelError::Json {
        file: file.to_owned(),
        reason,
    };
    match serde_json::from_slice(json) {
        Ok(Value::Object(object)) => Ok(object),
        Ok(_) => Err(json_error("it is not an object".to_owned())),
        Err(e) => Err(json_error(e.to_string())),
    }
}

/// The fields of one object, which may lie inside another.
pub(crate) struct Fields<'a> {
    file: &'static str,
    prefix: String,
    object: &'a Map<String, Value>,
}

impl<'a> Fields<'a> {
    /// The fields of the outermost object of `file`.
    pub(crate) fn new(file: &'static str, object: &'a Map<String, Value>) -> Self {
        Self {
            file,
            prefix: String::new(),
            object,
        }
    }

    /// The fields of the object in field `name`.
    pub(crate) fn nested(&self, name: &str) -> Result<Option<Fields<'a>>, ModelError> {
        match self.get(name) {
            None => Ok(None),
            Some(Value::Object(object)) => Ok(Some(Fields {
                file: self.file,
                prefix: format!("{}{name}.", self.prefix),
                object,
            })),
            Some(_) => Err(self.error(name, "is not an object")),
        }
    }

    /// The fields of `object`, which stands for the object in field `name` of these.
    pub(crate) fn inside<'b>(&self, name: &str, object: &'b Map<String, Value>) -> Fields<'b> {
        Fields {
            file: self.file,
            prefix: format!("{}{name}.", self.prefix),
            object,
        }
    }

    /// Names of all fields that are not null.
    pub(crate) fn names(&self) -> impl Iterator<Item = &'a str> {
        let present = self.object.iter().filter(|(_, value)| !value.is_null());
        present.map(|(name, _)| name.as_str())
    }

    /// Whether there is a field `name`, be it null.
    pub(crate) fn has_key(&self, name: &str) -> bool {
        self.object.contains_key(name)
    }

    /// The value of field `name`, unless it is null.
    pub(crate) fn get(&self, name: &str) -> Option<&'a Value> {
        self.object.get(name).filter(|value| !value.is_null())
    }

    /// An error about field `name`.
    pub(crate) fn error(&self, name: &str, reason: &str) -> ModelError {
        ModelError::Field {
            file: self.file,
            field: format!("{}{name}", self.prefix),
            reason: reason.to_owned(),
        }
    }

    /// Refuses field `name`, whose arithmetic is not implemented.
    pub(crate) fn unsupported(&self, name: &str) -> ModelError {
        let value = self.get(name).map_or_else(String::new, Value::to_string);
        ModelError::UnsupportedField {
            field: format!("{}{name}", self.prefix),
            value,
        }
    }

    /// A whole number in `range`.
    pub(crate) fn usize(
        &self,
        name: &str,
        range: RangeInclusive<usize>,
    ) -> Result<Option<usize>, ModelError> {
        let Some(value) = self.get(name) else {
            return Ok(None);
        };
        let number = value.as_u64().and_then(|n| usize::try_from(n).ok());
        match number.filter(|n| range.contains(n)) {
            Some(n) => Ok(Some(n)),
            None => {
                let (low, high) = (range.start(), range.end());
                let reason = format!("= {value} is not a whole number from {low} to {high}");
                Err(self.error(name, &reason))
            }
        }
    }

    /// As [`Fields::usize`], and it must be there.
    pub(crate) fn required_usize(
        &self,
        name: &str,
        range: RangeInclusive<usize>,
    ) -> Result<usize, ModelError> {
        let value = self.usize(name, range)?;
        value.ok_or_else(|| self.error(name, "is missing"))
    }

    /// A number.
    pub(crate) fn f64(&self, name: &str) -> Result<Option<f64>, ModelError> {
        let Some(value) = self.get(name) else {
            return Ok(None);
        };
        let number = value.as_f64().filter(|n| n.is_finite());
        number
            .map(Some)
            .ok_or_else(|| self.error(name, &format!("= {value} is not a number")))
    }

    /// A number above 0 that an `f32` can hold.
    pub(crate) fn positive_f64(&self, name: &str) -> Result<Option<f64>, ModelError> {
        let number = self.f64(name)?;
        match number.filter(|&n| n as f32 <= 0.0 || !(n as f32).is_finite()) {
            Some(n) => Err(self.error(name, &format!("= {n} is not a positive number"))),
            None => Ok(number),
        }
    }

    /// `len` numbers above 0.
    pub(crate) fn positive_list(&self, name: &str, len: usize) -> Result<Vec<f64>, ModelError> {
        let Some(Value::Array(values)) = self.get(name) else {
            return Err(self.error(name, "is missing, or not a list of numbers"));
        };
        if values.len() != len {
            let reason = format!("has {} numbers, not {len}", values.len());
            return Err(self.error(name, &reason));
        }
        let parse = |value: &Value| {
            let number = value
                .as_f64()
                .filter(|&n| n > 0.0 && (n as f32).is_finite());
            number.ok_or_else(|| self.error(name, &format!("has {value}, not a positive number")))
        };
        values.iter().map(parse).collect()
    }

    /// True or false.
    pub(crate) fn bool(&self, name: &str) -> Result<Option<bool>, ModelError> {
        match self.get(name) {
            None => Ok(None),
            Some(Value::Bool(value)) => Ok(Some(*value)),
            Some(other) => Err(self.error(name, &format!("= {other} is not true or false"))),
        }
    }

    /// A string.
    pub(crate) fn string(&self, name: &str) -> Result<Option<&'a str>, ModelError> {
        match self.get(name) {
            None => Ok(None),
            Some(Value::String(value)) => Ok(Some(value)),
            Some(other) => Err(self.error(name, &format!("= {other} is not a string"))),
        }
    }

    /// A token id, a list of them, or none; each below `vocab_size`.
    pub(crate) fn token_ids(
        &self,
        name: &str,
        vocab_size: usize,
    ) -> Result<Vec<TokenId>, ModelError> {
        let values = match self.get(name) {
            None => &[][..],
            Some(Value::Array(values)) => values,
            Some(value) => std::slice::from_ref(value),
        };
        let parse = |value: &Value| {
            let id = value.as_u64().filter(|&id| id < vocab_size as u64);
            id.and_then(|id| TokenId::try_from(id).ok())
                .ok_or_else(|| self.error(name, &format!("= {value} is not a token id")))
        };
        values.iter().map(parse).collect()
    }
}
