//! Quantizes tensors one at a time, rows divided between threads.
//!
//! The dense bytes are read from where they lie (usually a mapped file) and widened a row at a
//! time: what a load adds to memory is the quantized copy and one row a thread.
//!
//! Invariant: the bytes do not depend on the number of threads.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::thread;

use half::{bf16, f16};

use super::{LinearRole, Quantization, encode};
use crate::ModelError;
use crate::weights::{WeightDtype, WeightView};

/// Largest magnitude that is encoded: scales and minimums are halves.
const MAX_MAGNITUDE: f32 = 65_504.0;
/// Elements that are worth a thread.
const MIN_ELEMENTS_A_THREAD: usize = 1 << 16;

/// Quantizes the tensors of one load and remembers what became of them.
#[derive(Debug, Default)]
pub(crate) struct Quantizer {
    quantization: Option<Quantization>,
    num_quantized: usize,
    /// Wanted type, type in fact (none: stayed dense) and width to how many, and one of them.
    fallbacks: BTreeMap<(&'static str, Option<&'static str>, usize), (usize, String)>,
    num_already: usize,
}

impl Quantizer {
    /// One that leaves everything as it is where `quantization` is none.
    pub(crate) fn new(quantization: Option<Quantization>) -> Self {
        Self {
            quantization,
            ..Self::default()
        }
    }

    /// The weights of linear layer `name`, quantized if they are to be. Those that are already stay
    /// as they are.
    ///
    /// # Errors
    /// [`ModelError::Quantize`] for a number that no block can hold.
    pub(crate) fn apply(
        &mut self,
        name: &str,
        role: LinearRole,
        view: WeightView,
    ) -> Result<WeightView, ModelError> {
        let (Some(quantization), &[_, num_inputs]) = (self.quantization, view.shape()) else {
            return Ok(view);
        };
        if role == LinearRole::Router {
            return Ok(view);
        }
        if view.dtype().is_quantized() {
            self.num_already += 1;
            return Ok(view);
        }
        let (wanted, chosen) = quantization.choose(role, num_inputs);
        if chosen != Some(wanted) {
            let key = (wanted.name(), chosen.map(WeightDtype::name), num_inputs);
            let counted = self.fallbacks.entry(key);
            counted.or_insert_with(|| (0, name.to_owned())).0 += 1;
        }
        let Some(dtype) = chosen else {
            return Ok(view);
        };
        self.num_quantized += 1;
        quantize(&view, dtype, quantization.num_threads).map_err(|reason| ModelError::Quantize {
            name: name.to_owned(),
            reason,
        })
    }

    /// Logs what was quantized, and which tensors could not take the type that was asked for.
    pub(crate) fn report(&self) {
        let Some(quantization) = self.quantization else {
            return;
        };
        let dtype = quantization.dtype.name();
        let num_quantized = self.num_quantized;
        tracing::info!(dtype, num_quantized, "linear weights are quantized");
        if self.num_already > 0 {
            let num_tensors = self.num_already;
            tracing::warn!(num_tensors, "tensors that are quantized already stay so");
        }
        for ((wanted, taken, num_inputs), (num_tensors, example)) in &self.fallbacks {
            tracing::warn!(
                wanted,
                taken = taken.unwrap_or("as stored"),
                num_inputs,
                num_tensors,
                example,
                "rows are no whole number of blocks: another type is taken"
            );
        }
    }

    /// What enters the numbers of a model that was loaded so; none where nothing was quantized.
    pub(crate) fn numerics(&self) -> Option<String> {
        let dtype = self.quantization?.dtype.name().to_lowercase();
        (self.num_quantized > 0).then(|| format!("quantized-{dtype}"))
    }
}

/// `view`, dense and of whole rows, in blocks of `dtype`.
fn quantize(
    view: &WeightView,
    dtype: WeightDtype,
    num_threads: usize,
) -> Result<WeightView, String> {
    let &[num_outputs, num_inputs] = view.shape() else {
        return Err(format!("it has shape {:?}", view.shape()));
    };
    let too_large = || "it is larger than the address space".to_owned();
    let num_elements = num_outputs.checked_mul(num_inputs).ok_or_else(too_large)?;
    let num_bytes = dtype.num_bytes(num_elements).ok_or_else(too_large)?;
    let row_bytes = num_inputs / dtype.block_len() * dtype.block_bytes();
    let mut bytes = vec![0; num_bytes];
    let max_pieces = num_elements.div_ceil(MIN_ELEMENTS_A_THREAD);
    let num_pieces = num_threads.clamp(1, max_pieces.max(1));
    let rows_a_piece = num_outputs.div_ceil(num_pieces).max(1);
    thread::scope(|scope| {
        let mut pieces = bytes.chunks_mut((rows_a_piece * row_bytes).max(1));
        let own = pieces.next();
        let workers: Vec<_> = (1..)
            .zip(pieces)
            .map(|(nth, out)| {
                let first = nth * rows_a_piece;
                scope.spawn(move || quantize_rows(view, dtype, first, out))
            })
            .collect();
        let mut result = own.map_or(Ok(()), |out| quantize_rows(view, dtype, 0, out));
        for worker in workers {
            let joined = worker.join();
            let joined = joined.unwrap_or_else(|_| Err("its encoder failed".to_owned()));
            result = result.and(joined);
        }
        result
    })?;
    let shape = vec![num_outputs, num_inputs];
    let view = WeightView::new(Arc::new(bytes), 0..num_bytes, dtype, shape);
    view.ok_or_else(|| "its rows are no whole blocks".to_owned())
}

/// Encodes rows from `first` on, as many as `out` has room for.
fn quantize_rows(
    view: &WeightView,
    dtype: WeightDtype,
    first: usize,
    out: &mut [u8],
) -> Result<(), String> {
    let num_inputs = view.shape()[1];
    let row_bytes = num_inputs / dtype.block_len() * dtype.block_bytes();
    let dense_bytes = num_inputs * view.dtype().block_bytes();
    let dense = &view.bytes()[first * dense_bytes..];
    let mut row = vec![0.0; num_inputs];
    let rows = dense.chunks_exact(dense_bytes);
    for (nth, (dense, out)) in rows.zip(out.chunks_exact_mut(row_bytes)).enumerate() {
        widen(view.dtype(), dense, &mut row);
        let bad = |x: &&f32| !(-MAX_MAGNITUDE..=MAX_MAGNITUDE).contains(*x);
        if let Some(bad) = row.iter().find(bad) {
            let row = first + nth;
            return Err(format!("row {row} has {bad}, which no block can hold"));
        }
        encode(dtype, &row, out);
    }
    Ok(())
}

/// Widens dense elements to floats; exact.
fn widen(dtype: WeightDtype, bytes: &[u8], out: &mut [f32]) {
    let halves = || bytes.as_chunks::<2>().0.iter();
    match dtype {
        WeightDtype::F16 => {
            for (out, &bytes) in out.iter_mut().zip(halves()) {
                *out = f16::from_le_bytes(bytes).to_f32();
            }
        }
        WeightDtype::Bf16 => {
            for (out, &bytes) in out.iter_mut().zip(halves()) {
                *out = bf16::from_le_bytes(bytes).to_f32();
            }
        }
        _ => {
            for (out, &bytes) in out.iter_mut().zip(bytes.as_chunks::<4>().0) {
                *out = f32::from_le_bytes(bytes);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(values: &[f32], shape: [usize; 2]) -> WeightView {
        let bytes: Vec<u8> = values.iter().flat_map(|x| x.to_le_bytes()).collect();
        let len = bytes.len();
        WeightView::new(Arc::new(bytes), 0..len, WeightDtype::F32, shape.to_vec()).unwrap()
    }

    fn wave(len: usize) -> Vec<f32> {
        (0..len).map(|i| (i as f32 * 0.37).sin() * 3.0).collect()
    }

    #[test]
    fn bytes_do_not_depend_on_the_number_of_threads_or_the_dense_type() {
        let values: Vec<f32> = wave(1024 * 257)
            .iter()
            .map(|x| bf16::from_f32(*x).to_f32())
            .collect();
        let shape = [257, 1024];
        let halves = values.iter().flat_map(|x| bf16::from_f32(*x).to_le_bytes());
        let halves: Vec<u8> = halves.collect();
        let len = halves.len();
        let halves =
            WeightView::new(Arc::new(halves), 0..len, WeightDtype::Bf16, shape.to_vec()).unwrap();
        for dtype in [WeightDtype::Q8_0, WeightDtype::Q4K] {
            let one = quantize(&view(&values, shape), dtype, 1).unwrap();
            assert_eq!(one.bytes().len(), dtype.num_bytes(1024).unwrap() * 257);
            let mut expected = vec![0; one.bytes().len()];
            encode(dtype, &values, &mut expected);
            assert!(one.bytes() == expected);
            for num_threads in [2, 3, 1000] {
                let several = quantize(&halves, dtype, num_threads).unwrap();
                assert!(several.bytes() == expected, "{num_threads}");
            }
        }
    }

    #[test]
    fn numbers_that_no_block_holds_are_refused_by_name() {
        for (bad, shown) in [(f32::NAN, "NaN"), (f32::INFINITY, "inf"), (-7e4, "-70000")] {
            let mut values = wave(3 * 64);
            values[130] = bad;
            let quantization = Quantization {
                dtype: WeightDtype::Q4_0,
                num_threads: 2,
            };
            let mut quantizer = Quantizer::new(Some(quantization));
            let view = view(&values, [3, 64]);
            let error = quantizer.apply("some.weight", LinearRole::Projection, view);
            let message = error.unwrap_err().to_string();
            assert!(
                message.contains("some.weight") && message.contains("row 2"),
                "{message}"
            );
            assert!(message.contains(shown), "{message}");
        }
    }

    #[test]
    fn only_dense_matrices_of_layers_change() {
        let quantization = Quantization {
            dtype: WeightDtype::Q8_0,
            num_threads: 1,
        };
        let mut quantizer = Quantizer::new(Some(quantization));
        assert_eq!(quantizer.numerics(), None);
        let router = view(&wave(64), [2, 32]);
        let router = quantizer
            .apply("router", LinearRole::Router, router)
            .unwrap();
        assert_eq!(router.dtype(), WeightDtype::F32);
        let narrow = view(&wave(2 * 33), [2, 33]);
        let narrow = quantizer
            .apply("narrow", LinearRole::Projection, narrow)
            .unwrap();
        assert_eq!(narrow.dtype(), WeightDtype::F32);
        assert_eq!(quantizer.numerics(), None);
        let layer = view(&wave(64), [2, 32]);
        let layer = quantizer
            .apply("layer", LinearRole::Projection, layer)
            .unwrap();
        assert_eq!(layer.dtype(), WeightDtype::Q8_0);
        let again = quantizer
            .apply("layer", LinearRole::Output, layer.clone())
            .unwrap();
        assert_eq!(again.bytes(), layer.bytes());
        assert_eq!(quantizer.numerics().as_deref(), Some("quantized-q8_0"));
        let mut nothing = Quantizer::new(None);
        let dense = view(&wave(64), [2, 32]);
        let dense = nothing
            .apply("layer", LinearRole::Projection, dense)
            .unwrap();
        assert_eq!(dense.dtype(), WeightDtype::F32);
    }
}
