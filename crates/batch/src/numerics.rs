//! What a `numerics_id` promises.
//!
//! Invariant: engines with equal ids that are reproducible compute equal bits, whoever shares their
//! steps.

/// The part of a `numerics_id`, between hyphens, of engines that let a library choose its own order
/// of sums: a row's bits then depend on its company.
pub const FAST_NUMERICS: &str = "fast";

/// Whether equal ids mean equal bits.
pub fn is_reproducible(numerics_id: &str) -> bool {
    !numerics_id.split('-').any(|part| part == FAST_NUMERICS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_library_of_another_order_is_not_reproducible() {
        assert!(is_reproducible(
            "cuda-sm86-kab12-bf16act-bf16kv-invariant-r1"
        ));
        assert!(is_reproducible("cpu-fastest"));
        assert!(!is_reproducible(
            "cuda-sm86-kab12-bf16act-bf16kv-fast-cublaslt13.0.2-r1"
        ));
    }
}
