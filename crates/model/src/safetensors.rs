//! The header of a safetensors file: which tensor lies where.
//!
//! Parsed here and not by a library, so that every refusal names the tensor and no header, however
//! damaged, can overflow or panic. Format: an 8-byte little-endian header length, a JSON object,
//! the data.
//!
//! Invariant: the tensors of a header that is accepted lie inside the file, do not overlap, leave
//! no byte unclaimed, and are exactly as long as their shape and dtype say.

use std::fmt;
use std::ops::Range;

use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};

/// Largest header that is read, as in the reference implementation.
const MAX_HEADER_BYTES: u64 = 100_000_000;

/// One tensor of a file.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct TensorEntry {
    /// Its name.
    pub(crate) name: String,
    /// Its number format, as the file names it.
    pub(crate) dtype: String,
    /// Outermost dimension first.
    pub(crate) shape: Vec<usize>,
    /// Its bytes in the file, counted from the file's start.
    pub(crate) range: Range<usize>,
}

/// Bits an element of every dtype of the format; an unknown one is refused.
fn dtype_bits(name: &str) -> Option<usize> {
    Some(match name {
        "F4" => 4,
        "F6_E2M3" | "F6_E3M2" => 6,
        "BOOL" | "U8" | "I8" | "F8_E5M2" | "F8_E4M3" | "F8_E8M0" | "F8_E4M3FNUZ"
        | "F8_E5M2FNUZ" => 8,
        "I16" | "U16" | "F16" | "BF16" => 16,
        "I32" | "U32" | "F32" => 32,
        "I64" | "U64" | "F64" | "C64" => 64,
        _ => return None,
    })
}

/// A tensor as the header writes it.
#[derive(Deserialize)]
struct RawEntry {
    dtype: String,
    shape: Vec<u64>,
    data_offsets: (u64, u64),
}

/// All tensors in the header's order, duplicates included, `__metadata__` left out.
struct RawHeader(Vec<(String, RawEntry)>);

impl<'de> Deserialize<'de> for RawHeader {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct HeaderVisitor;
        impl<'de> Visitor<'de> for HeaderVisitor {
            type Value = RawHeader;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of tensors")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<RawHeader, A::Error> {
                let mut entries = Vec::new();
                while let Some(name) = map.next_key::<String>()? {
                    if name == "__metadata__" {
                        map.next_value::<IgnoredAny>()?;
                    } else {
                        entries.push((name, map.next_value()?));
                    }
                }
                Ok(RawHeader(entries))
            }
        }
        deserializer.deserialize_map(HeaderVisitor)
    }
}

/// Parses and checks the header of `file`; entries come in the order of their offsets.
///
/// # Errors
/// What is wrong, as a sentence without a full stop.
pub(crate) fn parse_header(file: &[u8]) -> Result<Vec<TensorEntry>, String> {
    let (length, rest) = file
        .split_first_chunk::<8>()
        .ok_or_else(|| format!("it has only {} bytes", file.len()))?;
    let header_len = u64::from_le_bytes(*length);
    if header_len > MAX_HEADER_BYTES {
        return Err(format!(
            "its header claims {header_len} bytes, more than {MAX_HEADER_BYTES}"
        ));
    }
    let header_len = header_len as usize;
    let header = rest.get(..header_len).ok_or_else(|| {
        format!(
            "its header claims {header_len} bytes, but only {} follow",
            rest.len()
        )
    })?;
    let header: RawHeader =
        serde_json::from_slice(header).map_err(|e| format!("its header: {e}"))?;
    let data_start = 8 + header_len;
    let mut entries = Vec::with_capacity(header.0.len());
    for (name, raw) in header.0 {
        entries.push(check_entry(name, raw, data_start, file.len())?);
    }
    check_cover(&mut entries, data_start, file.len())?;
    Ok(entries)
}

/// One tensor: known dtype, inside the file, as long as its shape says.
fn check_entry(
    name: String,
    raw: RawEntry,
    data_start: usize,
    file_len: usize,
) -> Result<TensorEntry, String> {
    let data_len = (file_len - data_start) as u64;
    let (start, end) = raw.data_offsets;
    if start > end || end > data_len {
        return Err(format!(
            "tensor `{name}` claims bytes {start}..{end} of {data_len} (is the file truncated?)"
        ));
    }
    let bits = dtype_bits(&raw.dtype)
        .ok_or_else(|| format!("tensor `{name}` has the unknown dtype {:?}", raw.dtype))?;
    let shape: Vec<usize> = raw.shape.iter().map(|&d| d as usize).collect();
    let num_bits = shape.iter().try_fold(bits, |n, &d| n.checked_mul(d));
    let num_bytes = (end - start) as usize;
    if num_bits.is_none_or(|bits| Some(bits) != num_bytes.checked_mul(8)) {
        return Err(format!(
            "tensor `{name}` has shape {shape:?} and dtype {}, but {num_bytes} bytes",
            raw.dtype
        ));
    }
    Ok(TensorEntry {
        name,
        dtype: raw.dtype,
        shape,
        range: data_start + start as usize..data_start + end as usize,
    })
}

/// Sorts by offset; no overlap, no hole, no name twice.
fn check_cover(
    entries: &mut [TensorEntry],
    data_start: usize,
    file_len: usize,
) -> Result<(), String> {
    entries.sort_by(|a, b| a.name.cmp(&b.name));
    if let Some(pair) = entries.windows(2).find(|pair| pair[0].name == pair[1].name) {
        return Err(format!("tensor `{}` is there twice", pair[0].name));
    }
    entries.sort_by_key(|entry| (entry.range.start, entry.range.end));
    let mut position = data_start;
    for entry in entries.iter() {
        if entry.range.start < position {
            return Err(format!(
                "tensor `{}` overlaps the one before it",
                entry.name
            ));
        }
        if entry.range.start > position {
            return Err(format!(
                "bytes before tensor `{}` belong to no tensor",
                entry.name
            ));
        }
        position = entry.range.end;
    }
    if position != file_len {
        return Err(format!(
            "its last {} bytes belong to no tensor",
            file_len - position
        ));
    }
    Ok(())
}
