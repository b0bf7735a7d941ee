//! The tensor table: names, shapes, types and places.
//!
//! Files list the innermost dimension first; entries here have it last, as everywhere else.
//!
//! Invariant: every entry's range lies inside the file, is as long as its shape and type say, and
//! shares no byte with another's.

use std::collections::BTreeSet;

use super::reader::Reader;
use crate::safetensors::TensorEntry;
use crate::weights::WeightDtype;

/// Dimensions of a tensor at most, as in ggml.
const MAX_DIMENSIONS: u32 = 4;

/// A tensor before the start of the data is known.
struct Placed {
    entry: TensorEntry,
    offset: u64,
}

/// Reads `num_tensors` entries; the data starts at the next multiple of `alignment`.
pub(super) fn read(
    reader: &mut Reader<'_>,
    num_tensors: u64,
    alignment: u64,
    file_len: usize,
) -> Result<Vec<TensorEntry>, String> {
    let mut placed = Vec::new();
    let mut names = BTreeSet::new();
    for index in 0..num_tensors {
        let tensor = read_entry(reader, index, alignment)?;
        if !names.insert(tensor.entry.name.clone()) {
            return Err(format!("tensor `{}` is there twice", tensor.entry.name));
        }
        placed.push(tensor);
    }
    let header_len = reader.position() as u64;
    let data_start = header_len.next_multiple_of(alignment);
    let place = |tensor: Placed| {
        let mut entry = tensor.entry;
        let len = entry.range.end as u64;
        let start = data_start.checked_add(tensor.offset);
        let end = start.and_then(|start| start.checked_add(len));
        match (start, end) {
            (Some(start), Some(end)) if end <= file_len as u64 => {
                entry.range = start as usize..end as usize;
                Ok(entry)
            }
            _ => Err(format!(
                "tensor `{}` claims {len} bytes at offset {} of the data, but the file ends \
                 before (is it truncated?)",
                entry.name, tensor.offset
            )),
        }
    };
    let entries = placed
        .into_iter()
        .map(place)
        .collect::<Result<Vec<_>, _>>()?;
    check_overlap(&entries)?;
    Ok(entries)
}

/// Tensors that share bytes come from a damaged file: each would be read as it stands.
fn check_overlap(entries: &[TensorEntry]) -> Result<(), String> {
    let mut by_place: Vec<&TensorEntry> = entries.iter().collect();
    by_place.sort_by_key(|entry| entry.range.start);
    let overlap = by_place
        .windows(2)
        .find(|pair| pair[1].range.start < pair[0].range.end);
    match overlap {
        None => Ok(()),
        Some(pair) => Err(format!(
            "tensor `{}` overlaps tensor `{}`",
            pair[1].name, pair[0].name
        )),
    }
}

/// Reads one entry; its range is still `0..length`.
fn read_entry(reader: &mut Reader<'_>, index: u64, alignment: u64) -> Result<Placed, String> {
    let name = reader.name(&format!("the name of tensor {index}"))?;
    let what = format!("tensor `{name}`");
    let num_dimensions = reader.u32(&what)?;
    if num_dimensions == 0 || num_dimensions > MAX_DIMENSIONS {
        return Err(format!("{what} claims {num_dimensions} dimensions"));
    }
    let mut shape = Vec::new();
    for _ in 0..num_dimensions {
        let dimension = reader.u64(&what)?;
        let dimension = usize::try_from(dimension).ok().filter(|&d| d > 0);
        shape.push(dimension.ok_or_else(|| format!("{what} has an impossible dimension"))?);
    }
    let width = shape[0];
    shape.reverse();
    let dtype = dtype(reader.u32(&what)?, &what)?;
    if !width.is_multiple_of(dtype.block_len()) {
        return Err(format!(
            "{what} has rows of {width} elements, no multiple of the {} of a {} block",
            dtype.block_len(),
            dtype.name()
        ));
    }
    let num_elements = shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d));
    let num_bytes = num_elements.and_then(|n| dtype.num_bytes(n));
    let num_bytes =
        num_bytes.ok_or_else(|| format!("{what} has the impossible shape {shape:?}"))?;
    let offset = reader.u64(&what)?;
    if !offset.is_multiple_of(alignment) {
        return Err(format!(
            "{what} starts at offset {offset}, no multiple of the alignment {alignment}"
        ));
    }
    if num_bytes > reader.num_left() {
        return Err(format!(
            "{what} of shape {shape:?} needs {num_bytes} bytes, more than the file has"
        ));
    }
    let entry = TensorEntry {
        name,
        dtype: dtype.name().to_owned(),
        shape,
        range: 0..num_bytes,
    };
    Ok(Placed { entry, offset })
}

/// ggml's number of a tensor type.
fn dtype(number: u32, what: &str) -> Result<WeightDtype, String> {
    let other = match number {
        0 => return Ok(WeightDtype::F32),
        1 => return Ok(WeightDtype::F16),
        2 => return Ok(WeightDtype::Q4_0),
        3 => return Ok(WeightDtype::Q4_1),
        6 => return Ok(WeightDtype::Q5_0),
        7 => return Ok(WeightDtype::Q5_1),
        8 => return Ok(WeightDtype::Q8_0),
        10 => return Ok(WeightDtype::Q2K),
        11 => return Ok(WeightDtype::Q3K),
        12 => return Ok(WeightDtype::Q4K),
        13 => return Ok(WeightDtype::Q5K),
        14 => return Ok(WeightDtype::Q6K),
        30 => return Ok(WeightDtype::Bf16),
        9 => "Q8_1",
        15 => "Q8_K",
        16 => "IQ2_XXS",
        17 => "IQ2_XS",
        18 => "IQ3_XXS",
        19 => "IQ1_S",
        20 => "IQ4_NL",
        21 => "IQ3_S",
        22 => "IQ2_S",
        23 => "IQ4_XS",
        24..=28 => "an integer or double type",
        29 => "IQ1_M",
        34 => "TQ1_0",
        35 => "TQ2_0",
        39 => "MXFP4",
        _ => return Err(format!("{what} has the unknown type number {number}")),
    };
    Err(format!(
        "{what} is of type {other}, which is not supported (supported: {})",
        WeightDtype::ALL.map(WeightDtype::name).join(", ")
    ))
}
