//! Bytes to JSON values as Python's `json` reads them, with bounded memory.
//!
//! Of a key that is twice in an object the last value counts, in the first one's place, as vLLM
//! has it. A body with more values than a request can need is refused, those that do not count
//! included; depth is bounded by serde_json.
//!
//! Invariant: memory for a tree is at most [`MAX_NUM_VALUES`] nodes beside the text itself.

use std::cell::Cell;
use std::fmt;

use indexmap::IndexMap;
use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;
use serde_json::{Map, Number, Value};

/// Values in the trees of one field at most: messages, tools, template arguments.
pub(crate) const MAX_NUM_VALUES: usize = 200_000;

/// Fields of a body at most.
const MAX_NUM_FIELDS: usize = 1_000;

/// The fields of the body's object, each still text.
#[derive(Debug, Default)]
pub(crate) struct RawFields<'a>(pub(crate) IndexMap<String, &'a RawValue>);

impl<'de: 'a, 'a> Deserialize<'de> for RawFields<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct FieldsVisitor;
        impl<'de> Visitor<'de> for FieldsVisitor {
            type Value = IndexMap<String, &'de RawValue>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut fields = IndexMap::new();
                while let Some(key) = map.next_key::<String>()? {
                    if fields.len() == MAX_NUM_FIELDS && !fields.contains_key(&key) {
                        return Err(A::Error::custom("too many fields"));
                    }
                    fields.insert(key, map.next_value()?);
                }
                Ok(fields)
            }
        }
        deserializer.deserialize_map(FieldsVisitor).map(RawFields)
    }
}

/// Parses one field's text to a tree.
pub(crate) fn parse_value(text: &str) -> Result<Value, serde_json::Error> {
    let budget = Cell::new(MAX_NUM_VALUES);
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let value = Bounded(&budget).deserialize(&mut deserializer)?;
    deserializer.end()?;
    Ok(value)
}

/// Reads one value, taking from the budget that the whole tree shares.
#[derive(Clone, Copy)]
struct Bounded<'b>(&'b Cell<usize>);

impl<'de> DeserializeSeed<'de> for Bounded<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        match self.0.get().checked_sub(1) {
            Some(left) => self.0.set(left),
            None => {
                return Err(D::Error::custom(format_args!(
                    "more than {MAX_NUM_VALUES} values in one field"
                )));
            }
        }
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Bounded<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Value, E> {
        Number::from_f64(value)
            .map(Value::Number)
            .ok_or_else(|| E::custom("number out of range"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element_seed(self)? {
            items.push(item);
        }
        Ok(Value::Array(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        while let Some(key) = map.next_key::<String>()? {
            object.insert(key, map.next_value_seed(self)?);
        }
        Ok(Value::Object(object))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_depth_and_size() {
        let twice = r#""a":0,"#.repeat(MAX_NUM_VALUES);
        for text in [
            &format!(r#"{{{twice}"a":0}}"#),
            &format!("{}{}", "[".repeat(100_000), "]".repeat(100_000)),
            &format!("[{}0]", "0,".repeat(MAX_NUM_VALUES)),
            "1e999",
            r#""\ud800""#,
            "\"\u{1}\"",
            "NaN",
            "1 2",
        ] {
            assert!(parse_value(text).is_err(), "{text:.40}");
        }
    }

    #[test]
    fn the_last_of_equal_keys_counts_in_the_place_of_the_first() {
        let text = r#"{"a":1,"b":{"c":1,"c":[2]},"a":3,"d":4,"a":{"a":5}}"#;
        let expected = r#"{"a":{"a":5},"b":{"c":[2]},"d":4}"#;
        let value = parse_value(text).unwrap();
        assert_eq!(serde_json::to_string(&value).unwrap(), expected);
        let raw: RawFields<'_> = serde_json::from_str(text).unwrap();
        let fields: Vec<_> = raw.0.iter().map(|(key, raw)| (&**key, raw.get())).collect();
        assert_eq!(
            fields,
            [("a", r#"{"a":5}"#), ("b", r#"{"c":1,"c":[2]}"#), ("d", "4")]
        );
    }

    #[test]
    fn keeps_order_and_values() {
        let text = r#"{"z":[1,-2,2.5,null,true,"\ud83d\ude00"],"a":{}}"#;
        let value = parse_value(text).unwrap();
        assert_eq!(
            serde_json::to_string(&value).unwrap(),
            r#"{"z":[1,-2,2.5,null,true,"😀"],"a":{}}"#
        );
    }
}
