//! Number formats of activations and of the KV cache on the device.
//!
//! Invariant: the numbers are those of `Dtype` in kernels/types.cuh.

use half::{bf16, f16};

/// A dense number format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Dtype {
    /// IEEE single.
    F32,
    /// IEEE half.
    F16,
    /// bfloat16.
    Bf16,
}

impl Dtype {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::F32, Self::F16, Self::Bf16];
    /// Those of sixteen bits, which matrix units multiply.
    pub const HALVES: [Self; 2] = [Self::F16, Self::Bf16];

    /// Bytes of an element.
    pub fn size(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::Bf16 => 2,
        }
    }

    /// As kernels' names end.
    pub fn suffix(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::Bf16 => "bf16",
        }
    }

    /// The number that kernels know it by.
    pub fn code(self) -> u32 {
        match self {
            Self::F32 => 0,
            Self::F16 => 1,
            Self::Bf16 => 2,
        }
    }

    /// Elements from one row to the next: rows of buffers start at multiples of sixteen bytes.
    pub fn stride(self, width: usize) -> usize {
        width.next_multiple_of(16 / self.size())
    }

    /// `x` rounded to this format.
    pub fn round(self, x: f32) -> f32 {
        match self {
            Self::F32 => x,
            Self::F16 => f16::from_f32(x).to_f32(),
            Self::Bf16 => bf16::from_f32(x).to_f32(),
        }
    }

    /// The bytes of `values`, rounded.
    pub fn encode(self, values: &[f32]) -> Vec<u8> {
        match self {
            Self::F32 => values.iter().flat_map(|x| x.to_le_bytes()).collect(),
            Self::F16 => {
                let halves = values.iter().map(|&x| f16::from_f32(x).to_le_bytes());
                halves.flatten().collect()
            }
            Self::Bf16 => {
                let halves = values.iter().map(|&x| bf16::from_f32(x).to_le_bytes());
                halves.flatten().collect()
            }
        }
    }

    /// The values that `bytes` stand for.
    pub fn decode(self, bytes: &[u8]) -> Vec<f32> {
        let halves = || bytes.as_chunks::<2>().0.iter();
        match self {
            Self::F32 => {
                let words = bytes.as_chunks::<4>().0.iter();
                words.map(|&b| f32::from_le_bytes(b)).collect()
            }
            Self::F16 => halves().map(|&b| f16::from_le_bytes(b).to_f32()).collect(),
            Self::Bf16 => halves().map(|&b| bf16::from_le_bytes(b).to_f32()).collect(),
        }
    }
}

/// The one of `names` (f32, f16, bf16) that is for `dtype`.
pub(crate) fn pick(dtype: Dtype, names: [&'static str; 3]) -> &'static str {
    names[dtype.code() as usize]
}
