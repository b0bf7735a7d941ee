//! Where weights live: a view into bytes that are memory-mapped or part of the binary, never
//! copied.
//!
//! Invariant: a view's bytes are as long as its shape and dtype say, and outlive it.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

/// Number format of a dense weight.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum WeightDtype {
    /// IEEE single.
    F32,
    /// IEEE half.
    F16,
    /// bfloat16.
    Bf16,
}

impl WeightDtype {
    /// Bytes an element.
    pub fn size(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::Bf16 => 2,
        }
    }
}

/// Owner of weight bytes: a memory-mapped file, bytes of the binary, or generated ones.
pub trait WeightBytes: Send + Sync {
    /// All bytes of the owner.
    fn bytes(&self) -> &[u8];
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
    /// the shape.
    pub fn new(
        owner: Arc<dyn WeightBytes>,
        range: Range<usize>,
        dtype: WeightDtype,
        shape: Vec<usize>,
    ) -> Option<Self> {
        let num_elements = shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d))?;
        let fits = range.start <= range.end
            && range.end <= owner.bytes().len()
            && num_elements.checked_mul(dtype.size())? == range.end - range.start;
        fits.then_some(Self {
            owner,
            range,
            dtype,
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
