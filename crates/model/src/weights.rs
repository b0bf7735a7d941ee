//! Where weights live: a view into bytes that are memory-mapped or part of the binary, never
//! copied.
//!
//! Invariant: a view's bytes are as long as its shape and dtype say, and outlive it.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use crate::FileIdentity;

/// Number format of a weight.
///
/// The quantized ones are ggml's: blocks of 32 elements (`Q8_0`, `Q4_0`, `Q4_1`, `Q5_0`, `Q5_1`) or
/// 256 (the k-quants), each with its own scales; an element's value is exact in f32 arithmetic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum WeightDtype {
    /// IEEE single.
    F32,
    /// IEEE half.
    F16,
    /// bfloat16.
    Bf16,
    /// 4 bits and a scale.
    Q4_0,
    /// 4 bits, a scale and a minimum.
    Q4_1,
    /// 5 bits and a scale.
    Q5_0,
    /// 5 bits, a scale and a minimum.
    Q5_1,
    /// 8 bits and a scale.
    Q8_0,
    /// 2 bits; 4-bit scales and minimums of 16 elements.
    Q2K,
    /// 3 bits; 6-bit scales of 16 elements.
    Q3K,
    /// 4 bits; 6-bit scales and minimums of 32 elements.
    Q4K,
    /// 5 bits; 6-bit scales and minimums of 32 elements.
    Q5K,
    /// 6 bits; 8-bit scales of 16 elements.
    Q6K,
}

impl WeightDtype {
    /// All of them.
    pub const ALL: [Self; 13] = [
        Self::F32,
        Self::F16,
        Self::Bf16,
        Self::Q4_0,
        Self::Q4_1,
        Self::Q5_0,
        Self::Q5_1,
        Self::Q8_0,
        Self::Q2K,
        Self::Q3K,
        Self::Q4K,
        Self::Q5K,
        Self::Q6K,
    ];

    /// Its name, as safetensors and GGUF files spell it.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "F32",
            Self::F16 => "F16",
            Self::Bf16 => "BF16",
            Self::Q4_0 => "Q4_0",
            Self::Q4_1 => "Q4_1",
            Self::Q5_0 => "Q5_0",
            Self::Q5_1 => "Q5_1",
            Self::Q8_0 => "Q8_0",
            Self::Q2K => "Q2_K",
            Self::Q3K => "Q3_K",
            Self::Q4K => "Q4_K",
            Self::Q5K => "Q5_K",
            Self::Q6K => "Q6_K",
        }
    }

    /// The dtype of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|dtype| dtype.name() == name)
    }

    /// Elements of a block: 1 in dense formats.
    pub const fn block_len(self) -> usize {
        match self {
            Self::F32 | Self::F16 | Self::Bf16 => 1,
            Self::Q4_0 | Self::Q4_1 | Self::Q5_0 | Self::Q5_1 | Self::Q8_0 => 32,
            Self::Q2K | Self::Q3K | Self::Q4K | Self::Q5K | Self::Q6K => 256,
        }
    }

    /// Bytes of a block.
    pub const fn block_bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::Bf16 => 2,
            Self::Q4_0 => 18,
            Self::Q4_1 => 20,
            Self::Q5_0 => 22,
            Self::Q5_1 => 24,
            Self::Q8_0 => 34,
            Self::Q2K => 84,
            Self::Q3K => 110,
            Self::Q4K => 144,
            Self::Q5K => 176,
            Self::Q6K => 210,
        }
    }

    /// Whether elements lie in blocks with scales.
    pub fn is_quantized(self) -> bool {
        self.block_len() > 1
    }

    /// Bytes of `num_elements` in a row, whole blocks; `None` where that does not fit a `usize`.
    pub fn num_bytes(self, num_elements: usize) -> Option<usize> {
        let num_blocks = num_elements.div_ceil(self.block_len());
        num_blocks.checked_mul(self.block_bytes())
    }
}

/// Owner of weight bytes: a memory-mapped file, bytes of the binary, or generated ones.
pub trait WeightBytes: Send + Sync {
    /// All bytes of the owner.
    fn bytes(&self) -> &[u8];

    /// What tells the bytes from others without reading them, where they are a file's.
    fn identity(&self) -> Option<&FileIdentity> {
        None
    }
}

impl WeightBytes for &'static [u8] {
    fn bytes(&self) -> &[u8] {
        self
    }
}

impl WeightBytes for Vec<u8> {
    fn bytes(&self) -> &[u8] {
        self
    }
}

/// A tensor's bytes inside their owner, row-major and little-endian.
#[derive(Clone)]
pub struct WeightView {
    owner: Arc<dyn WeightBytes>,
    range: Range<usize>,
    dtype: WeightDtype,
    shape: Vec<usize>,
}

impl fmt::Debug for WeightView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WeightView({:?} {:?})", self.dtype, self.shape)
    }
}

impl WeightView {
    /// A view of `range` of `owner`; `None` where the range is outside the owner or does not fit
    /// the shape, or where the innermost dimension is no whole number of blocks.
    pub fn new(
        owner: Arc<dyn WeightBytes>,
        range: Range<usize>,
        dtype: WeightDtype,
        shape: Vec<usize>,
    ) -> Option<Self> {
        let num_elements = shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d))?;
        let is_whole = shape
            .last()
            .is_none_or(|width| width.is_multiple_of(dtype.block_len()));
        let fits = is_whole
            && range.start <= range.end
            && range.end <= owner.bytes().len()
            && dtype.num_bytes(num_elements)? == range.end - range.start;
        fits.then_some(Self {
            owner,
            range,
            dtype,
            shape,
        })
    }

    /// Part `index` of the outermost dimension, which the view then no longer has; `None` where
    /// there is no such part. Of experts stacked into one tensor: one of them.
    pub fn part(&self, index: usize) -> Option<Self> {
        let mut part = self.rows(index..index.checked_add(1)?)?;
        part.shape.remove(0);
        // What is left has to have a row of whole blocks.
        (!part.shape.is_empty()).then_some(part)
    }

    /// Rows `rows` of the outermost dimension; `None` where they are not all there, or the tensor
    /// has one dimension.
    pub fn rows(&self, rows: Range<usize>) -> Option<Self> {
        let (&num_rows, inner) = self.shape.split_first()?;
        if rows.start > rows.end || rows.end > num_rows || inner.is_empty() {
            return None;
        }
        let row_bytes = (self.range.end - self.range.start).checked_div(num_rows)?;
        let start = self.range.start + rows.start * row_bytes;
        let mut shape = self.shape.clone();
        shape[0] = rows.len();
        Some(Self {
            owner: Arc::clone(&self.owner),
            range: start..start + rows.len() * row_bytes,
            dtype: self.dtype,
            shape,
        })
    }

    /// The tensor's bytes. Not necessarily aligned to the dtype.
    pub fn bytes(&self) -> &[u8] {
        &self.owner.bytes()[self.range.clone()]
    }

    /// The dtype.
    pub fn dtype(&self) -> WeightDtype {
        self.dtype
    }

    /// The shape, outermost dimension first.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_and_rows_are_slices_of_the_bytes() {
        let bytes: Vec<u8> = (0..48).collect();
        let owner: Arc<dyn WeightBytes> = Arc::new(bytes);
        let view = WeightView::new(owner, 0..48, WeightDtype::F16, vec![2, 4, 3]).unwrap();
        let part = view.part(1).unwrap();
        assert_eq!((part.shape(), part.bytes()[0]), (&[4, 3][..], 24));
        let rows = part.rows(1..3).unwrap();
        assert_eq!(rows.shape(), [2, 3]);
        assert_eq!(rows.bytes(), (30..42).collect::<Vec<u8>>());
        assert_eq!(part.rows(4..4).unwrap().bytes().len(), 0);
        assert!(view.part(2).is_none() && view.part(usize::MAX).is_none());
        assert!(part.rows(3..5).is_none());
        // A row of a matrix would be a vector; a vector has no rows.
        assert_eq!(part.part(0).unwrap().shape(), [3]);
        assert!(part.part(0).unwrap().rows(0..1).is_none());
        assert!(part.part(0).unwrap().part(0).is_none());
    }

    #[test]
    fn rows_of_blocks_are_whole_blocks() {
        let owner: Arc<dyn WeightBytes> = Arc::new(vec![7; 6 * 2 * 34]);
        let dtype = WeightDtype::Q8_0;
        let view = WeightView::new(owner, 0..6 * 2 * 34, dtype, vec![3, 2, 64]).unwrap();
        let rows = view.part(2).unwrap().rows(1..2).unwrap();
        assert_eq!((rows.bytes().len(), rows.range.start), (68, 5 * 68));
    }
}
