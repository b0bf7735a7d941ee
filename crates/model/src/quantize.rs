//! Quantization of dense weights while they are loaded, so that a checkpoint of sixteen bits fits
//! where only a quantized one would.
//!
//! What gets which type follows llama.cpp's habits: every linear layer takes the type asked for;
//! the matrix that makes logits (`lm_head`, or the embedding where the two are tied) takes `Q6_K`
//! at least; norms, biases and routers stay as they are. Rows that no whole number of blocks fills
//! fall back to `Q8_0` (blocks of 32), and where that does not fit either, stay dense.
//!
//! Invariant: a tensor's bytes are a function of its values and the type alone, so that two nodes
//! that load the same files with the same option hold the same weights.

mod blocks;
#[cfg(test)]
mod blocks_test;
mod k_blocks;
mod scales;
mod tensor;

pub(crate) use tensor::Quantizer;

use crate::weights::WeightDtype;

/// The type that [`Quantization`] falls back to where rows are no whole number of larger blocks.
const FALLBACK: WeightDtype = WeightDtype::Q8_0;

/// Quantize dense weights at load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quantization {
    /// The type of linear layers, one of [`Quantization::OFFERED`].
    pub dtype: WeightDtype,
    /// Threads that encode; at least 1.
    pub num_threads: usize,
}

/// What a linear layer is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LinearRole {
    /// A layer's own product, an expert's included.
    Projection,
    /// The embedding table, where another matrix makes the logits.
    Embedding,
    /// The matrix that makes the logits.
    Output,
    /// Chooses experts: small, and a wrong choice costs more than its bytes.
    Router,
}

impl Quantization {
    /// The types that there are encoders for.
    pub const OFFERED: [WeightDtype; 10] = [
        WeightDtype::Q8_0,
        WeightDtype::Q6K,
        WeightDtype::Q5K,
        WeightDtype::Q5_1,
        WeightDtype::Q5_0,
        WeightDtype::Q4K,
        WeightDtype::Q4_1,
        WeightDtype::Q4_0,
        WeightDtype::Q3K,
        WeightDtype::Q2K,
    ];

    /// The offered type of that name, in any case: `q8_0`, `Q4_K`.
    pub fn dtype_from_name(name: &str) -> Option<WeightDtype> {
        let mut offered = Self::OFFERED.into_iter();
        offered.find(|dtype| dtype.name().eq_ignore_ascii_case(name))
    }

    /// The names of all offered types, in lower case.
    pub fn offered_names() -> String {
        let names = Self::OFFERED.map(|dtype| dtype.name().to_lowercase());
        names.join(", ")
    }

    /// The type of a matrix of that role whose rows have `num_inputs` elements, and the one it
    /// would have if they were whole blocks; `None` where it stays as it is.
    pub(crate) fn choose(
        self,
        role: LinearRole,
        num_inputs: usize,
    ) -> (WeightDtype, Option<WeightDtype>) {
        let wanted = match role {
            LinearRole::Router => return (self.dtype, None),
            LinearRole::Output if self.dtype != WeightDtype::Q8_0 => WeightDtype::Q6K,
            _ => self.dtype,
        };
        let fits = |dtype: &WeightDtype| num_inputs.is_multiple_of(dtype.block_len());
        let chosen = [wanted, FALLBACK].into_iter().find(fits);
        (wanted, chosen)
    }
}

/// Encodes whole blocks: `values` are `out.len() / block_bytes` blocks of finite numbers.
///
/// # Panics
/// On a type that is not offered, or lengths that are not of whole and equally many blocks: a
/// mistake of the program.
pub fn encode(dtype: WeightDtype, values: &[f32], out: &mut [u8]) {
    let num_blocks = values.len() / dtype.block_len();
    assert_eq!(values.len(), num_blocks * dtype.block_len(), "whole blocks");
    assert_eq!(out.len(), num_blocks * dtype.block_bytes(), "as many");
    match dtype {
        WeightDtype::Q8_0 => blocks::encode_all(values, out, blocks::q8_0),
        WeightDtype::Q4_0 => blocks::encode_all(values, out, blocks::q4_0),
        WeightDtype::Q4_1 => blocks::encode_all(values, out, blocks::q4_1),
        WeightDtype::Q5_0 => blocks::encode_all(values, out, blocks::q5_0),
        WeightDtype::Q5_1 => blocks::encode_all(values, out, blocks::q5_1),
        WeightDtype::Q2K => blocks::encode_all(values, out, k_blocks::q2_k),
        WeightDtype::Q3K => blocks::encode_all(values, out, k_blocks::q3_k),
        WeightDtype::Q4K => blocks::encode_all(values, out, k_blocks::q4_k),
        WeightDtype::Q5K => blocks::encode_all(values, out, k_blocks::q5_k),
        WeightDtype::Q6K => blocks::encode_all(values, out, k_blocks::q6_k),
        dtype => panic!("there is no encoder for {}", dtype.name()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn choose(dtype: WeightDtype, role: LinearRole, num_inputs: usize) -> Option<WeightDtype> {
        let quantization = Quantization {
            dtype,
            num_threads: 1,
        };
        quantization.choose(role, num_inputs).1
    }

    #[test]
    fn names_are_found_in_any_case_and_only_offered_ones() {
        assert_eq!(
            Quantization::dtype_from_name("q4_k"),
            Some(WeightDtype::Q4K)
        );
        assert_eq!(
            Quantization::dtype_from_name("Q8_0"),
            Some(WeightDtype::Q8_0)
        );
        for name in ["awq", "f16", "q8_k", "", "none"] {
            assert_eq!(Quantization::dtype_from_name(name), None, "{name}");
        }
        assert!(Quantization::offered_names().starts_with("q8_0, q6_k"));
    }

    #[test]
    fn what_gets_which_type() {
        use LinearRole::{Embedding, Output, Projection, Router};
        use WeightDtype::{Q4_0, Q4K, Q6K, Q8_0};
        assert_eq!(choose(Q4K, Projection, 1024), Some(Q4K));
        assert_eq!(choose(Q4K, Embedding, 1024), Some(Q4K));
        assert_eq!(choose(Q4K, Output, 1024), Some(Q6K));
        assert_eq!(choose(Q8_0, Output, 1024), Some(Q8_0));
        assert_eq!(choose(Q4_0, Output, 96), Some(Q8_0));
        assert_eq!(choose(Q4_0, Projection, 96), Some(Q4_0));
        assert_eq!(choose(Q4K, Projection, 96), Some(Q8_0));
        assert_eq!(choose(Q4K, Projection, 172), None);
        assert_eq!(choose(Q8_0, Router, 1024), None);
    }
}
