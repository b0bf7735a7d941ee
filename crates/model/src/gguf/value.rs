//! Metadata values.
//!
//! Invariant: an array lies wholly inside the file, whatever it claims; only its place is kept.

use std::fmt;
use std::ops::Range;

use super::reader::Reader;

/// Elements of an array at most; the largest vocabularies and merge lists have half a million.
const MAX_ARRAY_LEN: u64 = 1 << 24;
/// Longest single string, in bytes; chat templates reach tens of kilobytes.
const MAX_STRING_BYTES: usize = 16 << 20;

/// A metadata value; the widths of numbers are dropped.
#[derive(Clone, Debug, PartialEq)]
pub enum GgufValue {
    /// Unsigned of any width.
    Unsigned(u64),
    /// Signed of any width.
    Signed(i64),
    /// Single or double.
    Float(f64),
    /// True or false.
    Bool(bool),
    /// UTF-8.
    String(String),
    /// A list of one type.
    Array(GgufArray),
}

impl fmt::Display for GgufValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unsigned(value) => value.fmt(f),
            Self::Signed(value) => value.fmt(f),
            Self::Float(value) => value.fmt(f),
            Self::Bool(value) => value.fmt(f),
            Self::String(value) => write!(f, "{:?}", value.chars().take(80).collect::<String>()),
            Self::Array(array) => write!(f, "a list of {} values", array.len),
        }
    }
}

/// Where a list lies in the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GgufArray {
    item: ItemType,
    len: usize,
    range: Range<usize>,
}

/// Types of values, by their numbers in files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ItemType {
    U8,
    I8,
    U16,
    I16,
    U32,
    I32,
    F32,
    Bool,
    String,
    Array,
    U64,
    I64,
    F64,
}

impl ItemType {
    fn parse(number: u32, what: &str) -> Result<Self, String> {
        Ok(match number {
            0 => Self::U8,
            1 => Self::I8,
            2 => Self::U16,
            3 => Self::I16,
            4 => Self::U32,
            5 => Self::I32,
            6 => Self::F32,
            7 => Self::Bool,
            8 => Self::String,
            9 => Self::Array,
            10 => Self::U64,
            11 => Self::I64,
            12 => Self::F64,
            _ => return Err(format!("{what} has the unknown value type {number}")),
        })
    }

    /// Bytes of a value, where they are fixed.
    fn size(self) -> Option<u64> {
        match self {
            Self::U8 | Self::I8 | Self::Bool => Some(1),
            Self::U16 | Self::I16 => Some(2),
            Self::U32 | Self::I32 | Self::F32 => Some(4),
            Self::U64 | Self::I64 | Self::F64 => Some(8),
            Self::String | Self::Array => None,
        }
    }
}

/// Reads the type and value of field `key`.
pub(super) fn read(reader: &mut Reader<'_>, key: &str) -> Result<GgufValue, String> {
    let what = format!("metadata field `{key}`");
    let item = ItemType::parse(reader.u32(&what)?, &what)?;
    read_item(reader, item, &what)
}

fn read_item(reader: &mut Reader<'_>, item: ItemType, what: &str) -> Result<GgufValue, String> {
    Ok(match item {
        ItemType::U8 => GgufValue::Unsigned(u64::from(reader.array::<1>(what)?[0])),
        ItemType::I8 => GgufValue::Signed(i64::from(reader.array::<1>(what)?[0] as i8)),
        ItemType::U16 => GgufValue::Unsigned(u64::from(u16::from_le_bytes(reader.array(what)?))),
        ItemType::I16 => GgufValue::Signed(i64::from(i16::from_le_bytes(reader.array(what)?))),
        ItemType::U32 => GgufValue::Unsigned(u64::from(reader.u32(what)?)),
        ItemType::I32 => GgufValue::Signed(i64::from(i32::from_le_bytes(reader.array(what)?))),
        ItemType::U64 => GgufValue::Unsigned(reader.u64(what)?),
        ItemType::I64 => GgufValue::Signed(i64::from_le_bytes(reader.array(what)?)),
        ItemType::F32 => GgufValue::Float(f64::from(f32::from_le_bytes(reader.array(what)?))),
        ItemType::F64 => GgufValue::Float(f64::from_le_bytes(reader.array(what)?)),
        ItemType::Bool => match reader.array::<1>(what)?[0] {
            0 => GgufValue::Bool(false),
            1 => GgufValue::Bool(true),
            other => {
                return Err(format!(
                    "{what} is {other}, which is neither true nor false"
                ));
            }
        },
        ItemType::String => {
            let string = reader.string(what)?;
            if string.len() > MAX_STRING_BYTES {
                let len = string.len();
                return Err(format!(
                    "{what} has {len} bytes, more than {MAX_STRING_BYTES}"
                ));
            }
            GgufValue::String(string.to_owned())
        }
        ItemType::Array => GgufValue::Array(read_array(reader, what)?),
    })
}

/// Finds out where a list ends.
fn read_array(reader: &mut Reader<'_>, what: &str) -> Result<GgufArray, String> {
    let item = ItemType::parse(reader.u32(what)?, what)?;
    let len = reader.u64(what)?;
    if len > MAX_ARRAY_LEN {
        return Err(format!(
            "{what} claims {len} values, more than {MAX_ARRAY_LEN}"
        ));
    }
    let start = reader.position();
    match item.size() {
        Some(size) => {
            reader.bytes(len * size, what)?;
        }
        None if item == ItemType::Array => {
            return Err(format!("{what} is a list of lists, which is not supported"));
        }
        None => {
            for _ in 0..len {
                let string_len = reader.u64(what)?;
                reader.bytes(string_len, what)?;
            }
        }
    }
    Ok(GgufArray {
        item,
        len: len as usize,
        range: start..reader.position(),
    })
}

impl GgufArray {
    /// Number of values.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The values, which lie in `file`, as strings.
    pub(super) fn strings<'a>(&self, file: &'a [u8]) -> Result<Vec<&'a str>, String> {
        if self.item != ItemType::String {
            return Err(format!("is a list of {:?}, not of strings", self.item));
        }
        let mut reader = Reader::new(file.get(self.range.clone()).unwrap_or_default());
        let mut strings = Vec::with_capacity(self.len);
        for index in 0..self.len {
            let string = reader.string(&format!("[{index}]"))?;
            strings.push(string);
        }
        Ok(strings)
    }

    /// The values, which lie in `file`, as numbers.
    pub(super) fn numbers(&self, file: &[u8]) -> Result<Vec<f64>, String> {
        if self.item.size().is_none() {
            return Err(format!("is a list of {:?}, not of numbers", self.item));
        }
        let mut reader = Reader::new(file.get(self.range.clone()).unwrap_or_default());
        let mut numbers = Vec::with_capacity(self.len);
        for _ in 0..self.len {
            numbers.push(match read_item(&mut reader, self.item, "a value")? {
                GgufValue::Unsigned(value) => value as f64,
                GgufValue::Signed(value) => value as f64,
                GgufValue::Float(value) => value,
                other => return Err(format!("has the value {other}, not a number")),
            });
        }
        Ok(numbers)
    }

    /// The values, which lie in `file`, as truth values.
    pub(super) fn bools(&self, file: &[u8]) -> Result<Vec<bool>, String> {
        if self.item != ItemType::Bool {
            return Err(format!("is a list of {:?}, not of truth values", self.item));
        }
        let mut reader = Reader::new(file.get(self.range.clone()).unwrap_or_default());
        let mut bools = Vec::with_capacity(self.len);
        for _ in 0..self.len {
            match read_item(&mut reader, self.item, "a value")? {
                GgufValue::Bool(value) => bools.push(value),
                other => return Err(format!("has the value {other}, not true or false")),
            }
        }
        Ok(bools)
    }
}
