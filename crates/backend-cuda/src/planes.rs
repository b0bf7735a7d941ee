//! Quantized weights as the fused products read them: quants and scales apart, so that both are
//! loaded sixteen aligned bytes at a time.
//!
//! `Q8_0`: rows of signed bytes; rows of half scales. `Q4_K`: 128 bytes of nibbles a block; its
//! first sixteen bytes (two halves, twelve bytes of scales and minimums) apart.
//!
//! Invariant: the same bytes as in the file, in another order.

use hotspare_model::weights::WeightDtype;

use crate::kernels::WeightFormat;

/// A matrix in planes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Planes {
    /// How they lie.
    pub format: WeightFormat,
    /// Quants, row after row.
    pub data: Vec<u8>,
    /// Scales, row after row.
    pub scales: Vec<u8>,
}

/// Takes blocks of `dtype` apart; `None` for formats without a fused product.
pub fn planes(dtype: WeightDtype, bytes: &[u8]) -> Option<Planes> {
    let (format, scale_bytes) = match dtype {
        WeightDtype::Q8_0 => (WeightFormat::Q8_0Planes, 2),
        WeightDtype::Q4K => (WeightFormat::Q4KPlanes, 16),
        _ => return None,
    };
    let num_blocks = bytes.len() / dtype.block_bytes();
    let mut planes = Planes {
        format,
        data: Vec::with_capacity(bytes.len()),
        scales: Vec::with_capacity(num_blocks * scale_bytes),
    };
    for block in bytes.chunks_exact(dtype.block_bytes()) {
        let (scales, data) = block.split_at(scale_bytes);
        planes.scales.extend(scales);
        planes.data.extend(data);
    }
    Some(planes)
}
